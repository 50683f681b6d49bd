"""The trials of a comparison on a Ray cluster: the same trials, the same journal, the same table.

Every node needs poolzoo, the plugins, the data, and the comparison's directory on a disk that all of them see. A trial
whose worker dies is started again and goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from poolzoo.common import output
from poolzoo.common.errors import EnvironmentProblem, UsageError
from poolzoo.compare import trial
from poolzoo.compare.grid import Trial
from poolzoo.compare.session import ComparisonConfig, Record, Runner, heads_together
from poolzoo.plugin import loader
from poolzoo.plugin.settings import PluginSettings
from poolzoo.train.settings import Settings

RETRIES: Final = 3  # of a trial whose worker died
PATIENCE: Final = 5.0  # seconds for an address to answer; Ray itself would go on asking for minutes


def runner(address: str | None) -> Runner:
    """Trains trials on a cluster, which is connected to when the first one is to be trained.

    Args:
        address: The cluster's; None for the one that `RAY_ADDRESS` or a node on this machine says, else a local one.

    Raises:
        UsageError: The address is none.
        EnvironmentProblem: Ray is not installed, or nothing answers there.
    """
    try:
        import ray  # noqa: F401 - known to be there before anything is written
    except ImportError:
        raise EnvironmentProblem("Ray is not installed", "pip install 'poolzoo[ray]'") from None
    _reach(address or os.environ.get("RAY_ADDRESS") or "local")

    def run(plan: ComparisonConfig, trials: Sequence[Trial], folder: Path) -> Iterator[Sequence[Record]]:
        with _connected(address) as ray:
            yield from _records(ray, plan, trials, folder.absolute())

    return run


def _reach(address: str) -> None:
    """Raises where nothing listens."""
    name, _, port = address.rpartition("://")[2].rpartition(":")
    if address in ("auto", "local"):
        return
    if not name or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{address!r} is no address of a Ray cluster", "such as 192.168.0.1:6379, or auto")
    try:
        socket.create_connection((name.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str | None, error: Exception) -> EnvironmentProblem:
    text = f"no Ray cluster at {address}: {error}" if address else f"Ray cannot be started: {error}"
    return EnvironmentProblem(text, "ray start --head starts one and tells its address")


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected for as long as the block runs; a connection that is there already is used, and left."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, include_dashboard=False, logging_level=logging.CRITICAL)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _unreachable(address, error) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray has taken it
    try:
        yield ray
    finally:
        ray.shutdown()


def _records(ray: Any, plan: ComparisonConfig, trials: Sequence[Trial], folder: Path) -> Iterator[Sequence[Record]]:
    """Gives out all trials and tells of those that end together; whatever ends this ends those that still run."""
    together = plan.settings.freeze == "backbone"
    groups = heads_together(trials) if together else [[one] for one in trials]
    plugins = _plugins(plan.settings)
    task = ray.remote(max_retries=0, **_needs(ray, plan.settings))(_train)
    running: dict[futures.Future[list[Record]], tuple[Any, list[Trial], int]] = {}

    def give_out(group: list[Trial], deaths: int) -> None:
        reference = task.remote(plan.settings, plugins, group, folder, together)
        running[reference.future()] = reference, group, deaths

    for group in groups:
        give_out(group, 0)
    try:
        while running:
            for ended in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                _, group, deaths = running.pop(ended)
                names = {one.key: f"{one.variant.name}, seed {one.seed}" for one in group}
                try:
                    records = ended.result()
                except ray.exceptions.RayTaskError as error:  # it could not even begin
                    yield [trial.failed(one, error.cause) for one in group]
                except ray.exceptions.RayError as error:  # the worker died, or its node did
                    if deaths < RETRIES:
                        output.warn(f"{'; '.join(names.values())}: the worker died, another one goes on")
                        give_out(group, deaths + 1)
                        continue
                    output.detail(str(error))
                    reason = EnvironmentProblem(f"its worker died {RETRIES + 1} times", "see Ray's logs on that node")
                    yield [trial.failed(one, reason) for one in group]
                else:
                    for record in records:
                        if record["status"] == "failed":  # the worker has said it where nobody listens
                            output.warn(f"{names[record['trial']]}, failed: {record['error']}")
                    yield records
    finally:
        for reference, _, _ in running.values():
            ray.cancel(reference, force=True)


def _needs(ray: Any, settings: Settings) -> dict[str, int]:
    """The CPUs and GPUs that a trial asks for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = settings.device.startswith("cuda") or (settings.device == "auto" and any("GPU" in one for one in nodes))
    needs = {"num_cpus": settings.threads or 1, "num_gpus": int(wanted)}
    if not any(one.get("CPU", 0) >= needs["num_cpus"] and one.get("GPU", 0) >= needs["num_gpus"] for one in nodes):
        text = f"no node of the cluster has {needs['num_cpus']} CPUs and {needs['num_gpus']} GPUs: trials wait for one"
        output.warn(text, "--threads and --device say what a trial needs")
    return needs


def _plugins(settings: Settings) -> PluginSettings:
    """This process's plugin settings, in paths that mean the same from a worker's directory."""
    files = [path.resolve() for path in (*loader.settings.files, *map(Path, settings.plugins))]
    directories = [path.resolve() for path in loader.settings.directories]
    return replace(loader.settings, files=list(dict.fromkeys(files)), directories=directories)


def _train(
    settings: Settings, plugins: PluginSettings, trials: Sequence[Trial], folder: Path, together: bool
) -> list[Record]:
    """What a worker does."""
    if loader.settings != plugins:
        loader.forget()
        loader.settings.update(plugins)
    return trial.train_heads(settings, trials, folder) if together else [trial.train(settings, trials[0], folder)]
