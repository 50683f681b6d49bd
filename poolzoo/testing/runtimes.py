"""What every runtime promises, as checks on a bundle of a few kilobytes. Each session runs in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

from poolzoo.common.temporary import temporary_folder
from poolzoo.plugin import loader
from poolzoo.plugin.catalog import Entry
from poolzoo.plugin.problems import Source
from poolzoo.plugin.spec import Runtime
from poolzoo.runtime import availability, cases, gate
from poolzoo.runtime.limits import Limits
from poolzoo.runtime.process import RuntimeFailed, RuntimeProcess
from poolzoo.runtime.runtimes import open_runtime, runtime_of
from poolzoo.testing.base import Checks, Failure
from poolzoo.testing.suite import Suite
from poolzoo.testing.tiny_bundle import write_tiny_bundle

SECONDS: Final = 120.0  # that opening, converting, or one batch may take


class CheckedRuntime:
    """A runtime under test, judged once on the tiny bundle."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.runtime = runtime_of(entry)
        self.limits = Limits.default(SECONDS)
        self._judged: gate.Judgment | RuntimeFailed | None = None

    @property
    def judgment(self) -> gate.Judgment:
        """What the gate found.

        Raises:
            RuntimeFailed: The runtime does not open the bundle, or fails on a batch.
        """
        if self._judged is None:
            self._judged = self._judge()
        if isinstance(self._judged, RuntimeFailed):
            raise AssertionError(self._judged.why)
        return self._judged

    def _judge(self) -> gate.Judgment | RuntimeFailed:
        with temporary_folder() as folder:
            bundle = write_tiny_bundle(folder / "bundle")
            made = cases.make_cases(bundle)
            try:
                with open_runtime(bundle, self.entry, threads=1, limits=self.limits) as (process, _, _):
                    return gate.judge(process.run, made)
            except RuntimeFailed as error:
                return error

    def require(self, *ids: str) -> None:
        """Makes sure that the checks of the gate whose ids start so have passed.

        Raises:
            AssertionError: One has not.
        """
        for check in self.judgment.checks:
            assert check.passed or not check.id.startswith(ids), f"{check.id}: {check.detail}"


checks = Checks[CheckedRuntime]()


@checks.promise("name what it needs in modules= and programs=, and say in install= how to get it")
def absence_is_told(checked: CheckedRuntime) -> None:
    """A runtime that needs modules or programs says how to get them, and they are there where it is checked."""
    runtime = checked.runtime
    assert runtime.install or not (runtime.modules or runtime.programs), "install is empty"
    missing = availability.find(runtime).missing
    assert not missing, f"{', '.join(missing)} cannot be found; {runtime.install}"


@checks.promise("return a callable that takes batches of any size; set form= where the graph must have another form")
def batches_of_any_size(checked: CheckedRuntime) -> None:
    """One session takes batches of 1, 2, 7 and 9 images one after another, and gives the outputs of the graph."""
    checked.require("golden")


@checks.promise("compute the graph; a table of stored answers is none")
def other_images(checked: CheckedRuntime) -> None:
    """Images that the bundle does not store have the outputs of ONNX Runtime, in any order and batch."""
    checked.require("synthetic")


@checks.promise("keep no state between two batches")
def answers_are_repeatable(checked: CheckedRuntime) -> None:
    """The same batch has the same outputs twice."""
    checked.require("repeat")


@checks.promise("return the graph's own second output")
def probabilities_are_a_softmax(checked: CheckedRuntime) -> None:
    """Probabilities are the softmax of the calibrated logits, as the graph gives them."""
    checked.require("softmax")


@checks.promise("copy the images before you change them")
def input_is_left_alone(checked: CheckedRuntime) -> None:
    """The session does not modify its images."""
    checked.require("input")


@checks.promise('take threads, device and precision as keywords; precision is "fp32" or "auto"')
def settings_are_taken(checked: CheckedRuntime) -> None:
    """It opens on its default device with two threads, in float32 and in the precision it prefers."""
    device = checked.runtime.devices[0]
    with temporary_folder() as folder:
        bundle = write_tiny_bundle(folder / "bundle")
        for precision in ("fp32", "auto"):
            with (
                _promised(),
                open_runtime(
                    bundle, checked.entry, threads=2, device=device, precision=precision, limits=checked.limits
                ),
            ):
                pass


@checks.promise("raise where the graph cannot be read")
def other_files_are_refused(checked: CheckedRuntime) -> None:
    """A file that is no graph is refused."""
    with temporary_folder() as folder:
        given, out = folder / "graph", folder / "out"
        given.mkdir()
        out.mkdir()
        (given / "model.onnx").write_bytes(b"no graph")
        (given / "config.json").write_text("{}")
        with RuntimeProcess(checked.entry, threads=1, limits=checked.limits) as process:
            why = _refusal(checked, process, given, out)
    assert why, "it opens a file that is no ONNX file"
    assert "does not answer" not in why, why


def _refusal(checked: CheckedRuntime, process: RuntimeProcess, given: Path, out: Path) -> str:
    """Why a directory is refused; "" where it is not."""
    try:
        if checked.runtime.convert is not None:
            process.convert(given, out)
            given = out
        process.open(given)
    except RuntimeFailed as error:
        return error.why
    return ""


@checks.promise("let close() free what the session holds; it is called once")
def sessions_close(checked: CheckedRuntime) -> None:
    """A session that has `close` closes without an exception."""
    with temporary_folder() as folder:
        bundle = write_tiny_bundle(folder / "bundle")
        with _promised(), open_runtime(bundle, checked.entry, threads=1, limits=checked.limits) as (process, _, _):
            process.close_session()


@contextmanager
def _promised() -> Iterator[None]:
    """Within it, a failure of the runtime is a promise that is not kept."""
    try:
        yield
    except RuntimeFailed as error:
        raise AssertionError(error.why) from error


def run_check(check: str, runtime: Runtime | str) -> None:
    """Runs one of `RUNTIME_CHECKS` on a runtime: a `Runtime`, or the name of one that is loaded.

    Raises:
        AssertionError: The promise is not kept.
        Exception: Whatever the runtime itself raises.
    """
    checks.run(check, _checked(runtime))


def check_runtime(runtime: Runtime | str, *, expected_failures: Mapping[str, str] | None = None) -> list[Failure]:
    """Runs all of `RUNTIME_CHECKS` on a runtime.

    The functions of a `Runtime` that no plugin provides must be importable by their name: not local to a function.

    Args:
        runtime: A `Runtime`, or the name of one that is loaded.
        expected_failures: Checks that it is expected to fail, each with the reason; one that passes is a failure.

    Returns:
        The failures, an empty list if there are none.
    """
    return checks.failures(_checked(runtime), expected_failures)


def _checked(runtime: Runtime | str) -> CheckedRuntime:
    if isinstance(runtime, str):
        return CheckedRuntime(loader.catalog().runtime(runtime))
    known = [entry for entry in loader.catalog().entries if entry.item == runtime]
    return CheckedRuntime(known[0] if known else Entry(runtime, Source("", None, "installed")))


CHECKS: Final = checks.ids


class RuntimeTests(Suite, checks=checks, attribute="runtime", run=run_check):
    """Every promise of a runtime, as tests for pytest.

    Attributes:
        runtime: The item under test, or the name of one that is loaded.
    """

    runtime: ClassVar[Runtime | str | None] = None
