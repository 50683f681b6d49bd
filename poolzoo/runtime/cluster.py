"""Predicts the parts of a list of images on a Ray cluster, with Ray Data.

Workers are actors that open the bundle once. Ray starts one that dies again, and repeats its part. Their number follows
the CPUs or GPUs of the cluster while parts are left. What goes through Ray are numbers of parts and their counts: a
worker reads its images and writes its part itself. So the memory of the driver and of the object store does not grow
with the images. Every node needs the images, the bundle and the directory of the predictions at the same paths.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poolzoo._version import __version__
from poolzoo.common import cluster, json_writer, output
from poolzoo.common.errors import EnvironmentProblem, PoolzooError, explain, reason
from poolzoo.runtime.counts import Counts
from poolzoo.runtime.predict_parts import PartPredictor, PartResult, Runner
from poolzoo.runtime.prediction_plan import Plan

if TYPE_CHECKING:
    import numpy as np

READERS: Final = 2  # threads of a worker that read images for each one that computes


class PartWorker:
    """What an actor runs: parts by their number."""

    def __init__(self, out: str, plan: Plan, version: str, threads: int) -> None:
        host = os.uname().nodename if hasattr(os, "uname") else "a node"
        if version != __version__:
            text = f"node {host} has poolzoo {__version__}, not {version}"
            raise EnvironmentProblem(text, f"pip install poolzoo=={version}, on every node")
        if plan.relative and os.path.isdir(plan.root):
            os.chdir(plan.root)
        self._predictor = PartPredictor(Path(out), plan, threads=threads, readers=READERS * threads)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        results = [self._predictor.run(int(part)) for part in batch["part"]]
        return {"result": [json_writer.dumps([one.part, one.counts.to_json(), one.deaths]) for one in results]}


def runner(address: str | None) -> Runner:
    """A runner that predicts parts on a cluster. It connects when it is called.

    Args:
        address: Of the cluster. None for `RAY_ADDRESS`, else a node on this machine, else a new local cluster.

    Raises:
        UsageError: The address is malformed.
        EnvironmentProblem: Ray is not installed, or nothing answers at the address.
    """
    cluster.require(address)

    def run(out: Path, plan: Plan, parts: Sequence[int], threads: int | None) -> Generator[PartResult, None, None]:
        with cluster.connected(address) as ray:
            yield from _run(ray, out, plan, parts, threads or 1)

    return run


def _run(ray: Any, out: Path, plan: Plan, parts: Sequence[int], threads: int) -> Generator[PartResult, None, None]:
    try:
        import ray.data as data
    except ImportError as error:
        raise EnvironmentProblem(f"Ray Data cannot be used: {error}", "pip install 'poolzoo[ray]'") from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    gpus, most = _resources(ray, plan.provider, threads)
    results = data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map_batches(
        PartWorker,
        fn_constructor_args=(str(out), plan, __version__, threads),
        batch_size=1,
        compute=data.ActorPoolStrategy(min_size=1, initial_size=max(1, min(most, len(parts)))),
        num_cpus=threads,
        num_gpus=gpus,
    )
    try:
        for row in results.iter_rows():
            part, counts, deaths = json.loads(row["result"])
            yield PartResult(int(part), Counts.from_json(counts), int(deaths))
    except ray.exceptions.RayError as error:
        raise _reason(error) from error


def _resources(ray: Any, provider: str, threads: int) -> tuple[int, int]:
    """The GPUs of a worker, and how many workers fit the cluster now; a warning where none does."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(provider in ("cuda", "tensorrt") or (provider == "auto" and any("GPU" in one for one in nodes)))
    fits = [int(min(one.get("CPU", 0) // threads, one.get("GPU", 0) if gpus else 1e9)) for one in nodes]
    if not sum(fits):
        text = f"no node of the cluster has {threads} CPUs and {gpus} GPUs: parts wait for one"
        output.warn(text, "--threads and --provider say what a worker needs")
    return gpus, sum(fits)


def _reason(error: BaseException) -> PoolzooError:
    """What a worker raised; else that workers end."""
    chain = [error]
    while (cause := getattr(chain[-1], "cause", None) or chain[-1].__cause__) is not None:
        chain.append(cause)
    for one in chain:
        if isinstance(one, (PoolzooError, OSError, MemoryError)):
            return explain(one)
    output.detail(str(error))
    return EnvironmentProblem(f"the workers end: {reason(chain[-1])}", "see Ray's logs; --resume goes on")
