"""Whether a candidate can be shipped: parity and latency under ONNX Runtime, and what a target runtime makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from poolzoo.common import output, resources
from poolzoo.common.errors import PoolzooError, explain
from poolzoo.common.temporary import temporary_folder
from poolzoo.compare import measures
from poolzoo.compare.choosing.finished import Finished
from poolzoo.compare.choosing.plan import Request
from poolzoo.compare.choosing.results import Candidate
from poolzoo.compare.exporting import PROVIDER
from poolzoo.plugin import loader
from poolzoo.runtime import availability
from poolzoo.runtime.runtimes import identity_of, runtime_of

ORT: Final = "onnxruntime"


@dataclass(frozen=True)
class _Exported:
    """What was measured of a candidate's graph, and why the target does not compute it."""

    latency_ms: float | None
    refusal: str | None


class Exports:
    """Exports candidates when their turn comes, each once.

    Args:
        request: With the target and the limit of latency.
        threads: Of ONNX Runtime; None for as many as torch has.
    """

    def __init__(self, request: Request, threads: int | None) -> None:
        self.request = request
        self.threads = threads
        self._exporter = measures.Exporter(PROVIDER, threads or resources.cpus(), shared=True)
        self._known: dict[Path, _Exported] = {}

    def measured(self, comparison: Finished, candidate: Candidate, *, check_target: bool = False) -> Candidate:
        """A candidate with its latency and what speaks against it; one that was measured is not measured again."""
        path = comparison.trials(candidate.variant)[0].path
        found = self._known.get(path)
        if found is None:
            output.say(f"exporting {candidate.variant.name} of {comparison.planned.title}")
            try:
                found = self._export(path, check_target=check_target)
            except Exception as error:  # a plugin's layer in an exporter
                found = _Exported(None, f"it cannot be exported: {explain(error).message}")
            self._known[path] = found
        refusal, most = found.refusal, self.request.max_latency_ms
        if refusal is None and most is not None and found.latency_ms is not None and found.latency_ms > most:
            refusal = f"one image takes {found.latency_ms:.2f} ms, and --max-latency is {most:g}"
        return replace(candidate, latency_ms=found.latency_ms, refusal=refusal)

    def _export(self, path: Path, *, check_target: bool) -> _Exported:
        with temporary_folder() as folder:
            file = folder / "model.onnx"
            parity = self._exporter.export(path, file)
            latency = measures.latencies(path, file, PROVIDER, self.threads)[1]
            if not parity:
                return _Exported(latency, "its exported graph fails the parity check")
            why = self._refusal(path, file) if check_target else None
        return _Exported(latency, why)

    def _refusal(self, run: Path, model: Path) -> str | None:
        """Why the target does not compute a graph: what is known of it, and where it is installed, what it does."""
        from poolzoo.runtime.portability import known_causes

        if self.request.target in (None, ORT):
            return None
        entry = loader.catalog().runtime(str(self.request.target))
        name, runtime = identity_of(entry), runtime_of(entry)
        if causes := known_causes(model, name, runtime.form):
            return f"{name} {causes[0]}"
        if availability.find(runtime).installed:
            return _refused_by(name, run)
        return None


def _refused_by(target: str, run: Path) -> str | None:
    """Exports a run for a target as `poolzoo export --target` does; why that fails."""
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.export import export
    from poolzoo.export.source import from_run
    from poolzoo.export.targets import TargetOptions

    with temporary_folder() as folder, output.quiet():
        try:
            place = folder / "bundle"
            export(from_run(load_run(run)), place, measure_speed=False, targets=TargetOptions(targets=(target,)))
        except PoolzooError as error:
            return error.message
    return None


def require_target(name: str | None) -> None:
    """Makes sure that a target is known; one that is not installed is judged by what is known of it, with a warning.

    Raises:
        UsageError: There is no such runtime.
    """
    if name in (None, ORT):
        return
    entry = loader.catalog().runtime(str(name))
    there = availability.find(runtime_of(entry))
    if not there.installed:
        text = f"{identity_of(entry)} is not installed: only what is known of it in general is considered"
        output.warn(text, there.describe(runtime_of(entry)))
