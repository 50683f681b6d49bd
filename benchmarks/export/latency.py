"""Our bundle against the exports of timm and optimum-onnx and against torch: from a JPEG's bytes to its label.

python -m benchmarks.export.latency [--models NAME@PIXELS[:INPUT] …] [--threads 1 2] [--rounds N] [--json FILE]
                            [--cpu-time] [--images FOLDER] [--peers-python PATH]

optimum-onnx asks for an older transformers and lives in an environment of its own, which only exports (some GB):
    python3 -m venv peers && peers/bin/pip install optimum-onnx torch torchvision timm onnxruntime onnxscript
    python -m benchmarks.export.latency --peers-python peers/bin/python

Every side has the same network with random weights (`cases.perturb`) and the same 32 JPEGs in memory. They have the
size of the network's data, so that no side resizes images; where poolzoo upscales for the network, the peers do the
same on their floats. All sides decode with Pillow, one image after the other. The sides:

    ours            the bundle's model.onnx: uint8 goes in, poolzoo's session
    timm            timm's onnx_export.py, with its defaults and its options; ToTensor and Normalize, numpy's softmax
    optimum-onnx    its exporter's file, the same around it
    torch eager     the network itself, the same around it
    decoding alone  the part of every side that is Pillow's

ONNX Runtime's and torch's threads spin for a while after a call; poolzoo's sleep. Peers' sessions have their defaults,
so calls come in blocks. In every round each side, in shuffled order, waits until other threads sleep, is called once,
and is then timed back to back. So a peer gains from its own spinning and takes nothing from others. Ratios are taken
within a round. For one thread: `taskset -c 1 … --threads 1`; on a shared machine also --cpu-time.

`graph` is the call of the session or network alone, on prepared input; ours still includes normalization, upscaling and
softmax, and `the network's part` is ours without them. `opened` is the time to make a session. Before anything is
timed, every side labels the JPEGs. A side with another label on an image whose margin is above the noise is left out,
and the exit code is 1.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.export import cases, runtimes
from benchmarks.export.cases import Case
from benchmarks.export.report import Found, goals, show, title
from benchmarks.export.runtimes import Runtime
from benchmarks.train import peers
from poolzoo.common import output, timing

MODELS: Final = (
    "nano/resnet@32",
    "timm/resnet18@32",
    "timm/mobilenetv3_small_050@32",
    "timm/resnet50@224",
    "timm/mobileone_s0@224",
    "timm/vit_tiny_patch16_224@224",
)
BATCHES: Final = (1, 32)
REST: Final = 0.1  # seconds until the threads of the one before sleep: ONNX Runtime's burn 0.03 s of a CPU after a call
BLOCK: Final = 0.02  # seconds of calls back to back, at least
NOISE: Final = 1e-5  # of the largest logit: what float32 may do to a margin, ten times what healthy graphs differ by
CLEAR: Final = 0.5  # fraction of the images whose margins must be above the noise


# --- Labels --------------------------------------------------------------------------------------------------------


def clear(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Which images have a label that noise cannot change, `bool[N]`.

    Args:
        ours: The network's logits in torch behind our preprocessing, `float[N, classes]`.
        theirs: Those behind the peers'; the difference of the two is noise.
    """
    noise = np.abs(ours - theirs).max(1) + NOISE * np.abs(ours).max()
    first, second = np.sort(ours, 1)[:, :-3:-1].T
    return np.asarray(first - second > 2 * noise)


@dataclass(frozen=True)
class Expected:
    """The labels that every way must give, `int[N]`, and for which images, `bool[N]`."""

    labels: np.ndarray
    clear: np.ndarray

    @classmethod
    def of(cls, case: Case) -> Expected:
        """From the network in torch.

        Raises:
            RuntimeError: Too few images are clear, or all have one label: agreement would say nothing.
        """
        with torch.inference_mode():
            ours = case.network(case.preprocess(torch.from_numpy(case.pixels))).numpy()
            theirs = case.network(runtimes.eager(case).prepare(case.jpegs)).numpy()
        found = cls(ours.argmax(1), clear(ours, theirs))
        if found.clear.mean() < CLEAR or found.kinds < 2:
            raise RuntimeError(f"{case.text}: {found.clear.sum()} clear images with {found.kinds} labels tell nothing")
        return found

    @property
    def kinds(self) -> int:
        """How many different labels are compared."""
        return len(set(self.labels[self.clear].tolist()))

    def differ(self, runtime: Runtime, jpegs: list[bytes]) -> int:
        """How many clear images a way labels otherwise."""
        return int((runtime.label(jpegs)[0] != self.labels)[self.clear].sum())


# --- Time ----------------------------------------------------------------------------------------------------------


class Clock:
    """Another clock's seconds, less those in which this one was stopped."""

    def __init__(self, read: Callable[[], float]) -> None:
        self.read = read
        self.stopped = 0.0

    def __call__(self) -> float:
        return self.read() - self.stopped

    @contextmanager
    def stop(self) -> Iterator[None]:
        started = self.read()
        yield
        self.stopped += self.read() - started


