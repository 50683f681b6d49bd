"""Forms of a bundle for other runtimes, `targets/NAME/`, and the runtime that it is fastest in.

Each is judged by the gate of `poolzoo verify --runtime` before the bundle appears.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poolzoo.artifacts.schema import Config, TargetConfig
from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed
from poolzoo.runtime import availability, speed
from poolzoo.runtime.limits import Limits
from poolzoo.runtime.prepare import CONFIG, TARGETS, prepare
from poolzoo.runtime.process import RuntimeFailed
from poolzoo.runtime.runtimes import ALL, RuntimesReport, check_runtimes, least_speedup, runtime_of, select

AUTO: Final = "auto"
MIN_SPEEDUP: Final = 1.05  # over ONNX Runtime, below which it stays: measurement noise is no reason to change


@dataclass(frozen=True)
class TargetOptions:
    """What an export makes for other runtimes.

    Attributes:
        targets: Runtimes whose form of the graph becomes a part of the bundle.
        runtime: The runtime that `predict` uses: a name, "auto" for the fastest that agrees, None for ONNX Runtime.
        timeout: Seconds that a runtime may take for opening, converting and each batch; None for the default.
    """

    targets: tuple[str, ...] = ()
    runtime: str | None = None
    timeout: float | None = None

    def require(self) -> None:
        """Makes sure that every runtime that is named is there, before the work.

        Raises:
            UsageError: There is no such runtime.
            EnvironmentProblem: One is not installed.
        """
        select([*self.targets, *([self.runtime] if self.runtime not in (None, AUTO) else [])])


def write_targets(bundle: Path, options: TargetOptions) -> dict[str, TargetConfig]:
    """Writes `targets/NAME/` of each target into a bundle that is being made, and judges it.

    Returns:
        What was made for each, by name: also `export.targets` in `config.json`.

    Raises:
        CheckFailed: A runtime refuses the graph, or computes something else. One that cannot run on this machine,
            such as Core ML beside macOS, is a warning.
    """
    found: dict[str, TargetConfig] = {}
    for entry in select(options.targets):
        runtime = runtime_of(entry)
        output.say(f"making target {runtime.name}")
        with tempfile.TemporaryDirectory(prefix="poolzoo-") as work:
            try:
                prepared = prepare(bundle, entry, Path(work), limits=Limits.default(options.timeout))
            except RuntimeFailed as error:
                raise _failed(runtime.name, error.why) from error
            shutil.copytree(prepared.directory, bundle / TARGETS / runtime.name)
        found[runtime.name] = {
            "version": availability.find(runtime).version,
            "changes": list(prepared.changes),
            "bytes": prepared.bytes,
            "checked": True,
        }
        _record(bundle, targets=found)
    if found:
        report = check_runtimes(bundle, options.targets, threads=1, timeout=options.timeout, measure_speed=False)
        for failure in report.failures:
            if failure.status != "cannot run here":
                raise _failed(failure.runtime, failure.detail)
            found[failure.runtime]["checked"] = False
            text = f"target {failure.runtime} is not checked, because it cannot run here: {failure.detail}"
            output.warn(text, f"poolzoo verify BUNDLE --runtime {failure.runtime} checks it where it can")
        _record(bundle, targets=found)
    return found


def choose_runtime(bundle: Path, options: TargetOptions, threads: int) -> tuple[str | None, RuntimesReport | None]:
    """Records the runtime that `predict` uses, as `export.runtime` in `config.json`.

    Returns:
        Its name, and what was measured; None where none was asked for.

    Raises:
        CheckFailed: The one that was named refuses the graph, or computes something else.
    """
    if options.runtime is None:
        return None, None
    names: Sequence[str] = [ALL] if options.runtime == AUTO else [options.runtime]
    report = check_runtimes(bundle, names, threads=threads, timeout=options.timeout)
    for failure in report.failures:
        if options.runtime != AUTO:
            raise _failed(failure.runtime, failure.detail)
        output.warn(f"runtime {failure.runtime} is wrong: {failure.detail}", "it is not selected")
    agreeing = [one for one in report.results if one.status == "agrees"]
    best = max(agreeing, key=least_speedup, default=None)
    if best is None:
        raise CheckFailed("no runtime agrees with the bundle", "nothing was written; export it without --runtime")
    slow = options.runtime == AUTO and least_speedup(best) < MIN_SPEEDUP
    name = speed.ORT if slow else best.runtime
    _record(bundle, runtime=name)
    return name, report


def _failed(name: str, why: str) -> CheckFailed:
    return CheckFailed(f"target {name}: {why}", "nothing was written; export it without this runtime")


def _record(bundle: Path, *, targets: dict[str, TargetConfig] | None = None, runtime: str | None = None) -> None:
    config: Config = files.read_json(bundle / CONFIG)
    if targets is not None:
        config["export"]["targets"] = targets
    if runtime is not None:
        config["export"]["runtime"] = runtime
    files.write_json(bundle / CONFIG, config)
