"""TensorBoard scalars of every poolzoo run, written as the epochs go by.

This module is the plugin. torch and tensorboard are imported when a run starts and not before. The scalars lie beside
the run directory, not in it. A finished run has a manifest with the checksums of all its files, written before the test
metrics are emitted, so a log inside the run directory would no longer match.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poolzoo import hookimpl

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

POOLZOO_API: Final = 1
DIRECTORY_VARIABLE: Final = "POOLZOO_TENSORBOARD_DIR"

# The runs that this process is in the middle of, by path; a writer from the first epoch on, None before.
_writers: dict[str, SummaryWriter | None] = {}


def log_directory(run: str | os.PathLike[str]) -> Path:
    """Where the scalars of a run lie: `$POOLZOO_TENSORBOARD_DIR/NAME`, or `tensorboard/NAME` beside the run.

    Raises:
        ValueError: That is inside the run directory, as for a run that is called `tensorboard`.
    """
    path = Path(run).resolve()
    root = os.environ.get(DIRECTORY_VARIABLE)
    folder = (Path(root).resolve() if root else path.parent / "tensorboard") / path.name
    if folder.is_relative_to(path):
        raise ValueError(f"{folder} lies in the run directory; set {DIRECTORY_VARIABLE} to another place")
    return folder


@hookimpl
def poolzoo_run_started(run: dict[str, Any]) -> None:
    """Makes sure that TensorBoard is there; writes nothing yet, so that a run that fails at once leaves nothing."""
    import torch.utils.tensorboard  # noqa: F401 - what is missing is to be said now, and once

    log_directory(run["path"])  # a place that will not do is refused here too
    _close(run["path"])  # of an attempt in this process that was interrupted and is now resumed
    _writers[run["path"]] = None


@hookimpl
def poolzoo_epoch_finished(run: dict[str, Any], epoch: int, metrics: dict[str, float]) -> None:
    """Writes the line of `metrics.jsonl`: a scalar for each of its numbers but the epoch, which is the step.

    `val_loss` is None where it is not finite, and has no scalar then.
    """
    if run["path"] not in _writers:  # the start failed, and that was said
        return
    _write(
        run["path"],
        {name: value for name, value in metrics.items() if name != "epoch" and value is not None},
        epoch,
        purge_from=epoch,
    )


@hookimpl
def poolzoo_run_finished(run: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Writes the figures on validation and test images, at the epoch whose network was kept, and closes the log."""
    if run["path"] not in _writers:
        return
    counts = ("epoch", "n")  # not figures: the epoch that was kept, and how many images there are
    figures = {
        f"{part}/{name}": value
        for part in ("val", "test")
        for name, value in metrics[part].items()
        if name not in counts
    }
    try:
        _write(run["path"], figures, metrics["val"]["epoch"])
    finally:
        _close(run["path"])


def _write(run: str, scalars: Mapping[str, float], step: int, purge_from: int | None = None) -> None:
    """Adds scalars to a run's log, opened with the first of them, and sees them onto the disk.

    Args:
        run: The run's path.
        scalars: Numbers by tag.
        step: The epoch that they belong to.
        purge_from: When the log is opened here, the first epoch that takes the place of an older log's: a resumed run
            does an epoch again that was not saved, and another run may have had this name.
    """
    writer = _writers[run]
    if writer is None:
        from torch.utils.tensorboard import SummaryWriter

        writer = _writers[run] = SummaryWriter(str(log_directory(run)), purge_step=purge_from)
    for tag, value in scalars.items():
        writer.add_scalar(tag, value, step)
    writer.flush()  # nobody calls us when a run is interrupted


def _close(run: str) -> None:
    writer = _writers.pop(run, None)
    if writer is not None:
        writer.close()
