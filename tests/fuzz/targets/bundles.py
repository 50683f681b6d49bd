"""Bundles: JSON files, golden arrays and the metadata of the graph, signed again after the change, then verified."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import onnx
from onnx import helper

from fuzz import odd, trees
from fuzz.harness import Disagreement, Target
from fuzz.targets.arrays import mutated_arrays
from fuzz.targets.runs import mutated_json, restoring
from poolzoo.common.errors import CheckFailed
from poolzoo.explain.saliency import Explainer
from poolzoo.runtime import cases, ort_session, protocol
from poolzoo.runtime.verify import verify

ROOT = Path(__file__).parents[3]
NO_JSON = "no JSON"  # a value of the metadata of `linear_bundle`


def targets(folder: Path) -> Iterator[Target]:
    sys.path.insert(0, str(ROOT / "tests"))
    from support.linear_bundle import linear_bundle

    place = linear_bundle(folder / "bundle", "uint8")
    model = (place / "model.onnx").read_bytes()
    golden = (place / "golden.npz").read_bytes()
    config = (ROOT / "exports/digits/config.json").read_bytes()
    rules = {
        "abstention": {"threshold": 0.5, "target": {"accuracy": 0.9}, "confidence": 0.95, "validation": {"images": 9}},
        "task": "multilabel",
        "thresholds": [0.5, 0.5, 0.5, 0.5],
        "calibration": {"method": "vector", "temperature": 1.5, "scale": [1, 1, 1, 1], "bias": [0, 0, 0, 0]},
        "precision": "fp32",
        "onnxruntime": "1.17",
    }

    def described(content: bytes) -> bytes:
        return json.dumps({one.key: one.value for one in onnx.load_model_from_string(content).metadata_props}).encode()

    def checked(where: Path) -> object:
        report = verify(where, measure_speed=False)
        for one in report.checks:
            if re.search(r"unexpected [A-Z]\w+", one.detail):
                raise CheckFailed(f"unexpected {one.detail}")
        return report.to_json()

    def with_metadata(content: bytes) -> bytes:
        """The graph with the metadata in JSON texts."""
        proto = onnx.load_model_from_string(model)
        try:
            found = dict(json.loads(content))
        except (ValueError, TypeError) as error:  # atheris makes up bytes that are no object
            raise CheckFailed("no metadata") from error
        helper.set_model_props(proto, {str(key): value for key, value in found.items()})
        return proto.SerializeToString()

    def metadata(content: bytes) -> object:
        where = folder / "graph.onnx"
        where.write_bytes(with_metadata(content))
        found = ort_session.open_model(where)
        found.run(np.zeros((1, *found.size, 3), np.uint8))
        return found.labels, found.decision, found.rules, found.size, found.fit, found.takes_photos, found.batch

    def verified_metadata(content: bytes) -> object:
        return restoring(place, "model.onnx", "bundle", checked)(with_metadata(content))

    def frame(content: bytes) -> object:
        try:
            return protocol.read(io.BytesIO(content))
        except (protocol.BadFrame, protocol.NoFrame):  # the host turns both into a line about the runtime
            return None

    facts = json.loads(described(model))
    seeds = [json.dumps(facts).encode()]
    seeds += [json.dumps({**facts, key: json.dumps(value)}).encode() for key, value in rules.items()]
    yield Target(
        "bundle-config", [b"{}", config], mutated_json, restoring(place, "config.json", "bundle", checked), 0.1
    )
    yield Target(
        "bundle-parity",
        [b"{}", (ROOT / "exports/digits/parity.json").read_bytes()],
        mutated_json,
        restoring(place, "parity.json", "bundle", checked),
        0.03,
    )
    yield Target("golden", [golden], mutated_arrays, restoring(place, "golden.npz", "bundle", checked), 0.1)
    yield Target("golden-cases", [golden], mutated_arrays, restoring(place, "golden.npz", "bundle", _cases), 0.1)
    yield Target("saliency", [config], mutated_json, _explained(folder / "digits"), 0.03)
    yield Target("metadata", seeds, _mutated_metadata, metadata, 0.2)
    yield Target("metadata-verified", seeds, _mutated_metadata, verified_metadata, 0.1)
    yield Target("frame", _frames(), _mutated_frame, frame, 1.0)


def _cases(where: Path) -> object:
    return cases.make_cases(where)


def _explained(place: Path) -> Callable[[bytes], object]:
    """Where the network of a bundle looks, by another configuration."""
    shutil.copytree(ROOT / "exports/digits", place)
    model = ort_session.open_model(place / "model.onnx", threads=1)
    blank = np.zeros((*model.size, 3), np.uint8)

    def read(content: bytes) -> object:
        (place / "config.json").write_bytes(content)
        found, method = Explainer(place, model, 1, {}).contributions(blank, 0)
        if found.ndim != 2 or not np.isfinite(found).all():
            raise Disagreement(f"contributions {found.shape} by {method}")
        return method

    return read


def _mutated_metadata(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Metadata of which one value is other JSON, or no JSON."""
    whole: dict[str, str] = json.loads(rng.choice(seeds))
    found = dict(whole)
    for _ in range(rng.choice((1, 1, 2))):
        key = rng.choice([one for one in found if one in whole] or [*whole])
        kind = rng.random()
        if kind < 0.1:
            found.pop(key, None)
            found = found or {"note": ""}
        elif kind < 0.2 or whole[key] == NO_JSON:
            found[key] = odd.text(rng, whole[key]).encode("utf-8", "replace").decode().replace("\0", " ")
        else:
            text = trees.json_text(rng, json.loads(whole[key]))[:100_000]
            found[key] = text.decode("utf-8", "replace").replace("\0", " ")
    return json.dumps(found).encode()


def _frames() -> list[bytes]:
    stream = io.BytesIO()
    protocol.write(stream, {"status": "ok", "seconds": 1.5}, [np.zeros((2, 3), np.float32), np.ones(4, np.uint8)])
    return [stream.getvalue()]


def _mutated_frame(rng: Random, seeds: Sequence[bytes]) -> bytes:
    content = rng.choice(seeds)
    if rng.random() < 0.3:
        return odd.damaged(rng, content, seeds)
    length = int.from_bytes(content[4:8], "little")
    header = trees.json_text(rng, json.loads(content[8 : 8 + length]))
    told = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**20, 2**32 - 1))
    return content[:4] + told.to_bytes(4, "little") + header + content[8 + length :]
