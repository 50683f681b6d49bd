"""Wheel and sdist: what they hold, and that they do the demo in an environment without the checkout. Slow: builds."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

import poolzoo

pytest.importorskip("build")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FILES = (  # that are no modules, and that a command reads
    *("poolzoo/py.typed", "poolzoo/runtime/builtin/page.js", "poolzoo/runtime/builtin/pixels.mjs"),
    *("poolzoo/report/page.css", "poolzoo/plugin/templates/pyproject.toml.tmpl"),
)


def build(source: Path, out: Path, *options: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(out), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out)
    return out


def wheel(folder: Path) -> dict[str, bytes]:
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(built):
    files = wheel(built)
    assert set(FILES) <= files.keys()
    info = f"poolzoo-{poolzoo.__version__}.dist-info"
    assert {name.partition("/")[0] for name in files} == {"poolzoo", info}
    assert not [name for name in files if "__pycache__" in name or "/tests/" in name]
    facts = BytesParser().parsebytes(files[f"{info}/METADATA"])
    assert (facts["Name"], facts["Version"]) == ("poolzoo", poolzoo.__version__)


def test_the_wheel_of_the_sdist_is_that_of_the_checkout(built, tmp_path):
    build(ROOT, tmp_path, "--wheel")
    assert wheel(tmp_path) == wheel(built)


def test_the_sdist_holds_what_its_commands_need(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"Makefile", "demo.sh", "tests/conftest.py", "docs/architecture.md", "CONTRIBUTING.md"} <= names
    assert {str(one.relative_to(ROOT)) for one in (ROOT / "poolzoo").rglob("*.py")} <= names


def test_the_installed_wheel_does_the_demo(built, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", place], capture_output=True, text=True, check=True).stdout.strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch and the others, not poolzoo
    (path,) = built.glob("*.whl")
    install = [python, "-m", "pip", "install", "--no-index", "--no-deps", "--ignore-installed", "--quiet", path]
    subprocess.run(install, check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["POOLZOO_CACHE"] = str(tmp_path / "cache")
    where = subprocess.run(
        [python, "-c", "import poolzoo; print(poolzoo.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(site)
    demo = ["sh", str(ROOT / "demo.sh"), str(python.parent)]
    result = subprocess.run(demo, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "demo" / "bundle" / "manifest.json").is_file()
