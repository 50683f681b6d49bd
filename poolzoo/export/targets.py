"""Forms of a bundle for other runtimes, `targets/NAME/`, and the runtime that it is fastest in.

Each is judged by the gate of `poolzoo verify --runtime` before the bundle appears.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poolzoo.artifacts.schema import Config, TargetConfig
from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.common.temporary import temporary_folder
from poolzoo.plugin.catalog import Entry
from poolzoo.runtime import availability, forms, speed
from poolzoo.runtime.limits import Limits
from poolzoo.runtime.prepare import CONFIG, prepare, target_directory
from poolzoo.runtime.process import RuntimeFailed
from poolzoo.runtime.runtimes import (
    ALL,
    RuntimesReport,
    check_runtimes,
    identity_of,
    least_speedup,
    reference_of,
    runtime_of,
    select,
)

AUTO: Final = "auto"
MIN_SPEEDUP: Final = 1.05  # over ONNX Runtime, below which it stays: measurement noise is no reason to change


@dataclass(frozen=True)
class TargetOptions:
    """What an export makes for other runtimes.

    Attributes:
        targets: Runtimes whose form of the graph becomes a part of the bundle; "all" for those that can have one.
        runtime: The runtime that `predict` uses: a name, "auto" for the fastest that agrees, None for ONNX Runtime.
        timeout: Seconds that a runtime may take for opening, converting and each batch; None for the default.
    """

    targets: tuple[str, ...] = ()
    runtime: str | None = None
    timeout: float | None = None

    def require(self, kind: str) -> None:
        """Makes sure that every runtime that is named is there and may take the graph, before the work.

        Args:
            kind: The input of the graph: "uint8", "float" or "photo".

        Raises:
            UsageError: There is no such runtime, or it takes no graph with this input.
            EnvironmentProblem: One is not installed.
        """
        for entry in self.named():
            if why := forms.refusal(runtime_of(entry).form, kind):
                text = f"runtime {identity_of(entry)} takes no graph with --input {kind}: {why}"
                raise UsageError(text, "export it without this runtime, or with --input uint8")

    def named(self) -> list[Entry]:
        """The runtimes that are named, of which one that fails is an error.

        Raises:
            UsageError, EnvironmentProblem: As in `require`.
        """
        return select([name for name in (*self.targets, self.runtime) if name not in (None, ALL, AUTO)])


@dataclass(frozen=True)
class WrittenTargets:
    """What was made for other runtimes, and why others were left out, both by name.

    Attributes:
        made: Also `export.targets` in `config.json`.
        skipped: Of runtimes that "all" means, the reason in words.
    """

    made: Mapping[str, TargetConfig]
    skipped: Mapping[str, str]


def write_targets(bundle: Path, options: TargetOptions) -> WrittenTargets:
    """Writes `targets/NAME/` of each target into a bundle that is being made, and judges it.

    One that cannot run on this machine, such as Core ML beside macOS, is a warning.

    Raises:
        CheckFailed: A runtime that was named refuses the graph, or computes something else.
    """
    named = {identity_of(entry) for entry in options.named()}
    made: dict[str, TargetConfig] = {}
    skipped: dict[str, str] = {}
    references = {}
    for entry in select(options.targets):
        name = identity_of(entry)
        there = availability.find(runtime_of(entry))
        if not there.installed:  # and not named
            skipped[name] = there.describe(runtime_of(entry))
            continue
        output.say(f"making target {name}")
        try:
            made[name] = _write(bundle, entry, Limits.default(options.timeout), there.version)
        except (RuntimeFailed, EnvironmentProblem) as error:
            why = error.why if isinstance(error, RuntimeFailed) else error.message
            if name in named:
                raise _failed(name, why) from error
            skipped[name] = why
            continue
        references[name] = reference_of(entry)
        _record(bundle, targets=made)
    if made:
        names = list(references.values())
        report = check_runtimes(bundle, names, threads=1, timeout=options.timeout, measure_speed=False)
        for found in report.results:
            if found.status == "cannot run here":
                made[found.runtime]["checked"] = False
                text = f"target {found.runtime} is not checked, because it cannot run here: {found.detail}"
                output.warn(text, f"poolzoo verify BUNDLE --runtime {found.runtime} checks it where it can")
            elif found.status != "agrees":
                if found.runtime in named:
                    raise _failed(found.runtime, found.detail)
                skipped[found.runtime] = f"{found.status}: {found.detail}"
                del made[found.runtime]
                shutil.rmtree(target_directory(bundle, found.runtime))
        _record(bundle, targets=made)
    return WrittenTargets(made, skipped)


def _write(bundle: Path, entry: Entry, limits: Limits, version: str) -> TargetConfig:
    """Writes one target, and says what it is.

    Raises:
        RuntimeFailed, EnvironmentProblem: It cannot be made.
    """
    with temporary_folder() as work:
        prepared = prepare(bundle, entry, work, limits=limits)
        shutil.copytree(prepared.directory, target_directory(bundle, identity_of(entry)))
    return {"version": version, "changes": list(prepared.changes), "bytes": prepared.bytes, "checked": True}


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