def in_blocks(
    calls: dict[str, Callable[[], Any]], rounds: int, read: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Milliseconds a call by a clock, a list a name: interleaved blocks of calls, after a rest each."""
    clock, repeats = Clock(read), {name: _repeats(call, read) for name, call in calls.items()}

    def block(name: str) -> None:
        with clock.stop():
            time.sleep(REST)
            if repeats[name] > 1:
                calls[name]()
        for _ in range(repeats[name]):
            calls[name]()

    times = timing.interleaved({name: partial(block, name) for name in calls}, math.inf, clock, rounds)
    return {name: [one / repeats[name] for one in found] for name, found in times.items()}


def _repeats(call: Callable[[], Any], read: Callable[[], float]) -> int:
    """How many calls make a block."""
    call()
    started = read()
    call()
    return max(1, math.ceil(BLOCK / (read() - started)))


# --- One network ---------------------------------------------------------------------------------------------------


def measure(
    text: str,
    photographs: Path | None,
    python: Path | None,
    threads: Sequence[int],
    rounds: int,
    clock: Callable[[], float],
) -> Found:
    """Exports one network with everybody, compares labels and takes times."""
    case = cases.make(text, photographs)
    expected = Expected.of(case)
    compared = int(expected.clear.sum())
    found = Found(
        {
            "network": case.name,
            "data_size": case.data_size,
            "image_size": case.image_size,
            "classes": case.classes,
            "convolutional": case.convolutional,
            "compared": compared,
            "labels": expected.kinds,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        files = _export(case, Path(folder), python, found)
        for count in threads:
            torch.set_num_threads(count)
            opening: dict[str, Callable[[], Any]] = {
                name: partial(runtimes.our_model if name == runtimes.OURS else runtimes.plain_session, file, count)
                for name, file in files.items()
            }
            sessions = {name: make() for name, make in opening.items()}
            ways = {name: runtimes.peer(session, case) for name, session in sessions.items() if name != runtimes.OURS}
            ways = {runtimes.OURS: runtimes.ours(sessions[runtimes.OURS]), **ways, runtimes.EAGER: runtimes.eager(case)}
            ways[runtimes.PART] = runtimes.peer(runtimes.our_part(files[runtimes.OURS], count), case)
            for name, runtime in list(ways.items()):
                try:
                    differing = expected.differ(runtime, case.jpegs)
                except Exception as error:  # ONNX Runtime's share no public base; one example may have fixed the batch
                    if name in (runtimes.OURS, runtimes.PART):
                        raise
                    found.missing[name] = f"fails on {len(case.jpegs)} images: {runtimes.first_line(error)}"
                else:
                    if not differing:
                        continue
                    found.missing[name] = f"{differing} of {compared} clear images have other labels"
                    found.wrong.append(name)
                del ways[name]
                opening.pop(name, None)
            found.opened[count] = timing.interleaved(opening, math.inf, clock, rounds)
            for batch in BATCHES:
                found.times.append(
                    {"threads": count, "batch": batch, **_times(ways, case.jpegs[:batch], rounds, clock)}
                )
                peers.say(f"{text}: {count} threads, batch {batch}")
    return found


def _export(case: Case, folder: Path, python: Path | None, found: Found) -> dict[str, Path]:
    """The files of all who can, and notes about them."""

    def optimum(case: Case, place: Path) -> Path:
        file, found.peers_versions = runtimes.optimum_file(case, place, python)
        return file

    ways: dict[str, Callable[[Case, Path], Path]] = {runtimes.OURS: runtimes.our_file}
    ways |= {name: partial(runtimes.timm_file, **options) for name, options in runtimes.TIMM.items()}
    ways[runtimes.OPTIMUM] = optimum
    files = {}
    for name, export in ways.items():
        place = folder / name.replace(" ", "")
        place.mkdir()
        started = time.perf_counter()
        try:
            files[name] = export(case, place)
        except runtimes.NoExportError as error:
            found.missing[name] = str(error)
            continue
        seconds = time.perf_counter() - started
        size = sum(file.stat().st_size for file in files[name].parent.glob("model.onnx*"))  # with external data
        nodes = len(onnx.load(files[name], load_external_data=False).graph.node)
        found.files[name] = {"nodes": nodes, "mb": round(size / 1e6, 2), "export_s": round(seconds, 1)}
        peers.say(f"{case.text}: {name} exported")
    return files


def _times(
    ways: dict[str, Runtime], jpegs: list[bytes], rounds: int, clock: Callable[[], float]
) -> dict[str, dict[str, list[float]]]:
    """From JPEGs to labels, and the graph alone."""
    labels = {name: partial(runtime.label, jpegs) for name, runtime in ways.items() if name != runtimes.PART}
    graphs = {name: partial(runtime.run, runtime.prepare(jpegs)) for name, runtime in ways.items()}
    decoding = {runtimes.DECODING: partial(runtimes.decoded, jpegs)}
    return {"label": in_blocks({**labels, **decoding}, rounds, clock), "graph": in_blocks(graphs, rounds, clock)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME@PIXELS[:INPUT]")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--rounds", type=int, default=15, help="at least 2; default 15")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time instead of the wall clock")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photographs; default: scikit-learn's two")
    parser.add_argument("--peers-python", type=Path, metavar="PATH", help="the interpreter that has optimum-onnx")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keeps all numbers")
    given = parser.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    output.set_verbosity(output.QUIET)
    conditions = peers.conditions(max(given.threads), n=given.rounds, date=datetime.now(UTC).strftime("%Y-%m-%d"))
    conditions |= {
        "threads": given.threads,
        "clock": clock.__name__,
        **{name: version(name) for name in ("onnx", "onnxscript")},
    }
    conditions["onnxruntime"] = onnxruntime.__version__
    everything: list[Found] = []
    for text in given.models:
        found = measure(text, given.images, given.peers_python, given.threads, given.rounds, clock)
        everything.append(found)
        conditions |= {"optimum-onnx's": found.peers_versions} if found.peers_versions else {}
        content = [{**vars(one), "goals": goals(one)} for one in everything]
        peers.keep(given.json, {"conditions": conditions, "networks": content})
    show(everything)
    peers.show_conditions(conditions)
    wrong = [f"{title(found)}: {name}" for found in everything for name in found.wrong]
    if wrong:
        sys.exit("other labels than the network's: " + "; ".join(dict.fromkeys(wrong)))


if __name__ == "__main__":
    main()
