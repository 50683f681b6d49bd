"""What processes of a release check inherit: environment variables, and packages of this environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

DROPPED: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")


def clean_environment(temporary: Path, **more: str) -> dict[str, str]:
    """The environment variables of this process, without those that change what Python, pytest or poolzoo find.

    Args:
        temporary: The folder of temporary files. pip unpacks gigabytes there, and cannot remove them if it is killed.
        more: Other variables.
    """
    kept = {
        name: value for name, value in os.environ.items() if name not in DROPPED and not name.startswith("POOLZOO_")
    }
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    return {**kept, **places, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", **more}


def link_packages(folder: Path, without: Iterable[str], needed: Iterable[str] = ()) -> list[str]:
    """Fills a folder with links to all packages of this environment but some distributions.

    A folder of links can leave distributions out, which a path to the environment cannot.

    Args:
        folder: An empty folder.
        without: Names of distributions. Plugins of poolzoo are left out too.
        needed: Names of distributions that are linked although they are plugins.

    Returns:
        The names of the distributions that were left out.

    Raises:
        OSError: Links cannot be made here.
    """
    names, kept = ({canonicalize_name(name) for name in given} for given in (without, needed))
    left_out: dict[str, str] = {}
    hidden: set[Path] = set()
    for dist in metadata.distributions():
        name = dist.metadata["Name"] or ""
        canonical = canonicalize_name(name)
        if canonical in names or (canonical not in kept and _is_plugin(dist)):
            left_out.setdefault(canonical, name)
            hidden |= _places(dist)
    for place in map(Path, sys.path):
        if place.name not in ("site-packages", "dist-packages") or not place.is_dir():
            continue
        for entry in sorted(place.iterdir()):
            link = folder / entry.name
            if entry not in hidden and entry.name != "__pycache__" and not link.is_symlink():
                link.symlink_to(entry, target_is_directory=entry.is_dir())
    return sorted(left_out.values())


def _is_plugin(dist: metadata.Distribution) -> bool:
    try:
        return any(point.group == "poolzoo" for point in dist.entry_points)
    except Exception:  # damaged metadata
        return False


def _places(dist: metadata.Distribution) -> set[Path]:
    """The top-level files and folders of a distribution, its metadata among them."""
    info: Path | None = getattr(dist, "_path", None)
    if info is None:
        return set()
    places = {info}
    with suppress(Exception):  # damaged metadata
        tops = {Path(file).parts[0] for file in dist.files or ()}
        places |= {info.parent / top for top in tops if top not in ("..", "__pycache__")}
    return places


def write_this_poolzoo(folder: Path) -> str:
    """Makes a folder from which this poolzoo is imported, with its metadata; returns its version.

    Args:
        folder: An empty folder.
    """
    import poolzoo

    package = Path(poolzoo.__file__).parent
    version = poolzoo.__version__
    try:
        (folder / "poolzoo").symlink_to(package, target_is_directory=True)
    except OSError:  # Windows allows it to few
        shutil.copytree(package, folder / "poolzoo", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        text = metadata.distribution("poolzoo").read_text("METADATA") or ""
    except metadata.PackageNotFoundError:  # it lies on PYTHONPATH
        text = ""
    lines = (text or "Metadata-Version: 2.1\nName: poolzoo\nVersion: 0\n").split("\n")
    for index, line in enumerate(lines):
        if line.startswith("Version:"):
            lines[index] = f"Version: {version}"  # what is installed may be older than the package on PYTHONPATH
            break
    info = folder / f"poolzoo-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("\n".join(lines), encoding="utf-8")
    (info / "INSTALLER").write_text("poolzoo plugin check\n", encoding="utf-8")
    return version
