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
from poolzoo.common import cluster, json_reader, json_writer, output
from poolzoo.common.errors import ENVIRONMENT, CheckFailed, EnvironmentProblem, explain, reason
from poolzoo.runtime.prediction.counts import Counts
from poolzoo.runtime.prediction.plan import Plan
from poolzoo.runtime.prediction.predict_parts import PartPredictor, PartResult, Runner, node_name

if TYPE_CHECKING:
    import numpy as np

READERS: Final = 2  # threads of a worker that read images for each one that computes


class PartWorker:
    """What an actor runs: parts by their number. It opens the bundle for the first one.

    An error is a result too: Ray passes on no more than the text of an exception.
    """

    def __init__(self, out: str, plan: Plan, version: str, threads: int) -> None:
        self._out = Path(out)
        self._plan = plan
        self._version = version
        self._threads = threads
        self._predictor: PartPredictor | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"result": [json_writer.dumps(self._run(int(part))) for part in batch["part"]]}

    def _run(self, part: int) -> dict[str, object]:
        try:
            self._predictor = self._predictor or self._open()
            result = self._predictor.run(part)
        except Exception as error:
            shown = explain(error)
            return {"error": shown.message, "hint": shown.hint, "code": shown.exit_code}
        return {"part": part, "counts": result.counts.to_json(), "deaths": result.deaths}

    def _open(self) -> PartPredictor:
        if self._version != __version__:
            text = f"node {node_name()} has poolzoo {__version__}, not {self._version}"
            raise EnvironmentProblem(text, f"pip install poolzoo=={self._version}, on every node")
        if self._plan.relative and os.path.isdir(self._plan.root):
            os.chdir(self._plan.root)
        readers = READERS * self._threads
        return PartPredictor(self._out, self._plan, threads=self._threads, readers=readers)


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
            found = json_reader.mapping(json.loads(row["result"]))
            part, deaths = json_reader.integer(found.get("part")), json_reader.integer(found.get("deaths"))
            if part is None:
                kind = EnvironmentProblem if found.get("code") == ENVIRONMENT else CheckFailed
                raise kind(str(found.get("error")), str(found.get("hint")))
            yield PartResult(part, Counts.from_json(found.get("counts")), deaths or 0)
    except ray.exceptions.RayError as error:
        output.detail(str(error))
        raise EnvironmentProblem(f"the workers end: {reason(error)}", "see Ray's logs; --resume goes on") from error


def _resources(ray: Any, provider: str, threads: int) -> tuple[int, int]:
    """The GPUs of a worker, and how many workers fit the cluster now; a warning where none does."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(provider in ("cuda", "tensorrt") or (provider == "auto" and any("GPU" in one for one in nodes)))
    fits = [int(min(one.get("CPU", 0) // threads, one.get("GPU", 0) if gpus else 1e9)) for one in nodes]
    if not sum(fits):
        text = f"no node of the cluster has {threads} CPUs and {gpus} GPUs: parts wait for one"
        output.warn(text, "--threads and --provider say what a worker needs")
    return gpus, sum(fits)
