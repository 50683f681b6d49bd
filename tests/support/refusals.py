"""Commands that are refused: what they leave behind."""

from __future__ import annotations

from typing import Any


def refused(outcome: Any, code: int, *words: object) -> str:
    """Checks that a command printed nothing but one error and a hint, which have these words; returns the hint."""
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    error, hint = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert all(str(word) in outcome.err for word in words), outcome.err
    return hint
