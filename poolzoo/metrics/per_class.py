"""Figures of single classes in words: what cannot be measured is a dash, never a zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAMED = 5  # classes that a sentence names


def figure(value: float | None) -> str:
    """A share of 0–1 with three digits; a dash where it is undefined."""
    return "–" if value is None else f"{value:.3f}"


def untested(per_class: Sequence[dict[str, Any]]) -> list[str]:
    """The classes without test images, of which nothing can be measured."""
    return [row["class"] for row in per_class if not row["n"]]


def about_untested(per_class: Sequence[dict[str, Any]]) -> str:
    """A sentence on the classes without test images; empty where every class has some."""
    return sentence(untested(per_class))


def sentence(names: Sequence[str]) -> str:
    """The same of the classes' names."""
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (
        f"No test image of {', '.join(names[:NAMED])}{more}: precision, recall and F1 are undefined there and left out "
        "of the means."
    )
