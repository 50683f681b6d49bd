"""Signals that come at bad moments: dropped by the interpreter, or sent twice."""

from __future__ import annotations

import signal
import sys
import threading

import pytest

from poolzoo.common import stopping


class Dropping:
    def __del__(self):
        raise KeyboardInterrupt


def test_an_interrupt_that_python_drops_is_sent_again(monkeypatch):
    came, forgotten = threading.Event(), []
    monkeypatch.setattr(sys, "unraisablehook", None)
    stopping.never_lose_one(lambda: forgotten.append(came.is_set()))
    before = signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        Dropping()
        assert came.wait(20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert forgotten == [False]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_only_a_second_hangup_is_a_repetition():
    interrupted, hung_up = (stopping.EXCEPTIONS[number] for number in (signal.SIGINT, signal.SIGHUP))
    assert stopping.repeats(signal.SIGHUP, [hung_up])
    assert not stopping.repeats(signal.SIGHUP, [interrupted])
    assert not stopping.repeats(signal.SIGINT, [interrupted])
    assert [stopping.exit_code(stopping.EXCEPTIONS[number]) for number in stopping.EXCEPTIONS] == [130, 143, 129]
