"""Trains the trials of a comparison on a Ray cluster.

Every node needs poolzoo, the plugins, the data, and the comparison's directory on a disk that all nodes share. A trial
whose worker dies is started again, and resumes from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from poolzoo.common import cluster, output
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.compare import trial
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial
from poolzoo.compare.records import TrialRecord
from poolzoo.compare.training import Runner, group_by_backbone
from poolzoo.plugin import loader
from poolzoo.plugin.settings import PluginSettings
from poolzoo.train.settings import Settings

RETRIES: Final = 3  # of a trial whose worker died


def runner(address: str | None) -> Runner:
    """A runner that trains trials on a cluster. It connects when it is called.

    Args:
        address: Of the cluster. None for `RAY_ADDRESS`, else a node on this machine, else a new local cluster.

    Raises:
        UsageError: The address is malformed.
        EnvironmentProblem: Ray is not installed, or nothing answers at the address.
    """
    cluster.require(address)

    def run(config: ComparisonConfig, trials: Sequence[Trial], folder: Path) -> Iterator[Sequence[TrialRecord]]:
        with cluster.connected(address) as ray:
            yield from _train_all(ray, config, trials, folder.absolute())

    return run


def _train_all(
    ray: Any, config: ComparisonConfig, trials: Sequence[Trial], folder: Path
) -> Iterator[Sequence[TrialRecord]]:
    """Submits all trials, and yields the records of those that end together. When it is closed, it cancels the rest."""
    together = config.settings.freeze == "backbone"
    groups = group_by_backbone(trials) if together else [[one] for one in trials]
    plugins = _plugins(config.settings)
    task = ray.remote(max_retries=0, **_resources(ray, config.settings))(_train)
    running: dict[futures.Future[list[TrialRecord]], tuple[Any, list[Trial], int]] = {}

    def submit(group: list[Trial], deaths: int) -> None:
        reference = task.remote(config.settings, plugins, group, folder, together)
        running[reference.future()] = reference, group, deaths

    for group in groups:
        submit(group, 0)
    try:
        while running:
            for ended in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                _, group, deaths = running.pop(ended)
                names = {one.key: f"{one.variant.name}, seed {one.seed}" for one in group}
                try:
                    records = ended.result()
                except ray.exceptions.RayTaskError as error:  # the task could not even start
                    yield [trial.failed(one, error.cause) for one in group]
                except ray.exceptions.RayError as error:  # the worker died, or its node did
                    if deaths < RETRIES:
                        output.warn(f"{'; '.join(names.values())}: the worker died, another one continues")
                        submit(group, deaths + 1)
                        continue
                    output.detail(str(error))
                    reason = EnvironmentProblem(f"its worker died {RETRIES + 1} times", "see Ray's logs on that node")
                    yield [trial.failed(one, reason) for one in group]
                else:
                    for record in records:
                        if not record.done:  # the worker's own warning reaches nobody
                            output.warn(f"{names[record.trial]}, failed: {record.error}")
                    yield records
    finally:
        for reference, _, _ in running.values():
            ray.cancel(reference, force=True)


def _resources(ray: Any, settings: Settings) -> dict[str, int]:
    """The CPUs and GPUs that a trial requests; a warning where no node has them."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = settings.device.startswith("cuda") or (settings.device == "auto" and any("GPU" in one for one in nodes))
    needs = {"num_cpus": settings.threads or 1, "num_gpus": int(wanted)}
    if not any(one.get("CPU", 0) >= needs["num_cpus"] and one.get("GPU", 0) >= needs["num_gpus"] for one in nodes):
        text = f"no node of the cluster has {needs['num_cpus']} CPUs and {needs['num_gpus']} GPUs: trials wait for one"
        output.warn(text, "--threads and --device say what a trial needs")
    return needs


def _plugins(settings: Settings) -> PluginSettings:
    """The plugin settings of this process, with paths that are valid in a worker's directory."""
    files = [path.resolve() for path in (*loader.settings.files, *map(Path, settings.plugins))]
    directories = [path.resolve() for path in loader.settings.directories]
    return replace(loader.settings, files=list(dict.fromkeys(files)), directories=directories)


def _train(
    settings: Settings, plugins: PluginSettings, trials: Sequence[Trial], folder: Path, together: bool
) -> list[TrialRecord]:
    """Trains a group of trials in a worker."""
    if loader.settings != plugins:
        loader.forget()
        loader.settings.update(plugins)
    return trial.train_heads(settings, trials, folder) if together else [trial.train(settings, trials[0], folder)]
