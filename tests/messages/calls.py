"""Calls of the package's functions with what they must refuse: errors that no short command line reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from messages import absent, boards, damaged, graphs, networks, runs

Call = Callable[[], object]


def _settings() -> Iterator[Call]:
    from poolzoo.train.settings import Settings
    from poolzoo.train.settings_file import with_absolute_paths

    for wrong in (
        {"epochs": 3, "time_budget": "5m"},
        {"time_budget": "soon"},
        {"steps": "some"},
        {"reader": 99},
        {"stem": "odd"},
        {"freeze": "stages:2", "views": 2},
    ):
        yield lambda wrong=wrong: Settings(**wrong)
    yield lambda: with_absolute_paths(Settings(data="folder:\udcff"))


def _labels() -> Iterator[Call]:
    from poolzoo.data import classes, labels

    one, several = np.zeros(4, np.int64), np.zeros((4, 2), np.uint8)
    for wrong, names in (
        (np.zeros(4, np.float32), None),
        (one + 3, ["a"]),
        (one + (1 << 40), None),
        (several[:2], None),
        (several, ["a"]),
        (several.astype(np.float32), None),
        (several + 7, None),
    ):
        yield lambda wrong=wrong, names=names: labels.checked("mine", wrong, 4, names)
    yield lambda: labels.require_task("mine", "training", several, multilabel=False)
    yield lambda: labels.require_task("mine", "training", several, multilabel=True)
    yield lambda: labels.require_task("mine", "training", one, multilabel=True)
    yield lambda: classes.require("folder:mine", ["a"], one, 3)
    yield lambda: classes.require("folder:mine", ["a", "b"], several, None)
    yield lambda: classes.require_names("the run", ["a"])


def _statistics() -> Iterator[Call]:
    from poolzoo.compare import statistics
    from poolzoo.compare.config import ComparisonConfig

    right = np.ones(3, bool)
    for wrong, baseline in (
        ({"a": {0: right}}, "b"),
        ({"a": {0: right}, "b": {}}, "a"),
        ({"a": {0: right}, "b": {0: right[:2]}}, "a"),
    ):
        yield lambda wrong=wrong, baseline=baseline: statistics.compare(wrong, baseline, 0.05)
    yield lambda: ComparisonConfig.from_json({})
    yield lambda: ComparisonConfig.from_json({"settings": 3})


def _metrics() -> Iterator[Call]:
    from poolzoo.metrics import corruptions, shifts

    image = np.zeros((1, 16, 16, 3), np.uint8)
    yield lambda: corruptions.corrupt(image, "fogg", 1)
    yield lambda: corruptions.corrupt(image, "fog", 9)
    yield lambda: corruptions.corrupt(image[:, :4, :4], "fog", 1)
    yield lambda: shifts.pairs(image, "crp")
    yield lambda: shifts.pairs(image, "crop", 99)


def _files(folder: Path) -> Iterator[Call]:
    from poolzoo.artifacts import manifest
    from poolzoo.common import files

    yield lambda: files.read_json(folder / "nowhere.json")
    yield lambda: files.read_json(folder / "broken.json")
    yield lambda: files.read_archive(folder / "text.txt")
    yield lambda: files.require_free(folder / "text.txt")
    yield lambda: files.require_free(folder / "text.txt" / "x")
    yield lambda: manifest.require_kind(folder / "bundle", "run")


def _weights(folder: Path) -> Iterator[Call]:
    import torch

    from poolzoo.model import api, classifier, geometry, state_dict
    from poolzoo.train import class_weights

    torch.save({"a": 3}, folder / "number.pth")
    torch.save({"a": Path("x")}, folder / "code.pth")
    (folder / "empty.pth").write_bytes(b"")
    for name in ("nowhere.pth", "empty.pth", "w.safetensors", "number.pth", "code.pth", "text.txt"):
        yield lambda name=name: state_dict.read_state_dict(folder / name)
    for name, text in (
        ("broken", "{"),
        ("twice", '{"a": 1, "a": 2}'),
        ("others", '{"c": 1}'),
        ("zero", '{"a": 0, "b": 1}'),
    ):
        path = folder / f"{name}-weights.json"
        path.write_text(text)
        yield lambda path=path: class_weights.class_weights(str(path), np.array([0, 1]), ["a", "b"])
    yield lambda: api.create_pooling("gem", 8, kind="odd")
    yield lambda: api.create_model("nano/plain", image_size="wide")
    yield lambda: classifier.build_classifier("odd", 8, 2)
    yield lambda: geometry.Geometry(2, 2, 0, False).changed(2, None, 9)


def _modules(folder: Path) -> Iterator[Call]:
    from poolzoo.parity.foreign import images, module

    (folder / "fails.py").write_text("import no_such_package")
    (folder / "net.py").write_text(
        "import torch\nnumber = 3\ndef training(): return torch.nn.Sequential(torch.nn.Dropout())\n"
        "def three(): return 3\ndef raises(): 1 / 0\n"
    )
    for reference in (
        "module",
        "no_such_module_here:build",
        f"{folder}/nowhere.py:build",
        f"{folder}/text.txt:build",
        f"{folder}/broken.py:build",
        f"{folder}/fails.py:build",
        f"{folder}/net.py:nothing",
        f"{folder}/net.py:number",
        f"{folder}/net.py:three",
        f"{folder}/net.py:raises",
        f"{folder}/net.py:training",
    ):
        yield lambda reference=reference: module.load(reference)
    for name in ("nowhere", "nameless", "text.txt"):
        yield lambda name=name: images.gather(folder / name, (8, 8))


def _graphs(folder: Path) -> Iterator[Call]:
    from onnx import TensorProto, helper, save

    from poolzoo.runtime import ort_session
    from poolzoo.runtime.foreign import classifier, onnx_source

    def write(name: str, shape: list[Any], kind: int = TensorProto.FLOAT, opset: int = 18, inputs: int = 1) -> Path:
        given = [helper.make_tensor_value_info(f"x{index}", kind, shape) for index in range(inputs)]
        out = helper.make_tensor_value_info("y", kind, shape)
        graph = helper.make_graph([helper.make_node("Identity", ["x0"], ["y"])], "g", given, [out])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("" if opset else "own", opset or 1)])
        model.ir_version = 9
        save(model, folder / name)
        return folder / name

    image = ["N", 3, 8, 8]
    yield lambda: onnx_source.read(folder / "nowhere.onnx")
    yield lambda: onnx_source.read(folder / "x.onnx")
    (folder / "nothing.onnx").write_bytes(b"")
    yield lambda: onnx_source.read(folder / "nothing.onnx")
    for path in (
        write("old.onnx", image, opset=0),
        write("new.onnx", image, opset=999),
        write("two.onnx", image, inputs=2),
        write("text.onnx", image, TensorProto.INT64),
        write("channels.onnx", ["N", 5, 8, 8]),
        write("image.onnx", image),
    ):
        yield lambda path=path: classifier.inspect(path)
    yield lambda: classifier.inspect(folder / "image.onnx", (9, 9))
    yield lambda: ort_session.choose_provider("tpu")
    yield lambda: ort_session.choose_provider("cuda")
    yield lambda: ort_session.open_model(folder / "image.onnx")
    yield lambda: ort_session.open_model(folder / "x.onnx")


def _plans(folder: Path) -> Iterator[Call]:
    import json

    from poolzoo.compare import grid
    from poolzoo.datasets import places
    from poolzoo.plugin import loader
    from poolzoo.runtime.prediction.plan import PLAN, Plan
    from poolzoo.train import recipes

    for name, content in (("later", {"schema": 999}), ("altered", {"schema": 2, "checksum": "0"})):
        (folder / name).mkdir()
        (folder / name / PLAN).write_text(json.dumps(content))
        yield lambda name=name: Plan.load(folder / name)
    yield lambda: recipes.recipe_settings("tunne")
    yield lambda: loader.catalog().dataset("folder")
    yield lambda: loader.catalog().dataset("fodler:photos")
    yield lambda: loader.catalog().runtime("onnxruntime:x=1")
    yield lambda: grid.find_baseline("gme", grid.variants("avg,gem", None, "nano/plain"))
    yield lambda: grid.variants("p=2,avg", None, "nano/plain")
    yield lambda: places.require_file(folder / "text.txt", "name a table", (".csv",))
    yield lambda: places.require_folder(folder / "namless", "name a folder")


def calls(folder: Path) -> Iterator[Call]:
    """Every call; the files that they read are those of `command_lines.files`, and a few more."""
    yield from _settings()
    yield from _labels()
    yield from _statistics()
    yield from _metrics()
    yield from _files(folder)
    yield from _weights(folder)
    yield from _modules(folder)
    yield from _graphs(folder)
    yield from _plans(folder)
    yield from damaged.calls(folder)
    yield from networks.calls(folder)
    yield from boards.calls(folder)
    yield from graphs.calls(folder)
    yield from runs.calls(folder)
    yield from absent.calls(folder)


def reasons(folder: Path) -> Iterator[Call]:
    """Calls whose errors are reasons without a hint, which somebody else shows with one."""
    yield from boards.reasons(folder)
    yield from graphs.reasons(folder)
    yield from runs.reasons(folder)
    yield from absent.reasons(folder)
