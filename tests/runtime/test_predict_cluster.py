"""`predict --executor ray`: the rows of one process, whatever dies on the way, and no word of Ray's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.linear_bundle import linear_bundle
from support.prediction_rows import repeated_images, rows_of
from support.ray_nodes import node, until, worker_environment

COUNT = 3_000  # images, in 12 parts
PIPE = 300  # the place of an image that comes through a pipe, in the second part


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Iterator[Path]:
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


class Stuck:
    """The same images, of which one is a pipe whose writer is silent: a worker waits for it, until it is a file."""

    def __init__(self, place: Path, images: str) -> None:
        names = Path(images[1:]).read_text().split("\n")
        self._original = Path(names[PIPE])
        self._pipe = place / "pipe.png"
        os.mkfifo(self._pipe)
        self._writer = os.open(self._pipe, os.O_RDWR)  # a pipe without a writer is empty
        names[PIPE] = str(self._pipe)
        (place / "list.txt").write_text("\n".join(names))
        self.images = f"@{place}/list.txt"

    def is_reached(self, out: Path) -> bool:
        """Whether a worker waits, and another part is done."""
        return parts(out) >= 1 and (out / "attempts" / f"{PIPE // 256:06}.json").is_file()

    def release(self) -> None:
        """Makes it a file for whoever opens it next."""
        shutil.copy(self._original, self._pipe.with_suffix(".new"))
        os.replace(self._pipe.with_suffix(".new"), self._pipe)

    def close(self) -> None:
        os.close(self._writer)

    def rows(self, out: Path) -> list[dict[str, object]]:
        """The rows, with the name of the image that was a pipe before it was one."""
        found = rows_of(out)
        assert found[PIPE]["file"] == str(self._pipe)
        found[PIPE]["file"] = str(self._original)
        return found


@pytest.fixture
def stuck(tmp_path, images) -> Iterator[Stuck]:
    with closing(Stuck(tmp_path, images)) as found:
        yield found


@pytest.mark.slow
def test_killed_workers_lose_no_row_and_make_none_twice(tmp_path, bundle, stuck, expected, address):
    out = tmp_path / "out"
    options = ("--ray-address", address, "--skip-broken", "all", "--json")
    with start(out, bundle, stuck.images, *options) as process:
        until(lambda: stuck.is_reached(out), process)
        stuck.release()
        for worker in workers():
            os.kill(worker, signal.SIGKILL)
        printed, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert stuck.rows(out) == expected
    assert json.loads(printed)["images"] == COUNT
    assert "warning: part 1: a worker died, another one did it" in err
    ours = ("warning: ", f"{COUNT:,} images")
    assert [line for line in err.splitlines() if not line.startswith(ours) and " images/s, " not in line] == []


@pytest.mark.slow
def test_a_killed_driver_is_resumed_from_its_parts(poolzoo, tmp_path, bundle, stuck, expected, address):
    out = tmp_path / "out"
    with start(out, bundle, stuck.images, "--ray-address", address) as process:
        until(lambda: stuck.is_reached(out), process)
        process.kill()
    until(lambda: not workers())
    stuck.release()
    before = sum(min(256, COUNT - 256 * int(path.stem[-6:])) for path in out.glob("parts/*.parquet"))
    assert 0 < before < COUNT
    outcome = poolzoo("predict", bundle, stuck.images, "--out", out, "--threads", 1)  # in one process: parts are parts
    assert f"{before:,} of {COUNT:,} images are done already" in outcome.err
    assert stuck.rows(out) == expected


@pytest.mark.slow
def test_what_is_interrupted_says_how_to_go_on(tmp_path, bundle, stuck, address):
    out = tmp_path / "out"
    with start(out, bundle, stuck.images, "--ray-address", address) as process:
        until(lambda: stuck.is_reached(out), process)
        os.killpg(process.pid, signal.SIGINT)
        printed, err = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert err.splitlines()[-2:] == [
        "error: interrupted",
        f"hint: poolzoo predict --resume {out} --executor ray continues it",
    ]
    assert 1 <= parts(out) < 12
    until(lambda: not workers())


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
