"""What several comparisons say together, as types: the content of `across.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from poolzoo.report.results import Delta


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval at `1 − alpha`, not adjusted for the number of variants."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One variant in one comparison: its gain over the baseline, 0–1, and whether it is significant there."""

    gain: float
    better: bool = False
    worse: bool = False


@dataclass(frozen=True, kw_only=True)
class AcrossVariant:
    """One variant over all comparisons of a group.

    Attributes:
        name: Its poolings.
        accuracy: Mean over comparisons, 0–1, with the weights of the gains.
        average_rank: Over test sets, 1 for the best.
        gain: Accuracy over the baseline's, 0–1, aggregated; None for the baseline.
        iqm, improvement, error_ratio: As in `compare.across.aggregate`; None for the baseline.
        better_in, worse_in: Number of comparisons in which the comparison itself found a significant difference.
        elsewhere_p: p of the signed-rank test over test sets against the baseline, adjusted by Holm.
        rests_on: The comparison without which a significant gain is not significant; None where there is none.
        verdict: "baseline", "better", "worse", "depends", "not significant" or "not tested".
    """

    name: str
    accuracy: float
    average_rank: float
    gain: Delta | None = None
    iqm: Interval | None = None
    improvement: Interval | None = None
    error_ratio: Interval | None = None
    better_in: int = 0
    worse_in: int = 0
    elsewhere_p: float | None = None
    rests_on: str | None = None
    verdict: str = "baseline"


@dataclass(frozen=True, kw_only=True)
class AcrossComparison:
    """One comparison in one backbone, as a page lists it.

    Attributes:
        name: Its directory or key, with the backbone where it has several.
        test_set: Comparisons with the same number share test images, or the name of their data.
        images_resampled: Whether its predictions were at hand.
        cells: By variant, also those that other comparisons lack.
        left_out: Why it takes no part in the aggregates; None where it does.
    """

    name: str
    data: str
    backbone: str
    test_set: int
    n_test: int
    seeds: int
    images_resampled: bool
    cells: Mapping[str, Cell]
    left_out: str | None = None


@dataclass(frozen=True, kw_only=True)
class AcrossGroup:
    """Comparisons that vary the same, such as global poolings, and what they say together.

    Attributes:
        title: What they vary.
        baseline: The variant that the others are compared with.
        comparisons: Those aggregated first, then those left out.
        test_sets: Number of distinct test sets among those aggregated.
        variants: Those that all aggregated comparisons have, the highest gain first.
        missing: Every other variant, with the number of aggregated comparisons that lack it.
        profile: For each variant the gains of its single runs, sorted; a performance profile is drawn from them.
        friedman_p: That variants keep their order over test sets only by chance; None for one test set.
        critical_difference: Nemenyi's, of average ranks; None for one test set.
        joined: First and last place, from 0, of stretches in the ranking in which no two variants differ.
        conclusions: In sentences.
    """

    title: str
    baseline: str
    comparisons: Sequence[AcrossComparison]
    test_sets: int
    variants: Sequence[AcrossVariant]
    missing: Mapping[str, int] = field(default_factory=dict)
    profile: Mapping[str, Sequence[float]] = field(default_factory=dict)
    friedman_p: float | None = None
    critical_difference: float | None = None
    joined: Sequence[tuple[int, int]] = ()
    conclusions: Sequence[str] = ()

    @property
    def aggregated(self) -> list[AcrossComparison]:
        """The comparisons that take part in the aggregates."""
        return [one for one in self.comparisons if one.left_out is None]


@dataclass(frozen=True, kw_only=True)
class AcrossResult:
    """What several comparisons say together.

    Attributes:
        schema: Version of the file's format.
        alpha: The level of the tests.
        resamples: Of the bootstrap.
        groups: One for each set of comparisons that vary the same.
        notes: What a reader of the figures has to know.
        command: As it was typed.
    """

    schema: int
    alpha: float
    resamples: int
    groups: Sequence[AcrossGroup]
    notes: Sequence[str] = ()
    command: str | None = None

    def to_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if value is not None}
