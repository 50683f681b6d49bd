"""Calls that build or fill networks, or ask of the machine what it does not have, and must be refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Call = Callable[[], object]


def _raise(error: Exception) -> None:
    raise error


def _with(variable: str, value: str, call: Call) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, value)
        return call()


def _backbones() -> Iterator[Call]:
    from poolzoo.model.api import create_model
    from poolzoo.model.published_classifier import published_classifier

    yield lambda: create_model("nano/plain:widths=3")
    yield lambda: create_model("nano/plain", stem="odd")
    yield lambda: create_model("timm/resnet18:no_such_option=3")
    yield lambda: create_model("timm/test_vit", stem="small")
    yield lambda: create_model("timm/vit_giant_patch14_224", pretrained=True)
    yield lambda: create_model("torchvision/resnet18:no_such_option=3")
    yield lambda: create_model("torchvision/vit_b_16", image_size="64x32")
    yield lambda: create_model("torchvision/vit_b_16", image_size="64", pretrained=True)
    yield lambda: published_classifier("nano/plain")


def _surgery() -> Iterator[Call]:
    import torch
    from torch import nn

    from poolzoo.model import accounting, surgery
    from poolzoo.train import optimizer

    linear, example = nn.Linear(2, 2), torch.zeros(1, 3, 16, 16)
    broken = {name: torch.full_like(value, torch.nan) for name, value in linear.state_dict().items()}
    strided = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2))
    pooled = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 1))
    yield lambda: accounting.fill(linear, broken, "the file")
    yield lambda: accounting.fill(linear, {}, "the file")
    yield lambda: accounting.fill_exactly(linear, {}, "the file", "fetch it again")
    yield lambda: surgery.shrink_stem(nn.Sequential(nn.Identity()), example, "NCHW", 4)
    yield lambda: surgery.shrink_stem(strided, example, "NLC", 4)
    yield lambda: surgery.replace_local_pooling(pooled, lambda channels, *_: nn.Conv2d(channels, 9, 1), example)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    rates = optimizer.LearningRates(lr=0.1, weight_decay=0.0, head_mult=1.0, layer_decay=1.0)
    yield lambda: optimizer.create_optimizer("adamw", frozen, rates)
    yield lambda: optimizer.default_lr("adam", pretrained=False)


def _training(folder: Path) -> Iterator[Call]:
    from poolzoo.data import classes
    from poolzoo.metrics import abstention
    from poolzoo.train import class_weights
    from poolzoo.train.settings import Settings
    from poolzoo.train.validation import hold_out, split_validation

    labels = np.zeros((4, 2), np.uint8)
    yield lambda: classes.tell_missing_labels(["a", "b"], labels, labels)
    one = np.zeros(1, np.int64)
    yield lambda: abstention.choose_abstention(np.ones((1, 2)) / 2, one + 1, abstention.Target("accuracy", 0.99))
    yield lambda: split_validation(one, 0)
    yield lambda: hold_out(Settings(data="folder:mine", validation="val"), None, one)
    (folder / "heavy-weights.json").write_text('{"a": 1e300, "b": 1}')
    yield lambda: class_weights.class_weights(str(folder / "heavy-weights.json"), np.array([0, 1]), ["a", "b"])


def _heads() -> Iterator[Call]:
    from poolzoo.train.heads import finetune_heads
    from poolzoo.train.settings import Settings

    for freeze, pools in (("none", ["avg", "max"]), ("backbone", ["avg", "avg"])):
        settings = Settings(data="digits", freeze=freeze)
        yield lambda settings=settings, pools=pools: finetune_heads(settings, pools, Path("heads"))


def _board(folder: Path) -> Iterator[Call]:
    from types import SimpleNamespace as Namespace

    from poolzoo.compare.board import board, board_file, merging, pinning, submission

    for text in ("?", "AAAA"):
        row: Any = Namespace(name="avg", correct={0: text})
        yield lambda row=row: board.BoardRow.right(row, 8)
    (folder / "latin.md").write_bytes(b"\xff")
    none = board.Board()
    yield lambda: board_file.load(folder / "nowhere" / "board.json")
    yield lambda: board_file.save(none, folder / "latin.json", none)
    (folder / "planned").mkdir()
    (folder / "planned" / "plan.json").write_text("{}")
    yield lambda: submission.Submission.of([folder / "planned", folder / "planned"])
    yield lambda: submission.SubmittedRun(folder / "nameless").data
    failed: Any = Namespace(passed=False, context=None)
    yield lambda: merging.merge(none, failed, "Jane Doe")
    other: Any = Namespace(name="odd", data=Namespace(validation=0.5))
    yield lambda: pinning.require_validation(other)


def _photographs() -> Iterator[Call]:
    from onnx import ModelProto

    from poolzoo.data.resize import Fit
    from poolzoo.runtime import photo_graph

    model = ModelProto()
    model.metadata_props.add(key="input", value='{"kind": "float"}')
    damaged = ModelProto()
    damaged.CopyFrom(model)
    damaged.metadata_props.add(key="preprocessing", value="[")
    yield lambda: photo_graph.with_photo_input(model)
    yield lambda: photo_graph.with_photo_input(damaged)
    yield lambda: photo_graph.without_photo_input(model)
    yield lambda: photo_graph.require_filter(Fit("lanczos"))


def _exports() -> Iterator[Call]:
    from types import SimpleNamespace as Namespace

    from onnx import ModelProto, NodeProto, TensorProto, helper

    from poolzoo.export import graph_checks, rule_outputs
    from poolzoo.metrics.abstention import Target
    from poolzoo.metrics.rules_report import RuleOptions

    options = RuleOptions(abstain_at=Target("accuracy", 0.9))
    for multilabel in (True, False):
        task = Namespace(task=Namespace(is_multilabel=multilabel))
        source: Any = Namespace(decision=task, title="the run", validation=lambda: None)
        yield lambda source=source: rule_outputs.choose(source, options)
    random, fixed = ModelProto(), ModelProto()
    random.graph.node.append(NodeProto(op_type="RandomNormal"))
    fixed.graph.input.append(helper.make_tensor_value_info("images", TensorProto.FLOAT, [2, 3]))
    program: Any = None
    for proto in (random, fixed):
        yield lambda proto=proto: graph_checks.check_graph(proto, program)


def _plugins() -> Iterator[Call]:
    from poolzoo.plugin import loader
    from poolzoo.plugin.imports import import_build
    from poolzoo.plugin.problems import Source

    mine = Source("mine", "1", "installed")
    for build in ("no_such_module:build", "json:nothing", "json:__name__"):
        yield lambda build=build: import_build(build, "mine", mine)
    yield lambda: _with("POOLZOO_PLUGINS_DIR", "nowhere", lambda: loader.forget() or loader.catalog())


def _odd_items() -> Iterator[Call]:
    from poolzoo.data.source import open_dataset
    from poolzoo.model.api import create_model
    from poolzoo.model.published_classifier import published_classifier
    from poolzoo.plugin import loader

    def with_plugin(call: Call) -> object:
        loader.load_plugins(Path(__file__).with_name("odd_plugin.py"))
        try:
            return call()
        finally:
            loader.forget()

    yield lambda: with_plugin(lambda: create_model("nano/plain", pool="odd-number"))
    for name in ("odd-layout", "odd-tokens", "odd-failing", "odd/one"):
        yield lambda name=name: with_plugin(lambda: create_model(name))
    yield lambda: create_model("timm/test_vit", image_size="3")
    yield lambda: with_plugin(lambda: published_classifier("odd-scores"))
    for name in ("odd:place", "odd-index", "odd-empty", "odd-classes"):
        yield lambda name=name: with_plugin(lambda: open_dataset(name))


def _machine(folder: Path) -> Iterator[Call]:
    from poolzoo.backbones import connectivity
    from poolzoo.common import errors, locks, memory, resources, variables

    def twice() -> None:
        with locks.alone_in(folder, "folder"), locks.alone_in(folder, "folder"):
            pass

    def holding() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(resources.HELD, "images", resources.Held("images", 1 << 40, "take fewer images"))
            _raise(errors.explain(MemoryError()))

    def explained(error: Exception) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in [*resources.HELD]:  # what trainings before it hold
                patch.delitem(resources.HELD, name)
            _raise(errors.explain(error))

    yield twice
    yield holding
    yield lambda: _with("RANK", "some", lambda: variables.whole_number("RANK", 0))
    yield lambda: memory.require("images", 1 << 60)
    yield lambda: connectivity.require("http://127.0.0.1:9/weights", "the weights", "fetch them elsewhere")
    for error in (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"),
        ModuleNotFoundError("no module", name="scipy.special"),
        MemoryError(),
        RuntimeError("you tried to allocate 123456789 bytes of memory"),
        RuntimeError("odd"),
    ):
        yield lambda error=error: explained(error)


def calls(folder: Path) -> Iterator[Call]:
    """Every call."""
    yield from _backbones()
    yield from _surgery()
    yield from _training(folder)
    yield from _heads()
    yield from _board(folder)
    yield from _photographs()
    yield from _exports()
    yield from _plugins()
    yield from _odd_items()
    yield from _machine(folder)
