"""Calls of the checks of submissions and of comparisons, with what they must refuse."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
from support import planted_trials

Call = Callable[[], object]


def _of_protocol() -> Iterator[Call]:
    """What differs from a protocol before a training, and in the board that a submission joins."""
    from poolzoo.compare.board import board, merging, pinning, protocol

    heads = protocol.find("digits-heads")
    splits = {"train": Namespace(labels=np.zeros(2, np.int64), digests=np.zeros((2, 8), np.uint8), of_files=False)}
    splits["test"] = splits["train"]
    digest = pinning.split_digest(splits["train"])  # type: ignore[arg-type]
    data = replace(heads.data, train=digest, test=digest)
    own: Any = replace(heads, data=data, backbone_sha256=None)
    identity = Namespace(classes=data.classes, splits=splits)
    settings = heads.settings_of("avg", 0)
    for size, used in (((9, 9), settings), (data.size, replace(settings, epochs=9))):
        prepared: Any = Namespace(data=Namespace(identity=identity, size=size), settings=used)
        yield lambda prepared=prepared: pinning.require_prepared(own, prepared)

    run = Namespace(
        plugin=lambda part: {"tier": "built-in"},
        environment={},
        metrics={},
        correct=np.ones(8, bool),
        settings=Namespace(seed=0),
    )
    trials = {(name, 0): run for name in ("avg", "max")}
    single = replace(heads, seeds=1)
    context: Any = Namespace(
        protocol=single, chosen=["avg", "max"], by_trial=trials, variant=lambda name: _variant(name)
    )
    row = board.BoardRow(
        backbone="nano/resnet",
        pool="avg",
        local_pool=None,
        author="Jane Doe",
        date="2026-01-01",
        plugin_sha256=None,
        versions={},
        reran=(),
        f1={},
        correct={7: "AA=="},
    )
    section = board.BoardSection(single.reference, "", "pool", _variant("avg").name, 0.05, 8, (row,))
    yield lambda: merging.require_room(board.Board({single.name: section}), context)


def _variant(name: str) -> Any:
    from poolzoo.compare.grid import Variant

    return Variant("nano/resnet", name, None)


def _comparisons(folder: Path) -> Iterator[Call]:
    from poolzoo.compare import comparison, table

    config = planted_trials.config("avg", 2, backbones="nano/resnet")
    made = {one.key: replace(_record(one), status="failed", error="it cannot") for one in config.trials}
    failed: Any = Namespace(trials=made, hours=0.0)
    yield lambda: table.comparison_result(config, failed, command=None, started=None)

    for seed, classes in enumerate(([{"class": "a"}], [])):
        place = folder / "tables" / str(seed)
        place.mkdir(parents=True)
        (place / "metrics.json").write_text(json.dumps({"test": {"per_class": classes}}))
        (place / "metrics.jsonl").write_text("")
        np.savez(place / "predictions.npz", predicted=np.zeros(4, np.int64), labels=np.zeros(4, np.int64))
    records = {
        one.key: replace(_record(one), accuracy=1.0, run=str(folder / "tables" / str(one.seed)))
        for one in config.trials
    }
    yield lambda: table.variant_results(config.variants, config.variants[0], config.trials, records, 0.05)

    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "trials")

    (folder / "full").mkdir()
    (folder / "full" / "plan.json").write_text(json.dumps(config.to_json()))
    yield lambda: comparison.resume(folder / "full", full)


def _record(one: Any) -> Any:
    from poolzoo.compare.records import TrialRecord

    own = one.variant
    return TrialRecord(
        trial=one.key, status="done", backbone=own.backbone, pool=own.pool, local_pool=own.local_pool, seed=one.seed
    )


def _contexts(folder: Path) -> Iterator[Call]:
    """Contexts whose runs are not the trials of the protocol."""
    from poolzoo.compare.board.checks import conditions, context, figures, files, plugins
    from poolzoo.compare.board.submission import Submission

    one_seed: Any = Namespace(free="pool", baseline="avg", seed_range=range(1), kind="global")
    for seeds in ((9,), (0, 0)):
        runs = [Namespace(name=f"run {at}", settings=Namespace(pool="avg", seed=seed)) for at, seed in enumerate(seeds)]
        submission: Any = Namespace(runs=runs, comparison=None)
        yield lambda submission=submission: context.Context(submission, one_seed).by_trial
    alone: Any = Namespace(by_trial={}, chosen=["avg"])
    yield lambda: conditions.trials_check(alone)
    nothing: Any = Namespace(runs=[], submission=Namespace(comparison=folder / "nameless"))
    yield lambda: conditions.data_check(nothing)
    run: Any = Namespace(name="run", predictions=(np.array([3]), np.array([0])), config={"label_names": ["a"]})
    yield lambda: figures.metrics_of(run)
    (folder / "no-runs").mkdir()
    (folder / "no-runs" / "plan.json").write_text("{}")
    yield lambda: files.files_check(Submission.of([folder / "no-runs"]))

    def of_another_plugin() -> object:
        from poolzoo.plugin import loader

        other = Namespace(name="run", plugin=lambda part: {"tier": "file", "sha256": "a" * 64})
        found: Any = Namespace(
            protocol=one_seed, chosen=["odd-number"], by_trial={("odd-number", 0): other}, is_known=lambda name: True
        )
        loader.load_plugins(Path(__file__).with_name("odd_plugin.py"))
        try:
            return plugins.plugins_check(found)
        finally:
            loader.forget()

    yield of_another_plugin


def _reruns() -> Iterator[Call]:
    import torch

    from poolzoo.compare.board import protocol, rerun

    heads = protocol.find("digits-heads")
    other = replace(heads, data=replace(heads.data, test=heads.data.train))
    wrong: Any = Namespace(protocol=other)
    yield lambda: rerun.Rerun(wrong, "digits").images
    yield lambda: rerun.largest_difference({"a": torch.zeros(1)}, {"b": torch.zeros(1)})


def reasons(folder: Path) -> Iterator[Call]:
    """Calls whose errors are reasons that a table of checks shows."""
    yield from _contexts(folder)
    yield from _reruns()


def calls(folder: Path) -> Iterator[Call]:
    """Calls whose errors have a hint."""
    yield from _of_protocol()
    yield from _comparisons(folder)
