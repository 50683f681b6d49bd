"""Settings of runs in TOML: `--config`, `run.toml` of any version, and protocols."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

from fuzz import trees
from fuzz.harness import Disagreement, Target
from poolzoo.compare.board import protocol
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_run_settings, read_toml

EARLIER = Path(__file__).parents[2] / "data/earlier"


def targets(folder: Path) -> Iterator[Target]:
    file = folder / "run.toml"
    runs = [EARLIER / "run/run.toml", EARLIER / "interrupted/run.toml"]
    texts = [path.read_bytes() for path in runs] + [_everything().encode()]

    def config(content: bytes) -> object:
        file.write_bytes(content)
        return Settings(**read_toml(file))

    def run(content: bytes) -> object:
        file.write_bytes(content)
        found = read_run_settings(folder)
        file.write_bytes(found.to_toml().encode())
        if read_run_settings(folder) != found:
            raise Disagreement("what to_toml writes is read as other settings")
        return found

    def pinned(content: bytes) -> object:
        file.write_bytes(content)
        found = protocol.load(file)
        return found.digest, found.reference, found.title, found.base, found.seed_range, found.to_json()

    yield Target("config", texts, mutated_toml(), config)
    yield Target("run-toml", texts, mutated_toml(), run)
    built_in = [path.read_bytes() for path in sorted(protocol.BUILT_IN.glob("*.toml"))]
    yield Target("protocol", built_in, mutated_toml(), pinned)


def mutated_toml() -> Callable[[Random, Sequence[bytes]], bytes]:
    trees_of: dict[bytes, dict[str, object]] = {}

    def mutate(rng: Random, seeds: Sequence[bytes]) -> bytes:
        seed = rng.choice(seeds)
        if seed not in trees_of:
            trees_of[seed] = tomllib.loads(seed.decode())
        return trees.toml_text(rng, trees_of[seed])

    return mutate


def _everything() -> str:
    """Settings of which every one has a value of its type."""
    values = {name: value for name, value in asdict(Settings()).items() if value is not None and value != ()}
    values |= {"data": "folder:photos", "local_pool": "blur", "batch_size": 8, "lr": 0.1, "image_size": "64x208"}
    values |= {
        "augment": "light",
        "policy": "rand:2,9",
        "crop_scale": "0.08,1",
        "loss": "focal:2",
        "time_budget": "25m",
    }
    values |= {"skip_broken": "all", "steps": "1240,400:1100", "freeze": "stages:2", "plugins": ["a.py"], "limit": 60}
    values.pop("epochs", None)
    return trees.toml(values)
