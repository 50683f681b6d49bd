"""What must be in a plugin's wheel and sdist, and what must not, as checks."""

from __future__ import annotations

import fnmatch
import sys
from pathlib import PurePosixPath

from poolzoo.testing import child
from poolzoo.testing.base import Checks
from poolzoo.testing.release.built import Built, top_level
from poolzoo.testing.release.surroundings import clean_environment

# Names that a project uses for itself. As packages of a wheel, they collide with those of other wheels.
OWN = (
    "test",
    "tests",
    "testing",
    "doc",
    "docs",
    "example",
    "examples",
    "benchmarks",
    "scripts",
    "build",
    "dist",
    "src",
)
OWN_MODULES = ("conftest.py", "setup.py", "noxfile.py", "tasks.py")
STRAY = (
    *("__pycache__", "*.py[cod]", ".DS_Store", "Thumbs.db", "*.swp", "*~", "*.orig", "*.rej", "*.log"),
    *(".git", ".hg", ".svn", ".idea", ".vscode", ".ipynb_checkpoints", "node_modules"),
    *(".venv", "venv", ".tox", ".nox", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".coverage", "htmlcov"),
    *(".env", ".pypirc", ".netrc", "id_rsa", "*.pem"),
)
STRAY_FOLDERS = ("dist", "build", "runs", "exports", "*.egg-info")  # at the top of an sdist
checks = Checks[Built]()


@checks.promise('tell the build backend which packages there are, such as packages = ["src/my_pool"]')
def wheel_holds_plugin(built: Built) -> str:
    """The packages of the entry points are in the wheel, with every Python file that the sdist has of them."""
    tops = {value.partition(":")[0].partition(".")[0].strip() for value in built.entry_points.values()}
    assert tops, "no entry point says which package is the plugin"
    count = 0
    for name in built.sdist_files:
        path = PurePosixPath(name)
        inside = path.parts[1:] if path.parts[:1] == ("src",) else path.parts
        if (
            path.suffix == ".py"
            and inside
            and (inside[0] in tops or (inside == (f"{inside[0]}",) and path.stem in tops))
        ):
            count += 1
            assert "/".join(inside) in built.wheel_files, f"{name} is missing in the wheel"
    assert count, f"the sdist has no source of {', '.join(sorted(tops))}"
    return f"{count} modules of {', '.join(sorted(tops))}"


@checks.promise("name the packages of the wheel in pyproject.toml, and list junk in .gitignore")
def wheel_holds_nothing_else(built: Built) -> str:
    """The wheel has no tests or other folders of the project at its top level, and no stray files."""
    tops = top_level(built.wheel_files)
    own = sorted(top for top in tops if top in (*OWN, *OWN_MODULES))
    assert not own, f"the wheel would install {own[0]!r} as a package of everybody"
    for top in sorted(tops):
        has_code = top.endswith(".py") or any(
            name.startswith(f"{top}/") and name.endswith((".py", ".so", ".pyd")) for name in built.wheel_files
        )
        assert has_code, f"{top} is at the top level of the wheel, and is no Python"
    _require_no_strays(list(built.wheel_files), "wheel")
    return f"{len(built.wheel_files)} files"


@checks.promise("let the build backend include pyproject.toml, README, LICENSE and the sources")
def sdist_is_complete(built: Built) -> str:
    """The sdist has the project file, a README, the license and the tests."""
    names = built.sdist_files
    for word, found in (
        ("pyproject.toml", "pyproject.toml" in names),
        ("PKG-INFO", "PKG-INFO" in names),
        ("README", any(name.upper().startswith("README") for name in names)),
        ("license file", any(name.upper().startswith(("LICENSE", "LICENCE", "COPYING")) for name in names)),
        ("test", any(fnmatch.fnmatch(PurePosixPath(name).name, "test*.py") for name in names)),
    ):
        assert found, f"the sdist has no {word}"
    return f"{len(names)} files"


@checks.promise("list junk and secrets in .gitignore, or exclude them in pyproject.toml")
def sdist_holds_nothing_else(built: Built) -> str:
    """The sdist has no caches, builds, runs, environments, or files that may hold secrets."""
    _require_no_strays(built.sdist_files, "sdist")
    for name in built.sdist_files:
        top = name.partition("/")[0]
        stray = "/" in name and any(fnmatch.fnmatch(top, pattern) for pattern in STRAY_FOLDERS)
        # The metadata that setuptools adds to each sdist.
        assert not stray or top.endswith(".egg-info"), f"the sdist holds {name}"
    return f"{built.sdist.stat().st_size / 1024:.0f} KiB"


@checks.promise("include every file of the wheel in the sdist, and remove stale build/ folders")
def sdist_gives_same_wheel(built: Built) -> str:
    """The wheel of the sdist and the wheel of the folder hold the same files with the same bytes."""
    one, other = ({name: d for name, d in files.items() if not name.endswith(".dist-info/RECORD")}
                  for files in (built.wheel_files, built.direct_files))  # fmt: skip
    for name in sorted({*one, *other}):
        assert name in one, f"{name} is in the wheel of the folder, and not in that of the sdist"
        assert name in other, f"{name} is in the wheel of the sdist, and not in that of the folder"
        assert one[name] == other[name], f"{name} differs between the wheels"
    return f"{len(one)} files are the same"


@checks.promise("python -m twine check --strict shows all; name the file in project.readme")
def readme_renders(built: Built) -> str:
    """`twine check --strict` passes: the README is there, and an index can render it."""
    ended = child.run(
        [sys.executable, "-P", "-m", "twine", "--no-color", "check", "--strict", str(built.sdist), str(built.wheel)],
        cwd=built.sdist.parent,
        environment=clean_environment(built.sdist.parent),
        timeout=120.0,
    )
    if ended.exit_code:
        lines = [line.strip() for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
        why = next((line for line in lines if line.startswith(("ERROR", "WARNING"))), ended.last_line)
        raise AssertionError(f"twine says: {why}")
    return str(built.metadata.get("description_content_type", "plain text")).partition(";")[0]


def _require_no_strays(names: list[str], what: str) -> None:
    for name in names:
        for part in PurePosixPath(name).parts:
            assert not any(fnmatch.fnmatch(part, pattern) for pattern in STRAY), f"the {what} holds {name}"
