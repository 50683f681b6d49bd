"""A folder full of files that somebody else has put there: poolzoo works in it, and runs none of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import poolzoo as package
from poolzoo.common import programs

DIGITS = Path(__file__).parents[1] / "data" / "digits_bundle"
MODULES = (
    *("__future__", "json", "typing", "random", "signal", "gc", "errno", "csv", "html", "tempfile", "shlex", "copy"),
    *(
        "click",
        "rich",
        "pluggy",
        "numpy",
        "torch",
        "onnx",
        "onnxruntime",
        "PIL",
        "matplotlib",
        "timm",
        "ray",
        "tomllib",
    ),
    *("sitecustomize", "usercustomize", "conftest", "setup", "manage", "poolzoo_x", "poolzoo_plugin", "evil"),
)
PROGRAMS = ("node", "ps", "git", "chromium", "gcc", "g++", "clang", "fc-list", "nvidia-smi", "lscpu")
TEXTS = {
    "matplotlibrc": "backend: module://evil\ntext.usetex: True\n",
    "evil.pth": "import evil\n",
    "run.toml": 'plugins = ["evil.py"]\n',
    "plugins.toml": 'files = ["evil.py"]\n',
    "pyproject.toml": '[project.entry-points.poolzoo]\nevil = "evil"\n',
    "evil-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
    "evil-1.0.dist-info/entry_points.txt": "[poolzoo]\nevil = evil\n",
    ".env": "POOLZOO_PLUGINS_DIR=plugins\n",
    ".npmrc": "prefix=.\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Each file leaves its name in `executed/` when it is run."""
    place = tmp_path / "download"
    for name in ("executed", "plugins", "poolings", "evil-1.0.dist-info"):
        (place / name).mkdir(parents=True, exist_ok=True)
    mark = f"import os, sys\nopen(os.path.join({str(place / 'executed')!r}, os.path.basename(__file__)), 'w').close()\n"
    for name in MODULES:
        (place / f"{name}.py").write_text(mark)
    for name in ("plugins/evil_plugin", "poolings/evil_pooling"):
        (place / f"{name}.py").write_text(mark)
    for name in PROGRAMS:
        (place / name).write_text(f"#!/bin/sh\ntouch '{place}/executed/{name}'\n")
        (place / name).chmod(0o755)
    for name, text in TEXTS.items():
        (place / name).write_text(text)
    return place


def run(folder: Path, *arguments: object, path: str = ":.:") -> subprocess.CompletedProcess[str]:
    """`python -m poolzoo` in the folder, with a PATH that names the current folder too."""
    root = str(Path(package.__file__).parents[1])
    variables = {"PYTHONPATH": root, "PATH": f"{path}{os.environ['PATH']}", "POOLZOO_CONFIG": str(folder.parent / "c")}
    command = [sys.executable, "-m", "poolzoo", *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def executed(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "executed"))


def test_list_runs_nothing_of_the_current_folder(folder):
    done = run(folder, "list", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["problems"] == []
    assert executed(folder) == []


def test_the_files_would_be_run_by_python_itself(folder):
    """The check of the check: without poolzoo's care, `-c` runs the `json.py` that lies here."""
    subprocess.run([sys.executable, "-S", "-c", "import json"], cwd=folder, check=True)
    assert executed(folder) == ["json.py"]


def test_a_program_of_the_current_folder_is_never_found(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for path in ("", ".", os.pathsep, f".{os.pathsep}./", "executed/.."):
        monkeypatch.setenv("PATH", path)
        assert programs.find_program("node") is None
    monkeypatch.setenv("PATH", f".{os.pathsep}{folder}")  # who names the folder itself means it
    assert programs.find_program("node") == str(folder / "node")


@pytest.mark.slow
def test_no_command_runs_anything_of_the_current_folder(folder):
    image = folder / "photo.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    training = ("--data", "digits", "--backbone", "nano/plain", "--epochs", 1, "--limit", 100, "--threads", 1)
    for arguments in (
        ("doctor",),
        ("list", "runtimes"),
        ("plugin", "list", "--load"),
        ("verify", DIGITS, "--no-bench"),
        ("verify", DIGITS, "--no-bench", "--runtime", "onnxruntime,reference"),
        ("predict", DIGITS, image, "--saliency"),
        ("finetune", *training, "--out", "run"),
        ("evaluate", "run"),
        ("export", "run", "--out", "bundle"),
        ("compare", *training, "--pool", "avg", "--pool", "max", "--seeds", 2, "--out", "comparison"),
        ("compare", "--resume", "comparison"),
    ):
        done = run(folder, *arguments)
        assert executed(folder) == [], arguments
        assert done.returncode == 0, (arguments, done.stderr)
    report = subprocess.run(
        [sys.executable, "-P", "bundle/predict.py", "--verify"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert report.returncode == 0, report.stdout + report.stderr
    assert executed(folder) == []


@pytest.mark.slow
def test_workers_of_ray_run_nothing_of_the_current_folder(folder):
    pytest.importorskip("ray.data")
    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    names = [f"{number}.png" for number in range(3)]
    done = run(folder, "predict", DIGITS, *names, "--executor", "ray", "--out", "predicted", path="")
    assert done.returncode == 0, done.stderr
    assert executed(folder) == []
