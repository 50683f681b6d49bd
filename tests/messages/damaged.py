"""Calls of readers with files that are damaged, of another kind, or for another network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poolzoo.compare.records import TrialRecord

Call = Callable[[], object]
BUNDLE = Path(__file__).parents[1] / "data" / "digits_bundle"


def _arrays(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)
    return path


def _runs(folder: Path) -> Iterator[Call]:
    from poolzoo.artifacts import manifest, reading, run_report, samples
    from poolzoo.common import files
    from poolzoo.compare import table
    from poolzoo.data.identity import DataIdentity

    odd = folder / "odd-run"
    odd.mkdir()
    config = json.loads((BUNDLE / "config.json").read_text())
    config["pretrained_cfg"]["std"] = [0, 1, 1]
    (odd / "config.json").write_text(json.dumps(config))
    (odd / manifest.REPLACING).write_text("3")
    (odd / "metrics.json").write_text('{"test": 3}')
    (odd / "lines.jsonl").write_text("{}\n[]\n")
    three = np.zeros(3)
    _arrays(odd / "samples.npz", **{f"{of}_{what}": three for of in ("train", "test") for what in ("images", "labels")})
    _arrays(odd / "validation.npz", logits=three, labels=three)
    _arrays(odd / "predictions.npz", predicted=three, labels=three)
    _arrays(odd / "data.npz", test_digests=np.zeros((2, 8), np.uint8), test_labels=np.zeros(3, np.int64))
    yield lambda: manifest.finish_replacing(odd)
    yield lambda: manifest.require_kind(BUNDLE, "run")
    yield lambda: reading.read_config(odd)
    yield lambda: reading.read_bundle_config(odd)
    yield lambda: run_report.RunReport.load(odd)
    yield lambda: files.read_json_lines(odd / "lines.jsonl")
    yield lambda: files.read_json_lines(odd / "nowhere.jsonl")
    yield lambda: files.read_archive(odd / "nowhere.npz")
    yield lambda: samples.load_samples(odd / "samples.npz")
    yield lambda: samples.load_validation(odd)
    yield lambda: table.correct(odd)
    yield lambda: DataIdentity.load(odd / "data.npz")


def _without_run() -> TrialRecord:
    from poolzoo.compare.records import TrialRecord

    return TrialRecord(trial="avg-0", status="done", backbone="nano/plain", pool="avg", local_pool=None, seed=0)


def _comparisons(folder: Path) -> Iterator[Call]:
    from poolzoo.compare import gather, grid
    from poolzoo.compare.across import several
    from poolzoo.compare.config import ComparisonConfig

    yield lambda: grid.variants(f"gem:p={'|'.join(map(str, range(10_001)))}", None, "nano/plain")
    yield lambda: _without_run().path
    plan: dict[str, Any] = {"pools": "avg,max", "local_pools": None, "backbones": "nano/plain", "seeds": 1}
    plan |= {"baseline": None, "robustness_samples": 0, "export_top": 0, "alpha": 0.05, "settings": {"data": "digits"}}
    for changed in ({"odd": 1}, {"settings": 3}, {"settings": {"epochs": -1}}, {"seeds": 0}):
        yield lambda changed=changed: ComparisonConfig.from_json({**plan, **changed})
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "plan.json").write_text("{}")
    (folder / "list.json").write_text("[]")
    yield lambda: several.read([folder / "unfinished"])
    for name in ("list.json", "broken.json"):
        yield lambda name=name: several.read([folder / name])
    yield lambda: gather.compare_runs([BUNDLE], None, 0.05)


def _golden(folder: Path) -> Iterator[Call]:
    from poolzoo.runtime import cases, graph_input, graph_references, metadata, onnx_file

    images, logits = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 3))
    right = {"images": images, "logits": logits, "probabilities": logits, "allowed": np.zeros(2)}
    for name, changed in (("images", images[0]), ("logits", logits[0]), ("allowed", np.zeros(3))):
        path = _arrays(folder / f"golden-{name}" / "golden.npz", **{**right, name: changed})
        yield lambda path=path: cases.golden_cases(path.parent)
    (folder / "words.onnx").write_bytes(b"location\xff\xff")
    yield lambda: graph_references.require_none(folder / "words.onnx")
    yield lambda: onnx_file.read_bundled(folder / "words.onnx")
    yield lambda: graph_references.require_none(folder / "absent.onnx")
    yield lambda: graph_input.read_input(folder / "absent.onnx")
    given = '{"kind": "uint8", "height": 8, "width": 8}'
    for facts in (
        {"labels": "[", "input": given},
        {"labels": "[]", "input": given},
        {"labels": '["a", "b"]', "input": '{"kind": "odd", "height": 8, "width": 8}'},
        {"labels": '["a", "b"]', "input": '{"kind": "uint8", "height": 0, "width": 8}'},
    ):
        yield lambda facts=facts: metadata.require(facts, "model.onnx")


def _write_graph(
    path: Path, nodes: list[Any], given: Mapping[str, Any], outputs: Mapping[str, Any], weights: Any = (), ir: int = 9
) -> Path:
    from onnx import TensorProto, helper

    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
        for values in (given, outputs)
    ]
    graph = helper.make_graph(nodes, "g", *infos, initializer=list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = ir
    path.write_bytes(model.SerializeToString())
    return path


def _external(folder: Path) -> Iterator[Call]:
    """Graphs whose weights lie, as they say, in other files. It also makes `absent.onnx`."""
    from onnx import TensorProto, helper

    from poolzoo.runtime.foreign import onnx_source

    (folder / "short.bin").write_bytes(b"1234")
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(1 << 31)  # a hole, which takes no space
    with (folder / "huge.onnx").open("wb") as file:
        file.truncate(1 << 31)
    for name, entries in (
        ("absolute", {"location": "/weights.bin"}),
        ("outside", {"location": "../weights.bin"}),
        ("absent", {"location": "nowhere.bin"}),
        ("short", {"location": "short.bin", "length": "99"}),
        ("odd", {"location": "short.bin", "offset": "some"}),
        ("large", {"location": "huge.bin"}),
    ):
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        add = helper.make_node("Add", ["x", "w"], ["y"])
        path = _write_graph(folder / f"{name}.onnx", [add], {"x": ["N", 1]}, {"y": ["N", 1]}, [tensor])
        yield lambda path=path: onnx_source.read(path)
    yield lambda: onnx_source.read(folder / "huge.onnx")


def _classifiers(folder: Path) -> Iterator[Call]:
    """Graphs that ONNX Runtime refuses, or that fail when they run, or whose scores cannot be told."""
    from onnx import helper, numpy_helper

    from poolzoo.runtime.foreign import classifier

    image, scores = {"x": ["N", 3, 8, 8]}, {"y": ["N", "K"]}
    flat = helper.make_node("Flatten", ["x"], ["y"])

    def reshaped(name: str, shape: list[int]) -> Path:
        weights = [numpy_helper.from_array(np.array(shape, np.int64), "s")]
        return _write_graph(folder / name, [helper.make_node("Reshape", ["x", "s"], ["y"])], image, scores, weights)

    two = [flat, helper.make_node("Neg", ["y"], ["z"])]
    both = _write_graph(folder / "both.onnx", two, image, {**scores, "z": ["N", "K"]})
    for path in (
        _write_graph(folder / "unknown.onnx", [helper.make_node("Nonesuch", ["x"], ["y"])], image, scores),
        _write_graph(folder / "later.onnx", [flat], image, scores, ir=99),
        reshaped("never.onnx", [7]),
        reshaped("single.onnx", [1, 192]),
    ):
        yield lambda path=path: classifier.inspect(path)
    yield lambda: classifier.inspect(both).output()
    yield lambda: classifier.inspect(both).output("scores")


def _projects(folder: Path) -> Iterator[Call]:
    from poolzoo.testing import project_file

    (folder / "odd-project").mkdir()
    odd = folder / "odd-project" / project_file.NAME
    odd.write_text("[tool.poolzoo]\nexpected-failures = 3\n")
    yield lambda: project_file.expected_failures(odd)
    yield lambda: project_file.expected_failures(folder / "broken.toml")


def _lists(folder: Path) -> Iterator[Call]:
    from poolzoo.explain import saliency
    from poolzoo.testing.expected import ExpectedFailures

    (folder / "image-saliency.png").write_text("no picture")
    yield lambda: saliency.picture_paths([folder / "image.jpg"], folder)
    yield lambda: saliency.picture_paths([folder / "image.jpg", folder / "image-saliency.png"], folder)
    yield lambda: saliency.picture_paths([folder / "image.jpg"], folder / "text.txt")
    for key in ("nowhere:shapes", "shapez"):
        yield lambda key=key: ExpectedFailures({key: "why"}, "given").require_known(["shapes"], ["avg"])


def calls(folder: Path) -> Iterator[Call]:
    """Every call; they write the files that they read."""
    yield from _runs(folder)
    yield from _comparisons(folder)
    yield from _external(folder)
    yield from _golden(folder)
    yield from _classifiers(folder)
    yield from _projects(folder)
    yield from _lists(folder)
