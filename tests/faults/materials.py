"""What scenarios start from: photographs, runs, a bundle, and a data set that is downloaded from this process."""

from __future__ import annotations

import hashlib
import http.server
import io
import shutil
import signal
import threading
from contextlib import suppress
from typing import Final

import numpy as np
from faults import interposer
from faults.bench import Bench
from faults.scenarios import TRAIN, Scenario
from support import photographs
from support.runtimes import fake_runtime

# A data set like CIFAR-10: one published file with a checksum, kept in the cache directory.
REMOTE: Final = """
import io

import numpy as np

from poolzoo import Dataset, hookimpl
from poolzoo.datasets.download import fetch


def load(split, cache_dir):
    stored = np.load(io.BytesIO(fetch(cache_dir / "remote.npz", ["{url}"], "{md5}", "remote").read_bytes()))
    return stored["images"], stored["labels"]


@hookimpl
def poolzoo_datasets():
    yield Dataset(name="remote", summary="noise", load=load, classes=("dark", "bright"))
"""


def make(bench: Bench) -> None:
    """Makes the materials of a bench that are not there, with undisturbed commands where poolzoo makes them."""
    place = bench.materials
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "photos").is_dir():
        photographs.data_set(place / "photos", train=14, test=6)
    (place / "remote.py").write_text(REMOTE.format(**_published()))
    fake_runtime(place / "runtime.py")
    for name, words in {
        "run": TRAIN,
        "run2": (*TRAIN, "--seed", "1", "--split-seed", "0"),
        "plain": (*TRAIN, "--no-calibration"),
    }.items():
        _made(bench, (*words, "--out", "run"), "run", name)
    _made(bench, ("export", "run", "--no-bench", "--out", "bundle"), "bundle", "bundle", "run")
    _half(bench)


def _made(bench: Bench, words: tuple[str, ...], made: str, name: str, *inputs: str) -> None:
    if (bench.materials / name).is_dir():
        return
    bench.fill(Scenario(command=words, made=(made,), inputs=inputs))
    ended, _ = bench.undisturbed(words)
    assert ended.code == 0, ended
    shutil.copytree(bench.box / made, bench.materials / name)


def _half(bench: Bench) -> None:
    """A run that was interrupted after its first epoch: at the first operation after its checkpoint is written."""
    if (bench.materials / "half").is_dir():
        return
    words = (*TRAIN, "--out", "run")
    for at in range(10, 40, 2):
        bench.fill(Scenario(command=words, made=("run",)))
        interposer.write_plan(bench.plan, bench.box, at=at, action=interposer.SIGNAL, value=signal.SIGTERM)
        bench.start(words).wait()
        if (bench.box / "run/checkpoint/state.pt").is_file():
            break
    assert not (bench.box / "run/manifest.json").exists()
    shutil.copytree(bench.box / "run", bench.materials / "half")


def _published() -> dict[str, str]:
    """Serves a file of some megabytes from a thread; its address and checksum."""
    images = np.random.default_rng(0).integers(0, 256, (1000, 32, 32, 3), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, images=images, labels=np.arange(1000, dtype=np.int64) % 2)
    content = buffer.getvalue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):  # the other side may be gone
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return {"url": f"http://127.0.0.1:{server.server_port}/remote.npz", "md5": hashlib.md5(content).hexdigest()}
