"""What an installed plugin must do beside one poolzoo, as checks: load, pass its tests and the conformance checks."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from poolzoo.testing import child, kinds
from poolzoo.testing.base import Checks
from poolzoo.testing.expected import ExpectedFailures
from poolzoo.testing.outcome import FAILED, PASSED, SURPRISE
from poolzoo.testing.project_file import NAME, read
from poolzoo.testing.release.built import Built, top_level
from poolzoo.testing.release.environment import Environment

SECONDS: Final = 3600.0  # that tests may take
EXTRAS: Final = ("test", "tests", "testing")  # names of the extra that the tests need
NOT_COPIED: Final = (
    *(".git", ".hg", ".venv", "venv", ".tox", ".nox", "node_modules", "dist", "build", "src", "runs", "exports"),
    *("__pycache__", "*.egg-info", ".pytest_cache", ".mypy_cache", ".ruff_cache"),
)
LOADS: Final = """
import importlib.metadata, json, sys
found = {}
for point in importlib.metadata.distribution(sys.argv[1]).entry_points:
    if point.group == "poolzoo":
        try:
            loaded = point.load()
            module = loaded if hasattr(loaded, "__file__") else sys.modules[point.module]
            found[point.name] = {"file": module.__file__}
        except BaseException as error:
            found[point.name] = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(found))
"""


@dataclass
class Installed:
    """A plugin in an environment.

    Attributes:
        built: Its distributions.
        environment: Where it is installed, or will be.
        expected: Conformance checks that it is expected to fail.
        logs: The output of its tests, by a name.
    """

    built: Built
    environment: Environment
    expected: ExpectedFailures
    logs: dict[str, str] = field(default_factory=dict)
    _failed: str | None = None  # why it could not be installed; "" where it is

    def ensure(self) -> None:
        """Installs it, once.

        Raises:
            AssertionError: It cannot be installed.
        """
        if self._failed is None:
            self._failed = "it could not be installed"
            self._install()
            self._failed = ""
        assert not self._failed, self._failed

    @property
    def extra(self) -> str:
        """The extra that its tests need; "" without one."""
        return next((name for name in EXTRAS if name in self.built.metadata.get("provides_extra", ())), "")

    def _install(self) -> None:
        built, environment = self.built, self.environment
        if environment.offline:
            environment.require(built.requirements, self.extra)
            environment.install(str(built.wheel))
        else:
            wheel = f"{built.wheel}[{self.extra}]" if self.extra else str(built.wheel)
            environment.install(wheel, *_test_group(built.project))

    def work(self, name: str) -> Path:
        """A new empty folder beside the environment."""
        folder = self.environment.folder / name
        folder.mkdir()
        return folder


checks = Checks[Installed]()


@checks.promise("fix what it depends on; --offline installs nothing else, so install that here first")
def installs(installed: Installed) -> str:
    """The wheel installs beside this poolzoo, with what its tests need."""
    installed.ensure()
    extra = f" with the extra {installed.extra}" if installed.extra else ""
    return f"{installed.built.wheel.name}{extra}"


@checks.promise("fix the module that the entry point names")
def entry_points_load(installed: Installed) -> str:
    """Each entry point can be loaded from what was installed."""
    installed.ensure()
    environment = installed.environment
    ended = environment.run("-c", LOADS, installed.built.name, cwd=installed.work("load"), timeout=120.0)
    found = _last_json(ended)
    for name, one in found.items():
        assert "error" not in one, f"{name}: {one['error']}"
        inside = Path(one["file"]).resolve().is_relative_to((environment.folder / "venv").resolve())
        assert inside, f"{name} is loaded from {one['file']}, and not from what was installed"
    assert set(found) == set(installed.built.entry_points), f"only {', '.join(found) or 'none'} can be found"
    return ", ".join(found)


@checks.promise("run them as python -m pytest in the project; --out DIR keeps what they print")
def own_tests_pass(installed: Installed) -> str:
    """The tests of the project pass with what was installed, and there are some."""
    installed.ensure()
    folder = installed.environment.folder / "tests"
    code = {top.removesuffix(".py") for top in top_level(installed.built.wheel_files)}
    at_top = {str(installed.built.project / name) for top in code for name in (top, f"{top}.py")}

    def left_out(parent: str, names: list[str]) -> set[str]:
        return {name for name in names if str(Path(parent) / name) in at_top} | junk(parent, names)

    junk = shutil.ignore_patterns(*NOT_COPIED)
    shutil.copytree(installed.built.project, folder, ignore=left_out, symlinks=True)
    ended = installed.environment.run("-m", "pytest", "-p", "no:cacheprovider", cwd=folder, timeout=SECONDS)
    installed.logs[f"tests-{installed.environment.version}.txt"] = ended.stdout + ended.stderr
    assert ended.exit_code != 5, "there are no tests"
    if ended.exit_code:
        lines = re.findall(r"^(?:FAILED|ERROR) .*", ended.stdout, re.MULTILINE)
        more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
        raise AssertionError(f"{lines[0]}{more}" if lines else ended.last_line)
    return ended.stdout.strip().splitlines()[-1].strip("= ")


@checks.promise("poolzoo plugin check shows all of them; [tool.poolzoo.expected-failures] can name known ones")
def conformance(installed: Installed) -> str:
    """`poolzoo plugin check` passes for what was installed."""
    installed.ensure()
    environment, built = installed.environment, installed.built
    known = set(kinds.all_ids())
    flags: list[str] = []
    for key, why in installed.expected.reasons.items():
        if key.rpartition(":")[2] in known:
            flags += ["--expect-failure", f"{key}={why}"]
    ended = environment.run(
        *("-m", "poolzoo", "plugin", "check", built.name, "--json", *flags),
        cwd=installed.work("check"),
        timeout=SECONDS,
    )
    report = _last_json(ended)
    for problem in report["problems"]:
        raise AssertionError(f"{problem['stage']}: {problem['error']}")
    outcomes = [(item["name"], one) for item in report["items"] for one in item["checks"]]
    bad = [(name, one) for name, one in outcomes if _result(one) in (FAILED, SURPRISE)]
    for name, one in bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise AssertionError(f"{name}, {one['check']}: {one.get('found', _result(one))}{more}")
    expected = sum(not one["passed"] for _, one in outcomes)
    failing = f", {expected} failed as expected" if expected else ""
    count = len(report["items"])
    if not count:
        return "it loads, and provides no item with promises to check"
    return f"{len(outcomes) - expected} passed{failing}, of {count} item{'' if count == 1 else 's'}"


def _result(outcome: Mapping[str, Any]) -> str:
    """The result of a check, also of a poolzoo that knows no expected failures."""
    return str(outcome.get("result", PASSED if outcome["passed"] else FAILED))


def _last_json(ended: child.Ended) -> Any:
    """The JSON on the last line of stdout.

    Raises:
        AssertionError: There is none.
    """
    try:
        return json.loads(ended.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        raise AssertionError(errors[0].removeprefix("error: ") if errors else ended.last_line) from None


def _test_group(project: Path) -> Sequence[str]:
    """The requirements of the dependency group `test` of a project, as far as they are plain."""
    groups = read(project / NAME).get("dependency-groups")
    found = [groups[name] for name in EXTRAS if name in groups] if isinstance(groups, dict) else []
    return [one for one in found[0] if isinstance(one, str)] if found else []
