"""Several poolings' heads on one frozen backbone: trained with the same batches, each as if it were alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from poolzoo.artifacts import manifest
from poolzoo.artifacts.run_report import RunReport
from poolzoo.common import files
from poolzoo.common.errors import UsageError
from poolzoo.train import distributed
from poolzoo.train.epoch_metrics import EpochMetrics, write_history
from poolzoo.train.finish import draw_curves, evaluate_best_weights, finish_run, images_to_keep
from poolzoo.train.prepare import PreparedRun, prepare_heads
from poolzoo.train.run import alone_in, open_engine, require_same_data
from poolzoo.train.settings import Settings


def finetune_heads(
    settings: Settings,
    pools: Sequence[str],
    out: Path,
    callback: Callable[[str, EpochMetrics], None] | None = None,
) -> dict[str, RunReport]:
    """Trains several poolings' heads at once.

    On a CPU each head gets bitwise the weights that `finetune` with its pooling gives. A call with the same arguments
    resumes an interrupted one.

    Args:
        settings: What to train on which data, and how; `freeze` is "backbone", and the pooling is ignored.
        pools: Specs of the poolings.
        out: A directory, which gets a run directory for every pooling.
        callback: Called in rank 0 with a pooling and the metrics of every finished epoch.

    Returns:
        The result of every pooling, in rank 0; empty in the other processes of a run.

    Raises:
        UsageError: The backbone is not frozen, or two poolings are the same.
        PoolzooError: The settings cannot be fulfilled, or training fails.
    """
    if settings.freeze != "backbone":
        raise UsageError("several heads need a frozen backbone", "--freeze backbone")
    if len({files.slug(pool) for pool in pools}) < len(pools) or not pools:
        raise UsageError(f"the poolings {', '.join(pools)} are not all different", "name each once")
    heads = prepare_heads(settings, pools)
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out):
        return _finetune(settings, heads, pools, out, callback)


def _finetune(
    settings: Settings,
    heads: Sequence[PreparedRun],
    pools: Sequence[str],
    out: Path,
    callback: Callable[[str, EpochMetrics], None] | None,
) -> dict[str, RunReport]:
    paths = [out / files.slug(pool) for pool in pools]
    with distributed.fail_together(heads[0].rank):
        require_same_data(out, heads[0])
    engine = open_engine(heads, out, {**asdict(heads[0].settings), "pool": ",".join(pools), "plugins": ""})

    def on_epoch_end(epoch: int, metrics: Mapping[str, EpochMetrics]) -> None:
        for pool, own in metrics.items():
            if callback is not None:
                callback(pool, own)

    engine.run(on_epoch_end)
    finished = [files.has_file(path / manifest.MANIFEST) for path in paths]
    is_zero = heads[0].rank.is_zero

    def begin(index: int) -> None:
        """Writes what is known before the test."""
        path, head = paths[index], heads[index]
        shutil.rmtree(path, ignore_errors=True)  # incomplete, from an interrupted call
        path.mkdir()
        files.write_atomically(path / "run.toml", head.settings.to_toml())
        write_history(path, engine.progress.history[head.settings.pool])
        draw_curves(head, path, engine)

    def finish(index: int) -> RunReport:
        path = paths[index]
        if finished[index]:
            manifest.check(path, "run")
            return RunReport.load(path)
        begun[index].result()
        return finish_run(heads[index], path, engine, results[index], kept)

    threads = ThreadPoolExecutor(heads[0].settings.threads)  # so that heads wait for the disk at the same time
    try:
        new = [index for index, is_finished in enumerate(finished) if not is_finished]
        begun = {index: threads.submit(begin, index) for index in new if is_zero}  # beside the test
        results = evaluate_best_weights(heads, engine, alone=False) if new else []
        if not is_zero:
            return {}
        kept = images_to_keep(heads[0].data) if new else b""
        return dict(zip(engine.modules, threads.map(finish, range(len(heads))), strict=True))
    finally:
        threads.shutdown(cancel_futures=True)
