"""One fine-tuning, from settings to a finished run directory; an interrupted run resumes after any step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from poolzoo.artifacts import manifest, run
from poolzoo.artifacts.run_report import RunReport
from poolzoo.common import files, locks, output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError, disk_full
from poolzoo.data import identity
from poolzoo.data.unreadable import BrokenImages
from poolzoo.model.accounting import Accounting
from poolzoo.model.pooling import resolve_local_pool
from poolzoo.plugin import loader
from poolzoo.train import checkpoint, distributed
from poolzoo.train.build import build_engine
from poolzoo.train.checkpoint import Checkpoint, RunIdentity
from poolzoo.train.engine import Engine
from poolzoo.train.epoch_metrics import EpochMetrics, write_history
from poolzoo.train.finish import INITIAL_WEIGHTS, draw_curves, evaluate_best_weights, finish_run, images_to_keep
from poolzoo.train.prepare import PreparedRun, prepare
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_run_settings

Callback = Callable[[EpochMetrics], None]


def finetune(
    settings: Settings,
    out: Path | None,
    callback: Callback | None = None,
    on_prepared: Callable[[PreparedRun], None] | None = None,
    *,
    alone: bool = True,
) -> RunReport | None:
    """Trains a network and leaves a finished run directory.

    Args:
        settings: What to train on which data, and how.
        out: The run directory, which must not exist; None for a new one in `runs/`.
        callback: Called in rank 0 with the metrics of every finished epoch.
        on_prepared: Called before anything is written; an exception ends the run.
        alone: Whether the run is no trial of a comparison, see `evaluate_best_weights`.

    Returns:
        The result, in rank 0; None in the other processes of a run.

    Raises:
        PoolzooError: The settings cannot be fulfilled, or training fails.
        KeyboardInterrupt: SIGINT or SIGTERM arrived; the state is saved.
    """
    if out is not None and distributed.is_rank_zero():
        files.require_free(out)
    prepared = prepare(settings)
    if not settings.pretrained and settings.weights is None:
        output.say("training from scratch; --pretrained or --weights FILE start from weights")
    if on_prepared is not None:
        with distributed.fail_together(prepared.rank):
            on_prepared(prepared)
    path = out or run.new_path(Path("runs"), settings.backbone, settings.pool)
    if prepared.rank.is_zero:
        with files.appearing(path) as folder:
            files.write_atomically(folder / "run.toml", prepared.settings.to_toml())
            if prepared.assembly.weights.source:
                (folder / INITIAL_WEIGHTS).parent.mkdir()
                files.write_json(folder / INITIAL_WEIGHTS, prepared.assembly.weights.to_json())
    with alone_in(path):
        return _train_or_explain(prepared, path, callback, is_new=True, alone=alone)


def resume(
    path: Path, callback: Callback | None = None, *, data_workers: int | None = None, alone: bool = True
) -> RunReport | None:
    """Continues an interrupted run from its last checkpoint.

    Args:
        path: The run directory.
        callback: As for `finetune`.
        data_workers: Threads that read images; None for as many as the run began with.
        alone: As for `finetune`.

    Returns:
        As for `finetune`.

    Raises:
        UsageError: There is no run, it is finished, or its settings changed.
        CheckFailed: Its checkpoint is damaged, or its data changed.
    """
    if not files.has_file(path / "run.toml"):
        raise UsageError(f"{path} is not a run: it has no run.toml", "give the directory of an interrupted run")
    with alone_in(path):
        return _resume(path, callback, data_workers=data_workers, alone=alone)


@contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Keeps other commands out of a run directory, and removes what a killed one has left unfinished there."""
    if not distributed.is_rank_zero():
        yield
        return
    with locks.alone_in(path, "run"):
        for folder in (path, (path / checkpoint.FILE).parent):
            locks.sweep(folder)
        if files.has_file(path / INITIAL_WEIGHTS.name):  # where earlier versions wrote it
            os.replace(path / INITIAL_WEIGHTS.name, path / INITIAL_WEIGHTS)
        yield


def _resume(path: Path, callback: Callback | None, *, data_workers: int | None, alone: bool) -> RunReport | None:
    if files.has_file(path / manifest.MANIFEST):
        raise UsageError(f"run {path} is finished", f"poolzoo evaluate {path}, or poolzoo export {path}")
    settings = read_run_settings(path)
    if data_workers is not None:
        settings = replace(settings, data_workers=data_workers)
    _require_parts(settings, path)
    has_checkpoint = files.has_file(path / checkpoint.FILE)
    has_all_weights = has_checkpoint and settings.freeze != "backbone"  # a checkpoint holds what is trained
    try:
        prepared = prepare(settings, load_initial_weights=not has_all_weights)
    except BrokenImages as error:
        raise CheckFailed(error.message, "restore them: a run resumes with the images that it began with") from None
    with distributed.fail_together(prepared.rank):
        require_same_data(path, prepared)
    if has_checkpoint and files.has_file(path / INITIAL_WEIGHTS):
        prepared = _with_initial_weights(prepared, path)
    return _train_or_explain(prepared, path, callback, is_new=False, alone=alone)


