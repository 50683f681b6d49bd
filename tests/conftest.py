"""Shared fixtures: a clean host for every test, the command line in this process, one trained run and its bundle."""

from __future__ import annotations

import gc
import json
import os

# Two workers with a thread each finish sooner than threads that wait for one another, and bits stay the same anywhere.
os.environ["OMP_NUM_THREADS"] = "1"
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from PIL import Image
from support import exporter_tables

from poolzoo import cli
from poolzoo.common import output, timing
from poolzoo.plugin import loader

gc.disable()  # until all tests are imported: a third of the time that it takes, and nothing is found
timing.MOST_ROUNDS = timing.LEAST_ROUNDS  # no test asserts a time, and two hundred rounds of each take seconds


def pytest_configure(config: pytest.Config) -> None:
    """Hides GPUs from all tests but those that are marked `gpu` and asked for: the others are about the CPU."""
    if "gpu" not in config.option.markexpr.replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Takes what was imported out of the garbage collector's way: a million objects that it need not visit again."""
    freeze()
    gc.enable()


def freeze() -> None:
    """Leaves all objects that there are to the end of the process. An export collects garbage three times."""
    gc.collect()
    gc.freeze()


def _full_collections() -> int:
    return gc.get_stats()[2]["collections"]


@pytest.fixture(scope="session", autouse=True)
def _exporter_tables() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        exporter_tables.keep(patch)
        freeze()
        yield


@pytest.fixture(autouse=True)
def _clean_host(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    for name in ("POOLZOO_PLUGINS_DIR", "POOLZOO_DEBUG", "POOLZOO_CACHE_LIMIT", "POOLZOO_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("POOLZOO_CONFIG", str(tmp_path_factory.getbasetemp() / "no-config"))
    loader.forget()
    collections = _full_collections()
    yield
    loader.forget()
    output.set_verbosity(output.NORMAL)
    if _full_collections() != collections:  # as of an export, which imports much at its first time
        freeze()


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: its exit code and the two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def poolzoo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Runs a command in this process, as `poolzoo("list", "--json")`.

    It leaves out what makes up half of a small training: a trial export, and a picture of its curves. `trained` has
    both, and so have the tests of each.
    """
    from poolzoo.report import curves

    monkeypatch.setattr(curves, "draw", lambda *_: None)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        loader.forget()
        output.set_verbosity(output.NORMAL)
        words = [str(argument) for argument in arguments]
        if "finetune" in words and not {"--check-export", "--resume"} & set(words):
            words.insert(words.index("finetune") + 1, "--no-check-export")  # the last one may lack its value
        code = cli.run(words)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def kept_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets torch's exporter work once for each network, for tests that are about something else."""
    from support import kept_graphs

    kept_graphs.keep(monkeypatch)


@pytest.fixture(scope="module")
def _no_pictures() -> Iterator[None]:
    """Leaves out pictures of curves where a module trains without `poolzoo`. Not beside `trained`, which has one."""
    from poolzoo.report import curves

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", lambda *_: None)
        yield


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, *arguments: str) -> Path:
    """What a command writes, made by the first of the session's workers that needs it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    path = folder / "made-once" / name
    path.parent.mkdir(exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        if not path.exists():
            assert cli.run([*arguments, "--out", str(path)]) == 0
            freeze()
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learnt the digits for four epochs. Read it, do not change it."""
    arguments = ("finetune", "--data", "digits", "--backbone", "nano/plain", "--pool", "gem", "--epochs", "4")
    return made_once(tmp_path_factory, "run", *arguments, "--threads", "1")


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `trained`. Read it, do not change it."""
    return made_once(tmp_path_factory, "bundle", "export", str(trained))


@pytest.fixture
def bundle_copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture
def run_copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of small images in two classes that differ in color: 24 to train on and 8 to test on."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name, tint in (("blue", (30, 60, 200)), ("red", (200, 60, 30))):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                noise = generator.integers(-25, 25, (16, 16, 3))
                Image.fromarray((np.array(tint) + noise).astype(np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture(scope="module")  # Playwright's event loop must not outlast the tests that want it
def browser() -> Iterator[Any]:
    """Chromium, as Playwright drives it."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        pytest.skip("there is no Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def cifar_images() -> Path:
    """The unpacked CIFAR-10 photographs, where there are any."""
    named = os.environ.get("POOLZOO_TEST_IMAGES")
    if not named:
        pytest.skip("POOLZOO_TEST_IMAGES names no folder of CIFAR-10 images")
    return Path(named)
