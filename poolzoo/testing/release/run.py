"""The order of a release check: build, look, install, test. It leaves nothing behind, whatever ends it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import poolzoo
from poolzoo.common import files
from poolzoo.common.errors import EnvironmentProblem, PoolzooError, UsageError
from poolzoo.common.temporary import temporary_folder
from poolzoo.testing import kinds, project_file, selection
from poolzoo.testing.base import Check, Failure, first_line
from poolzoo.testing.expected import ExpectedFailures
from poolzoo.testing.outcome import Outcome
from poolzoo.testing.release import environment, index
from poolzoo.testing.release.built import Builder, Built
from poolzoo.testing.release.checks import BUILD, CHECKS, FILES, INSTALLED, METADATA, all_ids
from poolzoo.testing.release.installed import Installed
from poolzoo.testing.release.outcome import ReleaseOutcome, ReleaseReport, Skipped

TOOLS: Final = ("build", "twine", "pip")
AGAINST: Final = ("this one", "the newest")  # of poolzoo, as -k and the report call them
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions:
    """How to check a release.

    Attributes:
        offline: Download nothing: build with the backend of this environment, and use no newest poolzoo.
        clean: Install every package anew, rather than link those of this environment.
        out: Where to keep the wheel, the sdist and the logs; None for nowhere.
        select: Which checks to make.
        expected: Checks that are expected to fail, beside those that the project states.
    """

    offline: bool = False
    clean: bool = False
    out: Path | None = None
    select: selection.Selection = field(default_factory=selection.everything)
    expected: ExpectedFailures = field(default_factory=ExpectedFailures)


def check_release(project: Path, options: ReleaseOptions, say: Say = lambda text: None) -> ReleaseReport:
    """Checks whether a plugin is ready to be published.

    Args:
        project: The folder of its project, with `pyproject.toml`.
        options: How to check it.
        say: Called with a line for each thing that takes time.

    Raises:
        UsageError: There is no such project or check.
        EnvironmentProblem: This environment lacks a tool, or cannot make environments.
        KeyboardInterrupt: Ctrl-C; what was started has ended, and what was written is gone.
    """
    root = project.resolve()
    if not (root / project_file.NAME).is_file():
        raise UsageError(f"{project} has no {project_file.NAME}", "--release takes the folder of a plugin's project")
    expected = project_file.expected_failures(root / project_file.NAME) | options.expected
    expected.require_known([*kinds.all_ids(), *all_ids()])  # its items are known when it is installed
    if options.clean and options.offline:
        raise UsageError("--clean installs packages from an index, and --offline uses none", "leave one of them out")
    if options.out is not None:
        files.require_free(options.out)
    if missing := [tool for tool in TOOLS if find_spec(tool) is None]:
        raise EnvironmentProblem(f"--release needs {', '.join(missing)}", "pip install 'poolzoo[release]'")
    with temporary_folder() as folder:
        return _Checking(root, folder, options, expected, say).report(str(project))


class _Checking:
    """One release check at work, in a temporary folder."""

    def __init__(
        self, project: Path, folder: Path, options: ReleaseOptions, expected: ExpectedFailures, say: Say
    ) -> None:
        self.project = project
        self.folder = folder
        self.temporary = folder / "tmp"
        self.options = options
        self.expected = expected
        self.outcomes: list[ReleaseOutcome] = []
        self.remarks: list[str] = []
        self.logs: dict[str, str] = {}
        self._tell = say

    def report(self, name: str) -> ReleaseReport:
        """Makes all selected checks."""
        self.temporary.mkdir()
        is_installed = any(self._selected(INSTALLED, against) for against in AGAINST)
        selected = is_installed + sum(len(self._selected(group)) for group in (BUILD, METADATA, FILES))
        self.options.select.require_some(selected, all_ids())
        newest = self._newest() if is_installed else None
        offline = self.options.offline or (newest is not None and not newest.is_reachable)
        if self.options.clean and offline:
            raise EnvironmentProblem("--clean needs a package index, which cannot be reached", "leave --clean out")
        self._tell("building the sdist and the wheels")
        builder = Builder(self.project, self.folder / "built", isolated=not offline, temporary=self.temporary)
        (self.folder / "built").mkdir()
        self._make(BUILD, builder, always=True)
        self.remarks.append(f"built {builder.how}")
        built = None
        if not self.outcomes[0].outcome.failure:
            built = builder.built
            self._make(METADATA, built)
            self._make(FILES, built)
            wheels = [None] if newest is None or newest.wheel is None else [None, newest.wheel]
            for wheel in wheels if is_installed else ():
                self._make_installed(built, wheel, offline=offline)
            self._keep(built)
        if self._is_unwanted(self.outcomes[0]):
            del self.outcomes[0]
        self.options.select.require_some(len(self.outcomes), all_ids())
        return ReleaseReport(
            name, built.name if built else "", built.version if built else "", tuple(self.outcomes), tuple(self.remarks)
        )

    def _selected(self, group: str, against: str = "") -> list[Check[Any]]:
        return [check for check in CHECKS[group] if self.options.select(group, check.id, against)]

    def _is_unwanted(self, outcome: ReleaseOutcome) -> bool:
        """Whether the build, which all checks need, is well and was not asked for."""
        return outcome.is_good and not self._selected(BUILD)

    def _newest(self) -> index.Newest:
        """The newest poolzoo, with a remark where there is none to check against."""
        if self.options.offline:
            newest = index.Newest(None, "--offline", is_reachable=True)
        else:
            self._tell("looking for the newest poolzoo in the package index")
            (self.folder / "index").mkdir()
            newest = index.find_newest(self.folder / "index", self.temporary)
        if newest.version == poolzoo.__version__:
            newest = index.Newest(None, f"it is this one, {newest.version}", is_reachable=True)
        if newest.wheel is None:
            self._remark(f"not checked against the newest poolzoo: {newest.why}")
        return newest

    def _remark(self, text: str) -> None:
        self._tell(text)
        self.remarks.append(text)

    def _make_installed(self, built: Built, wheel: Path | None, *, offline: bool) -> None:
        """Makes the selected checks of the plugin in an environment with one poolzoo."""
        against = AGAINST[wheel is not None]
        if not self._selected(INSTALLED, against):
            return
        folder = self.folder / ("this-poolzoo" if wheel is None else "newest-poolzoo")
        folder.mkdir()
        self._tell(f"making an environment with {f'poolzoo {poolzoo.__version__}' if wheel is None else wheel.name}")
        try:
            made = environment.make(
                folder,
                built.name,
                built.requirements,
                wheel,
                clean=self.options.clean,
                offline=offline,
                temporary=self.temporary,
            )
        except AssertionError as error:
            self._remark(f"not checked against {against}: {error}")
            return
        self._remark(f"{made.poolzoo}: in {made.words}")
        if self.options.clean:
            self._tell("torch and all other packages are installed, which takes minutes and gigabytes")
        self._make(INSTALLED, Installed(built, made, self.expected, self.logs), against=made.poolzoo)

    def _make(self, group: str, checked: object, *, against: str = "", always: bool = False) -> None:
        """Makes the selected checks of a group."""
        for check in CHECKS[group]:
            if always or self.options.select(group, check.id, against):
                if against:
                    self._tell(f"{against}: {check.id}")
                self.outcomes.append(self._outcome(check, checked, against))

    def _outcome(self, check: Check[Any], checked: object, against: str) -> ReleaseOutcome:
        started, found, skipped, failure = time.monotonic(), "", "", None
        try:
            found = check.function(checked) or ""
        except Skipped as why:
            skipped = str(why)
        except PoolzooError as error:
            failure = Failure(check.id, error.message, check.expected, error.hint or check.hint)
        except Exception as error:
            failure = Failure(check.id, first_line(error), check.expected, check.hint)
        expected = None if skipped else self.expected.reason("", check.id)
        outcome = Outcome(check.id, failure, expected)
        return ReleaseOutcome(outcome, against, found, skipped, time.monotonic() - started)

    def _keep(self, built: Built) -> None:
        """Leaves the wheel, the sdist and the logs in `--out`."""
        if self.options.out is None:
            return
        with files.appearing(self.options.out) as out:
            for path in (built.sdist, built.wheel):
                shutil.copy2(path, out)
            for name, text in self.logs.items():
                (out / name).write_text(text, encoding="utf-8")
