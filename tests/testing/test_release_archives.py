"""Release checks find what is wrong with a wheel and an sdist, and with their metadata."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping

import pytest

import poolzoo as package
from poolzoo.testing.release import archives, metadata
from poolzoo.testing.release.built import Built

INFO = "my_pool-0.1.0.dist-info"
NEEDS = f"poolzoo>={package.__version__}"
CLASS = "Programming Language :: Python :: 3"
METADATA = f"""Metadata-Version: 2.4
Name: my-pool
Version: 0.1.0
Summary: A pooling strategy
License-Expression: MIT
License-File: LICENSE
Requires-Python: >=3.11
Keywords: pooling,poolzoo
Classifier: {CLASS}
Requires-Dist: {NEEDS}
Requires-Dist: torch>=2
Requires-Dist: pytest; extra == "test"
Description-Content-Type: text/markdown

# my-pool

A README.
"""
WHEEL = {
    "my_pool/__init__.py": "x = 1\n",
    "my_pool/layer.py": "y = 2\n",
    f"{INFO}/METADATA": METADATA,
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\nx = y:z\n\n[poolzoo]\nmy_pool = my_pool\n",
    f"{INFO}/licenses/LICENSE": "MIT License\n",
    f"{INFO}/RECORD": "",
}
SDIST = {
    "pyproject.toml": "",
    "PKG-INFO": METADATA,
    "README.md": "# my-pool\n",
    "LICENSE": "MIT License\n",
    "src/my_pool/__init__.py": "x = 1\n",
    "src/my_pool/layer.py": "y = 2\n",
    "tests/test_my_pool.py": "",
}
CHECKS = {check.id: checks for checks in (metadata.checks, archives.checks) for check in checks}
Files = Mapping[str, str | None]


def changed(files: Mapping[str, str], changes: Files) -> dict[str, str]:
    """The files with others in their place; None leaves one out."""
    return {name: text for name, text in {**files, **changes}.items() if text is not None}


def built(tmp_path, *, wheel: Files | None = None, sdist: Files | None = None, direct: Files | None = None) -> Built:
    """Distributions of a good plugin, but for some files."""
    paths = [tmp_path / place / "my_pool-0.1.0-py3-none-any.whl" for place in ("a", "b")]
    inside = changed(WHEEL, wheel or {})
    for path, files in zip(paths, (inside, changed(inside, direct or {})), strict=True):
        path.parent.mkdir()
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
    source = tmp_path / "a" / "my_pool-0.1.0.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        for name, text in changed(SDIST, sdist or {}).items():
            member = tarfile.TarInfo(f"my_pool-0.1.0/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return Built(tmp_path, source, *paths)


def described(line: str, by: str = "") -> Files:
    """Metadata with one line replaced, or left out."""
    assert line in METADATA
    return {f"{INFO}/METADATA": METADATA.replace(line, by)}


def points(text: str) -> Files:
    return {f"{INFO}/entry_points.txt": text}


@pytest.mark.parametrize("check", sorted({*CHECKS} - {"readme_renders"}))
def test_a_good_plugin_passes(tmp_path, check):
    assert CHECKS[check].run(check, built(tmp_path))


MISTAKES = [
    ("name_is_valid", {"wheel": described("Name: my-pool", "Name: my pool!")}, "'my pool!'"),
    ("name_is_valid", {"wheel": described("Name: my-pool", "Name: Pool_zoo".replace("_", ""))}, "poolzoo itself"),
    ("version_is_valid", {"wheel": described("Version: 0.1.0", "Version: one")}, "'one'"),
    ("version_is_valid", {"wheel": described("Version: 0.1.0", "Version: 0.1.0+mine")}, "local part"),
    ("description_is_there", {"wheel": described("Summary: A pooling strategy\n")}, "no description"),
    ("description_is_there", {"wheel": described("A pooling strategy", "x" * 513)}, "513 characters"),
    ("license_is_stated", {"wheel": described("License-Expression: MIT\n")}, "no license is stated"),
    ("license_is_stated", {"wheel": described("Expression: MIT", "Expression: My own")}, "no SPDX expression"),
    ("license_is_stated", {"wheel": {f"{INFO}/licenses/LICENSE": None}}, "no license file"),
    ("python_is_stated", {"wheel": described("Requires-Python: >=3.11\n")}, "is missing"),
    ("python_is_stated", {"wheel": described(">=3.11", "<3.0")}, "excludes Python"),
    ("python_is_stated", {"wheel": described(">=3.11", "three")}, "'three'"),
    ("keywords_name_poolzoo", {"wheel": described("pooling,poolzoo", "pooling")}, "keywords are pooling"),
    ("classifiers_exist", {"wheel": described(CLASS, "Framework :: Zoo")}, "'Framework :: Zoo'"),
    ("classifiers_exist", {"wheel": described(CLASS, "Private :: Mine")}, "refuse"),
    ("poolzoo_has_lower_bound", {"wheel": described(f"Requires-Dist: {NEEDS}\n")}, "does not depend"),
    ("poolzoo_has_lower_bound", {"wheel": described(NEEDS, "poolzoo")}, "no lower bound"),
    ("poolzoo_has_lower_bound", {"wheel": described(NEEDS, "poolzoo<99")}, "no lower bound"),
    ("poolzoo_has_lower_bound", {"wheel": described(NEEDS, "poolzoo>=99")}, "excludes this poolzoo"),
    ("poolzoo_has_lower_bound", {"wheel": described(NEEDS, 'poolzoo>=0; extra == "x"')}, "does not depend"),
    ("shared_requirements_fit", {"wheel": described("torch>=2", "torch<2")}, "torch<2 excludes torch"),
    ("shared_requirements_fit", {"wheel": described("torch>=2", "Torch==2.9.1")}, "pins"),
    ("shared_requirements_fit", {"wheel": described("torch>=2", "torch>>2")}, "cannot be read"),
    ("entry_points_are_declared", {"wheel": points("")}, "no entry point"),
    ("entry_points_are_declared", {"wheel": points("[poolzoo.plugins]\nmy_pool = my_pool\n")}, "no entry point"),
    ("entry_points_are_declared", {"wheel": points("[poolzoo]\nmy_pool = my_pool.hooks:x\n")}, "no module my_pool"),
    ("wheel_holds_plugin", {"wheel": {"my_pool/layer.py": None}}, "src/my_pool/layer.py is missing"),
    ("wheel_holds_plugin", {"sdist": {"src/my_pool/__init__.py": None, "src/my_pool/layer.py": None}}, "no source"),
    ("wheel_holds_nothing_else", {"wheel": {"tests/test_x.py": ""}}, "'tests' as a package"),
    ("wheel_holds_nothing_else", {"wheel": {"conftest.py": ""}}, "'conftest.py' as a package"),
    ("wheel_holds_nothing_else", {"wheel": {"notes.txt": ""}}, "notes.txt"),
    ("wheel_holds_nothing_else", {"wheel": {"my_pool/__pycache__/layer.cpython-311.pyc": ""}}, "__pycache__"),
    ("sdist_is_complete", {"sdist": {"LICENSE": None}}, "no license file"),
    ("sdist_is_complete", {"sdist": {"README.md": None}}, "no README"),
    ("sdist_is_complete", {"sdist": {"tests/test_my_pool.py": None}}, "no test"),
    ("sdist_holds_nothing_else", {"sdist": {"runs/1/run.toml": ""}}, "runs/1"),
    ("sdist_holds_nothing_else", {"sdist": {".env": "TOKEN=x"}}, ".env"),
    ("sdist_holds_nothing_else", {"sdist": {"a/.venv/lib/x.py": ""}}, ".venv"),
    ("sdist_gives_same_wheel", {"direct": {"my_pool/stale.py": ""}}, "my_pool/stale.py is in the wheel of the folder"),
    ("sdist_gives_same_wheel", {"direct": {"my_pool/layer.py": None}}, "my_pool/layer.py is in the wheel of the sdist"),
    ("sdist_gives_same_wheel", {"direct": {"my_pool/layer.py": "y = 3\n"}}, "my_pool/layer.py differs"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "changes", "words"), MISTAKES, ids=[f"{row[0]}-{row[2]}" for row in MISTAKES])
def test_each_mistake_fails_its_check(tmp_path, check, changes, words):
    with pytest.raises(AssertionError, match=words.replace(".", r"\.")) as caught:
        CHECKS[check].run(check, built(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_module_of_one_file_and_names_of_setuptools_are_fine(tmp_path):
    wheel = {"my_pool/__init__.py": None, "my_pool/layer.py": None, "my_pool.py": "x = 1\n"}
    sdist = {"src/my_pool/__init__.py": None, "src/my_pool/layer.py": None, "my_pool.py": "x = 1\n"}
    found = built(tmp_path, wheel=wheel, sdist={**sdist, "my_pool.egg-info/PKG-INFO": ""})
    for check in ("entry_points_are_declared", "wheel_holds_plugin", "wheel_holds_nothing_else"):
        CHECKS[check].run(check, found)
    CHECKS["sdist_holds_nothing_else"].run("sdist_holds_nothing_else", found)


@pytest.mark.slow
@pytest.mark.parametrize("is_good", [True, False])
def test_twine_judges_the_readme(tmp_path, is_good):
    pytest.importorskip("twine")
    broken = METADATA.replace("text/markdown\n\n# my-pool", "text/x-rst\n\n.. image::\n\n# `my-pool")
    content = METADATA if is_good else broken
    found = built(tmp_path, wheel={f"{INFO}/METADATA": content}, sdist={"PKG-INFO": content})
    if is_good:
        assert archives.checks.run("readme_renders", found) == "text/markdown"
        return
    with pytest.raises(AssertionError, match="twine says"):
        archives.checks.run("readme_renders", found)
