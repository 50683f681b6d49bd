"""Calls that train, resume, evaluate or predict, and must be refused before or while they work."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from support import planted_trials

Call = Callable[[], object]
ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "data" / "digits_bundle"
EARLIER = ROOT / "data" / "earlier"


def _with_plugin(call: Call) -> object:
    from poolzoo.plugin import loader

    loader.load_plugins(Path(__file__).with_name("odd_plugin.py"))
    try:
        return call()
    finally:
        loader.forget()


def _signed(source: Path, place: Path, kind: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a run or bundle whose `config.json` is changed, with a manifest for that."""
    shutil.copytree(source, place)
    config = json.loads((place / "config.json").read_text())
    change(config)
    (place / "config.json").write_text(json.dumps(config))
    return _signed_again(place, kind)


def _finished(folder: Path) -> Iterator[Call]:
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.evaluate import evaluate_graph
    from poolzoo.train.device import DevicePolicy
    from poolzoo.train.teacher import load_teacher

    own = _signed(EARLIER / "run", folder / "own-pooling", "run", lambda found: found["poolzoo"].update(pool=None))
    yield lambda: load_run(own)
    unnamed = _signed(BUNDLE, folder / "unnamed-data", "bundle", lambda found: found["poolzoo"].pop("data", None))
    yield lambda: evaluate_graph(unnamed)
    policy: Any = DevicePolicy
    names = json.loads((EARLIER / "run" / "config.json").read_text())["label_names"]
    yield lambda: load_teacher(str(EARLIER / "run"), "classification", names, (8, 16), policy)


def _training(folder: Path) -> Iterator[Call]:
    from poolzoo.train import lr_range, run
    from poolzoo.train.heads import finetune_heads
    from poolzoo.train.settings import Settings
    from poolzoo.train.splits import read_data

    yield lambda: _with_plugin(lambda: read_data(Settings(data="odd-sizes")))
    yield lambda: _with_plugin(lambda: read_data(Settings(data="odd-labels", task="multilabel")))
    short = {"data": "digits", "limit": 500, "batch_size": 8, "epochs": 1, "device": "cpu", "backbone": "odd-infinite"}
    heads = Settings(**{**short, "freeze": "backbone"})
    yield lambda: _with_plugin(lambda: finetune_heads(heads, ["avg"], folder / "heads"))
    yield lambda: _with_plugin(lambda: lr_range.find_lr(Settings(**short), folder / "rates"))

    def closed(*_: object) -> None:
        raise BrokenPipeError

    small = Settings(**{**short, "backbone": "nano/plain", "limit": 64, "batch_size": 32})
    yield lambda: run.finetune(small, folder / "closed", closed)

    shutil.copytree(EARLIER / "interrupted", folder / "other-tensors")
    _edit_checkpoint(folder / "other-tensors", lambda state: state["learners"].clear())
    shutil.copytree(EARLIER / "interrupted", folder / "other-format")
    _edit_checkpoint(folder / "other-format", lambda state: state.update(version=99))
    for name in ("other-tensors", "other-format"):
        yield lambda name=name: run.resume(folder / name)

    huge = _signed(EARLIER / "run", folder / "huge-teacher", "run", lambda found: None)
    weights = load_file(huge / "model.safetensors")
    weights["classifier.weight"] = np.full_like(weights["classifier.weight"], 3e38)
    save_file(weights, huge / "model.safetensors", metadata={"format": "pt"})
    _signed_again(huge, "run")
    taught = Settings(data="digits", distill_from=str(huge), augment="none", epochs=1, limit=64, device="cpu")
    yield lambda: run.finetune(taught, folder / "taught")


def _edit_checkpoint(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    import torch

    file = run / "checkpoint" / "state.pt"
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)


def _comparisons(folder: Path) -> Iterator[Call]:
    """Comparisons whose trials fail while they are trained."""
    from poolzoo.compare.choosing import run as choosing
    from poolzoo.compare.choosing.plan import SCRATCH, Plan, Planned, Request
    from poolzoo.compare.pilot import choose_seeds

    planned = [Planned(SCRATCH, planted_trials.config("odd-diverging", 1))]
    plan = Plan(Request(60.0, None, None, 0.05), planned, [], "poolzoo choose")
    (folder / "chosen").mkdir()
    plan.save(folder / "chosen")
    yield lambda: _with_plugin(lambda: choosing.resume(folder / "chosen"))
    yield lambda: _with_plugin(lambda: choose_seeds(planted_trials.config("avg,odd-diverging", 2), 0.01, 9))


