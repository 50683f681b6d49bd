"""Images that kill the process: found by the notes of those who died, and given up."""

from __future__ import annotations

import pytest

from poolzoo.common.errors import CheckFailed
from poolzoo.runtime.prediction import attempts
from poolzoo.runtime.prediction.attempts import Attempt

BATCH = 8
IMAGES = 30  # three batches and a part of one


def lives(out, images: int, deadly: set[int]) -> tuple[bool, set[int]]:
    """One process at a part, which reads a batch ahead: whether it lives to its end, and what it gave up."""
    attempt, given_up = Attempt(out, 0), set()
    seen: list[int] = []
    for start, size in attempt.steps(images, BATCH):
        if size == 1 and attempt.is_given_up(start):
            given_up.add(start)
            seen.append(start)
            continue
        for at in range(start, start + size, BATCH):
            ahead = min(2 * BATCH, start + size - at)
            attempt.enter(at, ahead)
            if deadly & set(range(at, at + ahead)):
                return False, set()
        seen += range(start, start + size)
    assert seen == list(range(images))
    attempt.finish()
    return True, given_up


@pytest.mark.parametrize("deadly", [{0}, {9}, {29}, {9, 10}, {3, 25}], ids=str)
def test_what_kills_again_and_again_is_given_up_alone(tmp_path, deadly):
    outcomes = [lives(tmp_path, IMAGES, deadly) for _ in range(2 * attempts.DEATHS * len(deadly) + 1)]
    assert next(given_up for lived, given_up in outcomes if lived) == deadly
    assert not outcomes[0][0]


def test_a_part_that_is_done_leaves_no_note(tmp_path):
    assert lives(tmp_path, IMAGES, set()) == (True, set())
    assert list((tmp_path / attempts.ATTEMPTS).iterdir()) == []


def test_one_death_changes_nothing(tmp_path):
    Attempt(tmp_path, 0).enter(8, 16)
    after = Attempt(tmp_path, 0)
    assert after.deaths == 1
    assert list(after.steps(IMAGES, BATCH)) == [(0, IMAGES)]


def test_who_is_stopped_did_not_die_of_an_image(tmp_path):
    for _ in range(5):
        Attempt(tmp_path, 0).enter(8, 8)
        attempts.withdraw(tmp_path)
    assert Attempt(tmp_path, 0).deaths == 0
    Attempt(tmp_path, 0).enter(8, 8)  # this one dies
    Attempt(tmp_path, 0).enter(16, 8)
    attempts.withdraw(tmp_path)
    assert Attempt(tmp_path, 0).deaths == 1


def test_deaths_at_one_place_try_those_batches_image_by_image(tmp_path):
    Attempt(tmp_path, 0).enter(8, 8)
    Attempt(tmp_path, 0).enter(8, 8)
    steps = list(Attempt(tmp_path, 0).steps(IMAGES, BATCH))
    assert steps == [(0, 8), *((one, 1) for one in range(8, 16)), (16, 14)]


def test_a_torn_note_counts_for_nothing(tmp_path):
    (tmp_path / attempts.ATTEMPTS).mkdir()
    (tmp_path / attempts.ATTEMPTS / "000000.json").write_text('{"now": [6')
    assert list(Attempt(tmp_path, 0).steps(10, BATCH)) == [(0, 10)]


def test_too_many_deadly_images_end_the_part(tmp_path):
    def go_on() -> None:
        while not lives(tmp_path, IMAGES, set(range(IMAGES)))[0]:
            pass

    with pytest.raises(CheckFailed, match="end the process"):
        go_on()
