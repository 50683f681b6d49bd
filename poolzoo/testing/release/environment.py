"""An environment for a plugin: a new venv with one poolzoo, and the other packages linked or installed anew."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import poolzoo
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.testing import child
from poolzoo.testing.release import surroundings

SECONDS: Final = 3600.0  # that an installation may take
OFFLINE: Final = ("--no-index", "--no-deps")


@dataclass(frozen=True)
class Environment:
    """A venv for one plugin and one poolzoo.

    Attributes:
        folder: Where it is; tests run in folders beside it.
        python: Its interpreter.
        version: Of the poolzoo in it.
        is_this: Whether that is the poolzoo that runs the check.
        words: What it is made of, in words.
        variables: The environment variables of processes in it.
        offline: Whether nothing is downloaded.
    """

    folder: Path
    python: Path
    version: str
    is_this: bool
    words: str
    variables: dict[str, str]
    offline: bool

    @property
    def poolzoo(self) -> str:
        """The poolzoo in it, in words."""
        return f"poolzoo {self.version}, {'this one' if self.is_this else 'the newest'}"

    def run(self, *arguments: str, cwd: Path, timeout: float) -> child.Ended:
        """Runs its Python, which imports nothing from the current directory."""
        return child.run([str(self.python), "-P", *arguments], cwd=cwd, environment=self.variables, timeout=timeout)

    def install(self, *what: str) -> None:
        """Installs wheels and requirements with pip; offline, wheels alone.

        Raises:
            AssertionError: They cannot be installed.
        """
        ended = child.run(
            [sys.executable, "-P", "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-input",
             "--disable-pip-version-check", "--no-warn-script-location", *(OFFLINE if self.offline else ()), *what],
            cwd=self.folder,
            environment=self.variables,
            timeout=SECONDS,
        )  # fmt: skip
        if ended.exit_code:
            lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR:")]
            raise AssertionError(f"pip says: {(lines or [ended.last_line])[0].removeprefix('ERROR: ')}")

    def require(self, requirements: Sequence[Requirement], extra: str) -> None:
        """Makes sure that requirements are met by this environment's packages, for where nothing is downloaded.

        Args:
            requirements: All of a plugin.
            extra: The extra that counts too; "" for none.

        Raises:
            AssertionError: One is not.
        """
        for one in requirements:
            if one.marker is not None and not any(one.marker.evaluate({"extra": name}) for name in ("", extra)):
                continue
            try:
                is_poolzoo = canonicalize_name(one.name) == "poolzoo"
                here = self.version if is_poolzoo else metadata.version(one.name)
            except metadata.PackageNotFoundError:
                raise AssertionError(f"it needs {one.name}, which is not installed here; offline nothing is") from None
            assert one.specifier.contains(here, prereleases=True), f"it needs {one}, and {here} is installed here"


def make(
    folder: Path,
    plugin: str,
    needed: Sequence[Requirement],
    newest: Path | None,
    *,
    clean: bool,
    offline: bool,
    temporary: Path,
) -> Environment:
    """Makes an environment with a poolzoo, and without the plugin.

    Args:
        folder: An empty folder.
        plugin: The name of the plugin's distribution, which is not linked.
        needed: What the plugin requires, other plugins among it.
        newest: The wheel of a poolzoo; None for the one that runs this.
        clean: Whether it gets no package of this environment.
        offline: Whether nothing is downloaded.
        temporary: The folder of temporary files.

    Raises:
        EnvironmentProblem: It cannot be made on this machine.
        AssertionError: The wheel of poolzoo cannot be installed.
    """
    home = folder / "venv"
    venv.EnvBuilder(symlinks=os.name != "nt", with_pip=False).create(home)
    paths = {"base": str(home), "platbase": str(home)}
    scripts, site = (Path(sysconfig.get_path(name, "venv", vars=paths)) for name in ("scripts", "purelib"))
    lines, left_out = [], []
    try:
        if newest is None:
            (folder / "this").mkdir()
            surroundings.write_this_poolzoo(folder / "this")
            lines.append(str(folder / "this"))
        if not clean:
            (folder / "packages").mkdir()
            names = [one.name for one in needed]
            left_out = surroundings.link_packages(folder / "packages", without=("poolzoo", plugin), needed=names)
            lines.append(f"import site; site.addsitedir({str(folder / 'packages')!r})")
    except OSError as error:
        raise EnvironmentProblem(
            f"links to packages cannot be made: {error.strerror or error}", "use --clean, which needs none"
        ) from error
    (site / "poolzoo-release-check.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    variables = surroundings.clean_environment(
        temporary,
        VIRTUAL_ENV=str(home),
        POOLZOO_CACHE=str(folder / "cache"),
        POOLZOO_CONFIG=str(folder / "config"),
        COLUMNS="200",  # so that pytest does not cut its messages
    )
    words = f"a new venv of Python {platform.python_version()}, "
    words += "all packages installed into it" if clean else f"with the packages of {sys.prefix} linked into it"
    if left_out:
        words += f", without {', '.join(left_out)}"
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    version = poolzoo.__version__ if newest is None else newest.name.split("-")[1]
    made = Environment(folder, python, version, newest is None, words, variables, offline)
    if newest is not None:
        made.install(str(newest))
    return made