def _data(folder: Path) -> Iterator[Call]:
    from poolzoo.data.check import scan
    from poolzoo.data.check.look import ROW
    from poolzoo.datasets.arrow_rows import ArrowSplits
    from poolzoo.plugin import loader

    class OneImage:
        def __len__(self) -> int:
            return 1

        def key(self, position: int) -> np.ndarray:
            return np.zeros(2, np.uint64)

        def look(self, position: int) -> np.ndarray:
            return np.zeros((), ROW)

    def full(rows: np.ndarray) -> np.ndarray:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rows: Any = Namespace(find=lambda keys: np.full(len(keys), -1), append=full)
    one: Any = OneImage()
    yield lambda: scan.scan({"train": one}, rows)
    yield lambda: ArrowSplits("hf:mine", "", {}, multilabel=False).dataset("hf", ["train"], [])
    yield lambda: _with_plugin(lambda: loader.catalog().pooling("odd-arguments", "global"))


def _predictions(folder: Path) -> Iterator[Call]:
    from poolzoo.data import walk
    from poolzoo.datasets import table_rows
    from poolzoo.runtime.prediction import file_lists, plan, predict

    (folder / "long.csv").write_text("path\n" + "a" * (table_rows.MAX_FIELD + 9) + "\n")
    yield lambda: list(file_lists.images_in(f"@{folder / 'long.csv'}", walk.Tally()))
    for name in ("unfinished-plan", "torn-list"):
        (folder / name).mkdir()
    (folder / "unfinished-plan" / plan.PLAN).write_text(json.dumps({"schema": 1}))
    yield lambda: plan.Plan.load(folder / "unfinished-plan")
    (folder / "torn-list" / plan.INDEX).write_bytes(np.array([0, 2], "<i8").tobytes())
    (folder / "torn-list" / plan.LIST).write_bytes(b"a\0")
    torn: Any = Namespace(part_size=plan.BATCH, size_of=lambda part: 2)
    yield lambda: plan.files_of(folder / "torn-list", torn, 0)
    yield lambda: predict.Predictor(BUNDLE, explained="eleven")
    for name in ("nowhere.txt", "nameless"):
        yield lambda name=name: list(file_lists.images_in(f"@{folder / name}", walk.Tally()))


def _runtimes(folder: Path) -> Iterator[Call]:
    from poolzoo.export.targets import TargetOptions, choose_runtime
    from poolzoo.runtime import cases, photo_graph, verify

    yield lambda: choose_runtime(BUNDLE, TargetOptions(runtime="auto", timeout=0.001), 1)
    half = _changed_graph(folder / "half-bundle", _as_half)
    yield lambda: verify.verify(half, arithmetics=["fp16"], measure_speed=False)
    photo = _changed_graph(folder / "photo-bundle", photo_graph.with_photo_input)
    yield lambda: cases.make_cases(photo)


def _changed_graph(place: Path, change: Callable[[Any], Any]) -> Path:
    """A copy of a bundle with another graph, and a manifest for that."""
    import onnx

    shutil.copytree(BUNDLE, place)
    onnx.save(change(onnx.load(place / "model.onnx")), place / "model.onnx")
    return _signed_again(place, "bundle")


def _as_half(model: Any) -> Any:
    """A graph that says that it is in fp16."""
    import onnx

    facts = {one.key: one.value for one in model.metadata_props} | {"precision": '"fp16"'}
    onnx.helper.set_model_props(model, facts)
    return model


def _signed_again(place: Path, kind: str) -> Path:
    from poolzoo.artifacts import manifest

    (place / manifest.MANIFEST).unlink()
    manifest.write_manifest(place, kind)
    return place


def calls(folder: Path) -> Iterator[Call]:
    """Calls whose errors have a hint."""
    yield from _finished(folder)
    yield from _training(folder)
    yield from _comparisons(folder)
    yield from _data(folder)
    yield from _predictions(folder)
    yield from _runtimes(folder)


def _workers() -> Iterator[Call]:
    from poolzoo.runtime import protocol, worker

    images = np.zeros((1, 8, 8, 3), np.uint8)
    yield lambda: worker.Worker().run(protocol.Frame({}, (images,)))


def reasons(folder: Path) -> Iterator[Call]:
    """Calls whose errors are reasons that somebody else shows."""
    yield from _workers()
