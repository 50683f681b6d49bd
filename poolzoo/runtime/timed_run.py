"""The speed of a session in a process that may lie: images that it has not seen, and the host's own clock.

The time of a batch is what the process says. What the host waits beyond that is the cost of the pipe. It is measured
on ONNX Runtime, which is trusted, in a process of the same kind. Where the host waits far longer, its own time counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.runtime import cases, ort_session, tolerance
from poolzoo.runtime.process import RuntimeProcess, WrongAnswer

CHECKED: Final = 4  # images of each batch whose answers are compared with ONNX Runtime's; which ones is drawn
FACTOR: Final = 4.0  # of the largest tolerance of a golden image: an answer to another image is further off
SHARE: Final = 1e-3  # of the largest logit, likewise
KEPT: Final = 4  # batches of each size, for the runtimes that run in the same round
PIPE_FACTOR: Final = 4.0  # of what the pipe costs ONNX Runtime, that it may cost another on a busy machine
FIRST: Final = 3  # batches from which the cost of the pipe is known
LEAST_MS: Final = 1e-3  # of a batch: a process may say 0


@dataclass(frozen=True)
class FreshBatch:
    """Images that no session has seen, `uint8[N, h, w, 3]`; of some rows, `int[M]`, the answers and tolerances."""

    images: np.ndarray
    rows: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    allowed: np.ndarray


class FreshBatches:
    """Makes batches of new images out of a bundle's golden ones. ONNX Runtime on one thread here gives the answers."""

    def __init__(self, bundle: Path, golden: cases.Cases, *, lower: bool) -> None:
        """Opens the graph.

        Args:
            bundle: The bundle.
            golden: What it stores.
            lower: Whether answers come from lower arithmetic than float32.
        """
        self._model = ort_session.open_model(bundle / "model.onnx", "cpu", 1)
        natural = golden.natural if golden.natural.any() else np.ones(len(golden), bool)
        self._sources = golden.images[natural]
        self._usual = float(np.abs(golden.logits[natural]).max())
        self._allowed = FACTOR * float(golden.allowed[natural].max())
        if lower:
            self._allowed = max(self._allowed, FACTOR * cases.LOWER * float(np.abs(golden.logits).max()))
        self._generator = np.random.default_rng()
        self._kept: dict[tuple[int, int], FreshBatch] = {}

    def at(self, size: int, number: int) -> FreshBatch:
        """Batch `number` of `size` images: the same to whoever asks soon, else one made anew."""
        if (size, number) not in self._kept:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[size, number] = self._make(size)
        return self._kept[size, number]

    def _make(self, size: int) -> FreshBatch:
        images = np.stack([self._image() for _ in range(size)])
        rows = self._generator.choice(size, min(size, CHECKED), replace=False)
        logits, probabilities = self._model.run(images[rows])
        largest = np.abs(logits).max(1).astype(np.float64)
        allowed = self._allowed * np.maximum(1.0, largest / self._usual if self._usual else 1.0)
        return FreshBatch(images, rows, logits, probabilities, np.maximum(allowed, SHARE * largest))

    def _image(self) -> np.ndarray:
        """A mixture of two images, each moved."""
        draw, moved = self._generator.integers, []
        for source in draw(len(self._sources), size=2):
            image = self._sources[source]
            moved.append(np.roll(image, draw(image.shape[:2]), (0, 1)).astype(np.uint16))
        weight = int(draw(64, 193))
        mixed: np.ndarray = (moved[0] * np.uint16(weight) + moved[1] * np.uint16(256 - weight)) >> 8
        return mixed.astype(np.uint8)


class TimedRun:
    """Runs batches in a session, one a call; gives the milliseconds of each, and checks each answer.

    Attributes:
        own: The milliseconds of each batch as the process says.
        host: Those that the host waited.
        counted: Those that count.
    """

    def __init__(
        self, process: RuntimeProcess, batches: FreshBatches, size: int, *, pipe: Callable[[], float] | None = None
    ) -> None:
        """Takes a session.

        Args:
            process: Its process.
            batches: Where the images come from.
            size: The batch size.
            pipe: Gives the milliseconds that the pipe costs ONNX Runtime; None where the process is trusted.
        """
        self._process = process
        self._batches = batches
        self._size = size
        self._pipe = pipe
        self.own: list[float] = []
        self.host: list[float] = []
        self.counted: list[float] = []

    def __call__(self) -> float:
        """Runs the next batch.

        Raises:
            WrongAnswer: The answer is not that of the images, as it was when the session was judged.
        """
        batch = self._batches.at(self._size, len(self.own))
        answer = self._process.run(batch.images)
        if answer.logits.shape[1] != batch.logits.shape[1]:
            raise WrongAnswer(self._process.name, "gives another number of classes while it is timed")
        found = answer.logits[batch.rows], answer.probabilities[batch.rows]
        if not (tolerance.apart(found, (batch.logits, batch.probabilities)) <= batch.allowed).all():
            raise WrongAnswer(self._process.name, "answers something else while it is timed")
        self.own.append(answer.ms)
        self.host.append(answer.host_ms)
        self.counted.append(max(answer.ms + self._hidden(), LEAST_MS))
        return self.counted[-1]

    def pipe_ms(self) -> float:
        """What the pipe costs this session, in milliseconds."""
        while len(self.own) < FIRST:
            self()
        return self._gap()

    def _hidden(self) -> float:
        """The milliseconds of a batch that the process does not say; 0 where its times and the host's agree."""
        if self._pipe is None:
            return 0.0
        gap, pipe = self._gap(), self._pipe()
        return gap - pipe if gap > PIPE_FACTOR * pipe else 0.0

    def _gap(self) -> float:
        """How much longer the host waits than the process says: the median so far, since a machine may be busy."""
        return statistics.median(host - own for host, own in zip(self.host, self.own, strict=True))

    def clock_remark(self) -> str:
        """That the process says another time than the host's clock allows; "" where it does not."""
        if not self._hidden():
            return ""
        own, counted = statistics.median(self.own), statistics.median(self.counted)
        said = f"its own clock says {own:.2f} ms for a batch of {self._size}"
        return f"{said}, the host's {counted:.2f} ms, which counts"


class References:
    """ONNX Runtime in a process of its own: its runs by batch size, which the others are compared with."""

    def __init__(self, process: RuntimeProcess, batches: FreshBatches) -> None:
        self._process = process
        self._batches = batches
        self._runs: dict[int, TimedRun] = {}

    def at(self, size: int) -> TimedRun:
        """Its run at a batch size, the same for all that are compared with it."""
        return self._runs.setdefault(size, TimedRun(self._process, self._batches, size))

    def other(self, process: RuntimeProcess, size: int) -> TimedRun:
        """The run of another session, whose pipe costs what ONNX Runtime's does for the same pieces of a batch."""
        piece = process.batch or size
        pieces = math.ceil(size / piece)
        return TimedRun(process, self._batches, size, pipe=lambda: pieces * self.at(piece).pipe_ms())


def host_speedup(reference: TimedRun, other: TimedRun, rounds: int) -> float:
    """How many times as fast the host sees the other, over the last rounds: the pipe's cost pulls it towards 1."""
    pairs = zip(reference.host[-rounds:], other.host[-rounds:], strict=True)
    return round(statistics.median(ours / max(theirs, LEAST_MS) for ours, theirs in pairs), 3)
