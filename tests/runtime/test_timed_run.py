"""What counts as the time of a batch: the word of a process, and the clock of the host. No time is measured here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poolzoo.runtime import cases, ort_session, timed_run
from poolzoo.runtime.process import Answer, WrongAnswer

DIGITS = Path(__file__).parents[1] / "data" / "digits_bundle"
PIPE = 2.0  # milliseconds of a request


class Process:
    """A session that computes what the graph does, with times that are given."""

    def __init__(
        self,
        *,
        said: float,
        taken: float,
        batch: int | None = None,
        shift: int = 0,
        busy: int = 0,
        classes: int | None = None,
    ) -> None:
        self.name, self.batch, self._classes = "fake", batch, classes
        self._said, self._taken, self._shift = said, taken, shift
        self._busy, self._runs = busy, 0  # every so many runs, the host waits long
        self._model = ort_session.open_model(DIGITS / "model.onnx", "cpu", 1)

    def run(self, images: np.ndarray) -> Answer:
        logits, probabilities = (np.roll(one, self._shift, 1)[:, : self._classes] for one in self._model.run(images))
        requests = -(-len(images) // (self.batch or len(images)))
        self._runs += 1
        host = self._taken + requests * PIPE + (500.0 if self._busy and self._runs % self._busy == 0 else 0.0)
        return Answer(logits=logits, probabilities=probabilities, ms=self._said, changed=False, host_ms=host)


@pytest.fixture(scope="module")
def batches():
    return timed_run.FreshBatches(DIGITS, cases.golden_cases(DIGITS), lower=False)


def timed(batches, process, size, rounds=3):
    references = timed_run.References(Process(said=1.0, taken=1.0), batches)
    reference, other = references.at(size), references.other(process, size)
    for _ in range(rounds):
        reference()
        other()
    return reference, other


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_the_word_of_an_honest_process_counts(batches, batch):
    _, other = timed(batches, Process(said=0.5, taken=0.5, batch=batch), 32)
    assert other.counted == [0.5] * 3
    assert other.clock_remark() == ""


def test_a_busy_machine_does_not_count(batches):
    _, other = timed(batches, Process(said=0.5, taken=0.5, busy=3), 4, rounds=9)
    assert other.counted == [0.5] * 9


@pytest.mark.parametrize("batch", [None, 4])
def test_a_time_that_cannot_be_is_that_of_the_host(batches, batch):
    reference, other = timed(batches, Process(said=0.0, taken=400.0, batch=batch), 32)
    assert other.counted == [400.0] * 3
    assert other.clock_remark() == "its own clock says 0.00 ms for a batch of 32, the host's 400.00 ms, which counts"
    assert timed_run.host_speedup(reference, other, 3) < 0.01


def test_a_process_that_says_zero_has_a_speedup(batches):
    reference, other = timed(batches, Process(said=0.0, taken=0.0), 1)
    assert other.counted == [timed_run.LEAST_MS] * 3
    assert timed_run.host_speedup(reference, other, 3) == 1.5


def test_the_answers_to_new_images_are_checked(batches):
    with pytest.raises(WrongAnswer, match="answers something else while it is timed"):
        timed(batches, Process(said=1.0, taken=1.0, shift=1), 8)


def test_classes_that_vanish_are_noticed(batches):
    with pytest.raises(WrongAnswer, match="gives another number of classes while it is timed"):
        timed(batches, Process(said=1.0, taken=1.0, classes=9), 8)


def test_images_are_new_in_each_batch(batches):
    stored = [image.tobytes() for image in cases.golden_cases(DIGITS).images]
    made = [image.tobytes() for number in range(9) for image in batches.at(32, number).images]
    assert len({*stored, *made}) == len({*stored}) + len(made)
