"""Threads that fill batches ahead of a training step: who helps, and whose error is raised."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from poolzoo.data.streaming.prefetch import PIECE, filled

LONG = 60  # seconds after which a test that hangs fails
HERE = threading.main_thread()


def read(fill, count: int = 8 * PIECE, threads: int = 2) -> list[int]:
    """The positions that one batch of `count` images holds."""
    ((images, positions),) = filled(fill, [np.arange(count)], (1, 1, 3), threads)
    assert images[:, 0, 0, 0].tolist() == positions.tolist()
    return positions.tolist()


def test_who_waits_fills_what_no_thread_has_begun():
    """Threads that wait until the caller has filled an image would wait forever."""
    helped = threading.Event()

    def fill(position: int, out: np.ndarray) -> int:
        if threading.current_thread() is HERE:
            helped.set()
        assert helped.wait(LONG)
        out[:] = position
        return position

    assert read(fill) == list(range(8 * PIECE))


def test_error_is_that_of_the_first_image_whoever_found_another():
    begun, ended = threading.Event(), threading.Event()

    def fill(position: int, out: np.ndarray) -> int:
        if threading.current_thread() is HERE:
            assert begun.wait(LONG)
            ended.set()
            raise ValueError("of the caller")
        begun.set()
        assert ended.wait(LONG)
        raise ValueError("of a thread")

    with pytest.raises(ValueError, match="of a thread"):
        read(fill)
