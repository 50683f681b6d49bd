"""The files of a run directory: manifest, config, metrics, and the run as a whole, signed again after the change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np

from fuzz import trees
from fuzz.harness import Disagreement, Target
from fuzz.targets.settings import mutated_toml
from poolzoo.artifacts import manifest, result_card, run, run_report
from poolzoo.common import files
from poolzoo.compare import gather
from poolzoo.model.accounting import Accounting
from poolzoo.train.class_weights import class_weights
from poolzoo.train.settings_file import read_run_settings

EARLIER = Path(__file__).parents[2] / "data/earlier"
CLASSES = ("ant", "bee", "cat")


def mutated_json(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """JSON with changes; a seed is JSON."""
    return trees.json_text(rng, json.loads(rng.choice(seeds)))


def mutated_lines(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Lines of JSON of which some are changed; a seed is such a file."""
    whole = rng.choice(seeds).splitlines()
    lines = list(whole)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(lines) + 1)
        line = trees.json_text(rng, json.loads(rng.choice(whole)) if rng.random() < 0.9 else {})
        lines[at : at + rng.randrange(2)] = [line]
    return rng.choice((b"\n", b"\n", b"\r\n")).join(lines) + rng.choice((b"\n", b""))


def signed(place: Path, name: str, content: bytes, kind: str) -> Path:
    """A directory with another file and a manifest that fits it: what somebody can make who wants to."""
    (place / name).write_bytes(content)
    manifest.write_manifest(place, kind)
    return place


def restoring(place: Path, name: str, kind: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Reads a directory whose file is replaced, and puts it back."""
    before = (place / name).read_bytes()

    def reading(content: bytes) -> object:
        try:
            return read(signed(place, name, content, kind))
        finally:
            (place / name).write_bytes(before)

    return reading


def targets(folder: Path) -> Iterator[Target]:
    place = folder / "run"
    shutil.copytree(EARLIER / "run", place)
    shutil.rmtree(place / "checkpoint", ignore_errors=True)
    seeds = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}

    def reads_manifest(content: bytes) -> object:
        (place / manifest.MANIFEST).write_bytes(content)
        manifest.kind(place)
        found = manifest.differences(place)
        manifest.check(place, "run")
        return found

    def whole(where: Path) -> object:
        found = run.load_run(where)
        return found.classes, found.decision, found.data_size, found.fit, found.uncalibrated()

    def report(content: bytes) -> object:
        (place / run_report.FILE).write_bytes(content)
        try:
            found = run_report.RunReport.load(place)
            card = result_card.render(files.read_json(place / "config.json"), {}, found)
            return found.to_json(), found.summary(), card
        finally:
            (place / run_report.FILE).write_bytes(seeds[run_report.FILE])

    def weights(content: bytes) -> object:
        (folder / "weights.json").write_bytes(content)
        found = class_weights(str(folder / "weights.json"), np.array([0, 1, 2, 2]), CLASSES).positive
        if not (found > 0).all():
            raise Disagreement(f"weights {found}")
        return found

    def replacing(content: bytes) -> object:
        """A command was stopped while it changed the directory, which the next one ends."""
        for name in ("a.json", "b.json"):
            (folder / f"{name}.new").write_text("{}")
        (folder / manifest.REPLACING).write_bytes(content)
        try:
            return manifest.finish_replacing(folder)
        finally:
            (folder / manifest.REPLACING).unlink(missing_ok=True)
            if not place.is_dir():
                raise Disagreement("a directory is gone")

    def initial(content: bytes) -> object:
        (folder / "weights.json").write_bytes(content)
        found = Accounting.from_json(files.read_json(folder / "weights.json"), ["a", "b"], folder / "weights.json")
        return found.line(), found.to_json()

    origin = Accounting("resnet18", loaded=("a",), fresh=("b",), left_out=("fc.weight",)).to_json()
    yield Target("manifest", [seeds["manifest.json"]], mutated_json, reads_manifest, 0.5)
    yield Target("run-config", [seeds["config.json"]], mutated_json, restoring(place, "config.json", "run", whole), 0.1)
    yield Target("metrics", [seeds["metrics.json"]], mutated_json, report)
    yield Target(
        "run-settings", [seeds["run.toml"]], mutated_toml(), restoring(place, "run.toml", "run", read_run_settings), 0.1
    )
    yield Target("class-weights", [b'{"ant": 1, "bee": 2.5, "cat": 0.5}'], mutated_json, weights)
    together = restoring(place, "metrics.jsonl", "run", lambda where: gather.compare_runs([where], None, 0.05))
    yield Target("metrics-lines", [seeds["metrics.jsonl"]], mutated_lines, together, 0.01)
    together = restoring(place, "config.json", "run", lambda where: gather.compare_runs([where], None, 0.05))
    yield Target("gathered-config", [seeds["config.json"]], mutated_json, together, 0.02)
    together = restoring(place, "metrics.json", "run", lambda where: gather.compare_runs([where], None, 0.05))
    yield Target("gathered-metrics", [seeds["metrics.json"]], mutated_json, together, 0.02)
    together = restoring(place, "env.json", "run", lambda where: gather.compare_runs([where], None, 0.05))
    yield Target("gathered-env", [seeds["env.json"]], mutated_json, together, 0.02)
    yield Target("replacing", [b'["a.json.new", "b.json.new"]'], mutated_json, replacing, 0.3)
    yield Target("initial-weights", [json.dumps(origin).encode()], mutated_json, initial, 0.3)
