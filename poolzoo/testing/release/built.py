"""The wheel and the sdist of a project: built, opened, and their metadata read."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from poolzoo.testing import child
from poolzoo.testing.base import Checks
from poolzoo.testing.release.surroundings import clean_environment

SECONDS: Final = 900.0  # that a build may take
LEFT_BEHIND: Final = ("build", "*.egg-info")  # what some build backends leave in a project


@dataclass(frozen=True)
class Built:
    """The distributions of a project.

    Attributes:
        project: Its folder.
        sdist: The sdist, a `.tar.gz` file.
        wheel: The wheel that was built from the sdist.
        direct: The wheel that was built from the folder itself.
    """

    project: Path
    sdist: Path
    wheel: Path
    direct: Path

    @cached_property
    def metadata(self) -> RawMetadata:
        """`METADATA` of the wheel; fields that cannot be read are missing."""
        return parse_email(self._of_info("METADATA"))[0]

    @property
    def name(self) -> str:
        """The name of the distribution, as it is written."""
        return self.metadata.get("name", "")

    @property
    def version(self) -> str:
        """The version, as it is written."""
        return self.metadata.get("version", "")

    @property
    def requirements(self) -> list[Requirement]:
        """What it requires, with what its extras require.

        Raises:
            AssertionError: One cannot be read.
        """
        found = []
        for text in self.metadata.get("requires_dist", ()):
            try:
                found.append(Requirement(text))
            except InvalidRequirement:
                raise AssertionError(f"the requirement {text!r} cannot be read") from None
        return found

    @property
    def always_required(self) -> dict[str, Requirement]:
        """What it requires without any extra, by canonical name."""
        found: dict[str, Requirement] = {}
        for one in self.requirements:
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                found[canonicalize_name(one.name)] = one
        return found

    @cached_property
    def entry_points(self) -> dict[str, str]:
        """The entry points of the group `poolzoo`: `package.module` or `package.module:attribute` by name."""
        parser = ConfigParser(delimiters=("=",), interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(self._of_info("entry_points.txt").decode("utf-8", "replace"))
        return dict(parser["poolzoo"]) if parser.has_section("poolzoo") else {}

    @cached_property
    def wheel_files(self) -> dict[str, str]:
        """The sha256 of each file of the wheel, by its name."""
        return _digests(self.wheel)

    @cached_property
    def direct_files(self) -> dict[str, str]:
        """The same of the wheel that was built from the folder."""
        return _digests(self.direct)

    @cached_property
    def sdist_files(self) -> list[str]:
        """The files of the sdist, relative to its one folder."""
        with tarfile.open(self.sdist) as archive:
            return [member.name.partition("/")[2] for member in archive if not member.isdir()]

    @property
    def info_files(self) -> list[str]:
        """The files in `.dist-info` of the wheel, relative to it."""
        return [
            rest for name in self.wheel_files for top, _, rest in [name.partition("/")] if top.endswith(".dist-info")
        ]

    def _of_info(self, name: str) -> bytes:
        """A file in `.dist-info` of the wheel; empty where it is missing."""
        with zipfile.ZipFile(self.wheel) as archive:
            found = [one for one in archive.namelist() if one.endswith(f".dist-info/{name}") and one.count("/") == 1]
            return archive.read(found[0]) if found else b""


class Builder:
    """Builds a project, when it is first needed.

    Args:
        project: The folder of the project, which stays as it is.
        folder: An empty folder.
        isolated: Whether the build backend is installed into an environment of its own; else that of this
            environment builds.
        temporary: The folder of temporary files.
    """

    def __init__(self, project: Path, folder: Path, *, isolated: bool, temporary: Path) -> None:
        self.project = project
        self.how = f"with the build backend {'in an environment of its own' if isolated else 'of this environment'}"
        self._folder = folder
        self._build = partial(_run, project, isolated=isolated, temporary=temporary)

    @cached_property
    def built(self) -> Built:
        """The sdist, the wheel of the sdist, and the wheel of the folder.

        Raises:
            AssertionError: It cannot be built.
        """
        before = _left_behind(self.project)
        try:
            self._build(self._folder / "from-sdist")
            self._build(self._folder / "direct", "--wheel")
        finally:
            for path in _left_behind(self.project) - before:
                shutil.rmtree(path, ignore_errors=True)
        sdist, wheel = (_one(self._folder / "from-sdist", pattern) for pattern in ("*.tar.gz", "*.whl"))
        return Built(self.project, sdist, wheel, _one(self._folder / "direct", "*.whl"))


checks = Checks[Builder]()


@checks.promise("python -m build in the project shows all")
def builds(builder: Builder) -> str:
    """The sdist builds, the wheel builds from it, and the wheel builds from the folder."""
    built = builder.built
    return f"{built.sdist.name} and {built.wheel.name}, {builder.how}"


def _one(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    assert len(found) == 1, f"the build gives {len(found)} files {pattern}"
    return found[0]


def _run(project: Path, out: Path, *flags: str, isolated: bool, temporary: Path) -> None:
    alone = () if isolated else ("--no-isolation",)
    ended = child.run(
        [sys.executable, "-P", "-m", "build", *flags, *alone, "--outdir", str(out), str(project)],
        cwd=out.parent,
        environment=clean_environment(temporary),
        timeout=SECONDS,
    )
    if ended.exit_code:
        raised = re.findall(r"^\s*((?:\w+\.)*\w*(?:Error|Exception): .+)$", ended.stdout + ended.stderr, re.MULTILINE)
        why = raised[-1] if raised else ended.last_line
        raise AssertionError(f"the project does not build: {why}")


def _left_behind(project: Path) -> set[Path]:
    places = (project, project / "src")
    return {path for place in places for pattern in LEFT_BEHIND for path in place.glob(pattern) if path.is_dir()}


def _digests(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def top_level(names: Mapping[str, str]) -> set[str]:
    """The top-level names of a wheel, without its metadata."""
    tops = {name.partition("/")[0] for name in names}
    return {top for top in tops if not top.endswith((".dist-info", ".data"))}