def _require_parts(settings: Settings, path: Path) -> None:
    """Makes sure that plugins still have what a run was begun with.

    Raises:
        UsageError: They lack it, or a file of a plugin is gone.
    """
    loader.add_files(settings.plugins, path)
    try:
        catalog = loader.catalog()
        catalog.backbone(settings.backbone)
        catalog.pooling(settings.pool, "global")
        resolve_local_pool(catalog, settings.local_pool)
    except UsageError as error:
        hint = f"{path / 'run.toml'} names it: restore the plugin or the version of poolzoo that the run began with"
        raise UsageError(error.message, hint) from error


def require_same_data(path: Path, prepared: PreparedRun) -> None:
    """Makes sure that a run has the data that it began with. Without a checkpoint it restarts, with a warning.

    Args:
        path: The run directory.
        prepared: The run.

    Raises:
        CheckFailed: The data changed.
    """
    known = identity.DataIdentity.load(path / identity.FILE)
    has_checkpoint = files.has_file(path / checkpoint.FILE)
    try:
        hint = f"restore it, or delete {path / checkpoint.FILE} to restart the run"
        identity.require_same(known, prepared.data.identity, hint)
    except CheckFailed as error:
        if has_checkpoint:
            raise
        output.warn(error.message, "the run has no checkpoint yet and starts with the data as it is")
        if prepared.rank.is_zero:
            (path / identity.FILE).unlink()


def _with_initial_weights(prepared: PreparedRun, path: Path) -> PreparedRun:
    """The prepared run with the origin of its initial weights, which are not loaded again."""
    found = files.read_json(path / INITIAL_WEIGHTS)
    weights = Accounting.from_json(found, prepared.assembly.network.state_dict(), path / INITIAL_WEIGHTS)
    return replace(prepared, assembly=replace(prepared.assembly, weights=weights))


def open_engine(heads: Sequence[PreparedRun], path: Path, settings: Mapping[str, object]) -> Engine:
    """Builds the engine, loads the last checkpoint, and writes the identity of the data beside it.

    Args:
        heads: Runs on one backbone.
        path: The directory of the checkpoint.
        settings: All settings, by name; a checkpoint with others is refused.
    """
    first = heads[0]
    if first.settings.time_budget is not None:
        settings = {**settings, "steps": None}  # fitted while it trains
    run_identity = RunIdentity(
        settings=settings,
        data=first.data.identity.digest,
        legacy_data=first.data.legacy_digest,
        inputs=first.inputs,
    )
    engine = build_engine(heads, Checkpoint(path, run_identity))
    with distributed.fail_together(first.rank):
        engine.resume()
        if first.rank.is_zero and not files.has_file(path / identity.FILE):
            first.data.identity.save(path / identity.FILE)
    return engine


def _train_or_explain(
    prepared: PreparedRun, path: Path, callback: Callback | None, *, is_new: bool, alone: bool
) -> RunReport | None:
    """Trains; an interruption says how to resume, and a new run that failed before its first checkpoint is removed."""
    command = f"poolzoo finetune --resume {path}"
    file = path / checkpoint.FILE
    try:
        return _train(prepared, path, callback, alone=alone)
    except KeyboardInterrupt as interrupt:
        interrupt.args = (_way_on(command, file),)
        raise
    except BrokenPipeError:
        raise CheckFailed("the reader of stdout closed it", _way_on(command, file)) from None
    except BaseException as error:
        if (full := disk_full(error)) is not None and file.is_file():
            text = f"{path} cannot be written: {full.strerror}"
            raise EnvironmentProblem(text, f"free some space; {command} continues the run") from error
        if is_new and not file.is_file() and prepared.rank.is_zero:
            shutil.rmtree(path, ignore_errors=True)
        raise


def _way_on(command: str, file: Path) -> str:
    """What the command to resume does: without a checkpoint, the run begins anew."""
    return f"{command} continues it" if file.is_file() else f"{command} restarts it"


def _train(prepared: PreparedRun, path: Path, callback: Callback | None, *, alone: bool) -> RunReport | None:
    settings, is_zero = prepared.settings, prepared.rank.is_zero
    event = {"path": str(path), "settings": asdict(settings)}
    catalog = loader.catalog()
    engine = open_engine([prepared], path, asdict(settings))
    if is_zero:
        if engine.progress.epoch:  # a killed process may have written one epoch more than the checkpoint has
            write_history(path, engine.progress.history[settings.pool])
        catalog.emit("poolzoo_run_started", run=event)

    def on_epoch_end(epoch: int, metrics: Mapping[str, EpochMetrics]) -> None:
        own = metrics[settings.pool]
        write_history(path, engine.progress.history[settings.pool])
        output.say(
            f"epoch {epoch}/{engine.epochs}  loss {own.loss:.3f}  {own.task.train_score} {own.train_score:.3f}  "
            f"{own.task.validation} {own.val_score:.3f}  {own.images_per_s:.0f} images/s"
        )
        if callback is not None:
            callback(own)
        catalog.emit("poolzoo_epoch_finished", run=event, epoch=epoch, metrics=own.to_json())

    engine.run(on_epoch_end)
    (result,) = evaluate_best_weights([prepared], engine, alone=alone)
    report = None
    if is_zero:
        draw_curves(prepared, path, engine)
        report = finish_run(prepared, path, engine, result, images_to_keep(prepared.data))
        catalog.emit("poolzoo_run_finished", run=event, metrics=report.summary())
    distributed.destroy_process_group()
    return report
