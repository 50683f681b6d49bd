"""`predict --executor ray`: the rows of one process, whatever dies on the way, and no word of Ray's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.linear_bundle import linear_bundle
from support.prediction_rows import repeated_images, rows_of
from support.ray_nodes import node, until, worker_environment

COUNT = 12_000  # images, in 47 parts


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Iterator[Path]:
    pytest.importorskip("ray.data")
    with worker_environment(tmp_path_factory.getbasetemp()):
        yield tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def bundle(base) -> Path:
    return linear_bundle(base / "linear", "uint8")


@pytest.fixture(scope="module")
def images(base) -> str:
    return f"@{repeated_images(base / 'images', COUNT)}"


@pytest.fixture(scope="module")
def expected(bundle, images):
    """The rows of one process."""
    command = [sys.executable, "-m", "poolzoo", "predict", bundle, images, "--threads", "1", "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=False).stdout)


@pytest.fixture(scope="module")
def address(base) -> Iterator[str]:
    with node() as found:
        yield found


def start(out: Path, bundle: Path, images: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "poolzoo", "predict", bundle, images, "--executor", "ray", "--out", out, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen(command, **pipes)


def parts(out: Path) -> int:
    return len(list(out.glob("parts/*.parquet")))


def workers() -> list[int]:
    """The processes of the workers of this test."""
    mark, found = f"POOLZOO_CACHE={os.environ['POOLZOO_CACHE']}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"PartWorker" in (process / "cmdline").read_bytes() and mark in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.slow
def test_killed_workers_lose_no_row_and_make_none_twice(tmp_path, bundle, images, expected, address):
    out = tmp_path / "out"
    with start(out, bundle, images, "--ray-address", address, "--skip-broken", "all", "--json") as process:
        until(lambda: parts(out) >= 2 and workers())
        for worker in workers():
            os.kill(worker, signal.SIGKILL)
        printed, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert rows_of(out) == expected
    assert json.loads(printed)["images"] == COUNT
    assert "died, another one did it" in err
    ours = ("warning: ", f"{COUNT:,} images")
    assert [line for line in err.splitlines() if not line.startswith(ours) and " images/s, " not in line] == []


@pytest.mark.slow
def test_a_killed_driver_is_resumed_from_its_parts(poolzoo, tmp_path, bundle, images, expected, address):
    out = tmp_path / "out"
    with start(out, bundle, images, "--ray-address", address) as process:
        until(lambda: parts(out) >= 3)
        process.kill()
    until(lambda: not workers())
    before = parts(out)
    assert 3 <= before < 47
    outcome = poolzoo("predict", bundle, images, "--out", out, "--threads", 1)  # in one process: parts are parts
    done = min(before * 256, COUNT)
    assert f"{done:,} of {COUNT:,} images are done already" in outcome.err
    assert rows_of(out) == expected


@pytest.mark.slow
def test_what_is_interrupted_says_how_to_go_on(tmp_path, bundle, images, expected, address):
    out = tmp_path / "out"
    with start(out, bundle, images, "--ray-address", address) as process:
        until(lambda: parts(out) >= 1)
        os.killpg(process.pid, signal.SIGINT)
        printed, err = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert err.splitlines()[-2:] == [
        "error: interrupted",
        f"hint: poolzoo predict --resume {out} --executor ray continues it",
    ]
    assert parts(out) < 47


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_images_ends_it_in_one_line(poolzoo, tmp_path, bundle, images, address):
    out, folder = tmp_path / "out", tmp_path / "photos"
    shutil.copytree(Path(images[1:]).parent, folder)
    assert poolzoo("predict", bundle, folder, "--out", out).code == 1
    next((out / "parts").iterdir()).unlink()
    shutil.rmtree(folder)
    command = [sys.executable, "-m", "poolzoo", "predict", "--resume", out, "--executor", "ray"]
    done = subprocess.run([*command, "--ray-address", address], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: node ")
    assert error.endswith(f"does not see {folder}")
    assert hint.startswith("hint: every node needs the images")
