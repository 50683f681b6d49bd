"""The page of `poolzoo choose`: the recommendation and what is behind it, then every comparison with its tables."""

from __future__ import annotations

from collections.abc import Sequence

from poolzoo.report import comparisons_page
from poolzoo.report.results import ComparisonResult


def html(
    data: str,
    sentences: Sequence[str],
    commands: Sequence[str],
    left_out: Sequence[str],
    comparisons: Sequence[tuple[str, ComparisonResult]],
) -> str:
    """The whole page, which needs nothing but a browser.

    Args:
        data: What was trained on.
        sentences: The recommendation.
        commands: What trains and exports it.
        left_out: What was not tried, in sentences.
        comparisons: Each with its heading, the one with the most accurate candidate first.
    """
    lead = [*sentences, *(f"`{one.replace('`', '')}`" for one in commands), *left_out]
    return comparisons_page.html(f"Which pooling for {data}?", lead, comparisons)
