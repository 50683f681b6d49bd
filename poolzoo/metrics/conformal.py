"""Prediction sets that hold the true class with a probability that was asked for. Needs numpy only.

Regularized adaptive prediction sets (RAPS): Angelopoulos, Bates, Malik and Jordan, Uncertainty Sets for Image
Classifiers using Conformal Prediction, ICLR 2021, arXiv:2009.14193. The score of a class is the probability of all
classes that are more probable, plus a penalty for each place beyond the first few. This is equation 4 with u = 0, so
that a graph computes the same set each time. The set holds every class whose score is at most a quantile of the scores
of the true classes of validation images. The most probable class has a score of 0, so no set is empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from poolzoo.common import json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.metrics.intervals import BY_CHANCE, Z_95, beta_binomial_cdf, clopper_pearson

PENALTIES: Final = (0.01, 0.1, 0.2, 0.5)  # that are tried; smaller ones make a graph sort more classes
TUNING: Final = 0.2  # the share of the validation images that choose the penalty, and not the quantile
MOST_PLACES: Final = 2**31 - 1  # without a penalty, in a file
ROUNDING: Final = 1e-6  # added to the quantile, so that rounding in float32 leaves no class out


@dataclass(frozen=True)
class PredictionSets:
    """The rule that makes a set of classes of the probabilities of an image.

    Attributes:
        coverage: The probability that the set holds the true class, which was asked for.
        quantile: The largest score of a class in the set, a float32 number.
        penalty: λ, added to the score for each place in the order of probability beyond `unpenalized`.
        unpenalized: k_reg, the number of places without a penalty, at least 1.
        images: Number of validation images that the quantile was chosen on.
    """

    coverage: float
    quantile: float
    penalty: float
    unpenalized: int
    images: int

    def places(self, classes: int) -> int:
        """How many of the most probable classes may be in a set: beyond these, the penalty alone is too large."""
        return math.floor(min(classes, self.unpenalized + self.quantile / self.penalty + ROUNDING))

    def penalties(self, classes: int) -> np.ndarray:
        """The penalty of the places that may be in a set, `float32[places]`."""
        place = np.arange(1, self.places(classes) + 1)
        return (self.penalty * np.maximum(place - self.unpenalized, 0)).astype(np.float32)

    def members(self, probabilities: np.ndarray) -> np.ndarray:
        """`float[N, C] → bool[N, C]`: which classes are in the set of an image.

        Classes of the same probability are in it together. Where probabilities are NaN, the set is empty.
        """
        chances = probabilities.astype(np.float32)
        ranked, scores = self._ranked(chances)
        least = np.where(scores <= np.float32(self.quantile), ranked, np.float32(2)).min(1, keepdims=True)
        members: np.ndarray = chances >= least
        return members

    def margins(self, probabilities: np.ndarray) -> np.ndarray:
        """How close the score of a class comes to the quantile, `float[N, C] → float64[N]`."""
        _, scores = self._ranked(probabilities.astype(np.float32))
        return np.asarray(np.abs(scores.astype(np.float64) - self.quantile).min(1))

    def _ranked(self, chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The most probable classes in descending order, and their scores, `float32[N, places]` each."""
        classes = chances.shape[1]
        ranked = -np.sort(-chances, 1)[:, : self.places(classes)]
        before = np.cumsum(np.pad(ranked, ((0, 0), (1, 0)))[:, :-1], 1, dtype=np.float32)
        return ranked, before + self.penalties(classes)

    def to_json(self) -> dict[str, object]:
        """The value of `prediction_sets` in `config.json` and in the metadata of a graph."""
        return {
            "coverage": self.coverage,
            "quantile": self.quantile,
            "penalty": self.penalty,
            "unpenalized": self.unpenalized,
            "validation": {"images": self.images},
        }

    @classmethod
    def from_json(cls, found: object) -> PredictionSets | None:
        """Reads what `to_json` wrote; None stands for no sets.

        Raises:
            ValueError: It is no rule.
        """
        if found is None:
            return None
        given = json_reader.mapping(found)
        quantile, penalty = json_reader.number(given.get("quantile")), json_reader.number(given.get("penalty"))
        unpenalized = json_reader.integer(given.get("unpenalized"))
        if quantile is None or penalty is None or unpenalized is None:
            raise ValueError("prediction sets with quantile, penalty and unpenalized")
        if not 0 <= quantile <= float(np.finfo(np.float32).max) or penalty <= 0 or not 1 <= unpenalized <= MOST_PLACES:
            raise ValueError("prediction sets with a quantile, a penalty above 0 and at least 1 place without it")
        return cls(
            coverage=json_reader.number(given.get("coverage")) or 0.0,
            quantile=quantile,
            penalty=penalty,
            unpenalized=unpenalized,
            images=json_reader.integer(json_reader.mapping(given.get("validation")).get("images")) or 0,
        )


@dataclass(frozen=True)
class SetMetrics:
    """What sets hold on images that did not choose them.

    Attributes:
        images: Number of images.
        covered: How many sets hold the true class.
        singletons: How many sets hold one class.
        mean_size: The mean number of classes in a set.
        size_sd: Its standard deviation over the images.
    """

    images: int
    covered: int
    singletons: int
    mean_size: float
    size_sd: float

    @property
    def coverage(self) -> float:
        """The share of sets that hold the true class."""
        return self.covered / self.images

    @property
    def coverage_interval(self) -> tuple[float, float]:
        """Its 95 % Clopper–Pearson interval."""
        return clopper_pearson(self.covered, self.images)

    @property
    def size_interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean size, by the normal distribution; at least one class."""
        half = Z_95 * self.size_sd / math.sqrt(self.images)
        return max(1.0, self.mean_size - half), self.mean_size + half

    def misses(self, rule: PredictionSets) -> bool:
        """Whether the images show, beyond chance, that the sets hold the true class too rarely.

        The coverage holds on average over draws of the validation images: for one draw it has a beta distribution.
        """
        place = _place(rule.images, rule.coverage)
        others = rule.images + 1 - place
        return others > 0 and beta_binomial_cdf(self.covered, self.images, place, others) < BY_CHANCE

    def to_json(self) -> dict[str, object]:
        """`test` of `prediction_sets` in `config.json`."""
        return {
            "images": self.images,
            "covered": self.covered,
            "coverage": self.coverage,
            "coverage_interval": list(self.coverage_interval),
            "singletons": self.singletons,
            "mean_size": self.mean_size,
            "mean_size_interval": list(self.size_interval),
            "size_sd": self.size_sd,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> SetMetrics:
        """Reads what `to_json` wrote.

        Raises:
            KeyError: A count is missing.
        """
        images, covered, singletons = (
            json_reader.integer(found[key]) or 0 for key in ("images", "covered", "singletons")
        )
        mean, sd = (json_reader.number(found[key]) or 0.0 for key in ("mean_size", "size_sd"))
        return cls(images=images, covered=covered, singletons=singletons, mean_size=mean, size_sd=sd)


def measure_sets(rule: PredictionSets, probabilities: np.ndarray, labels: np.ndarray) -> SetMetrics:
    """What sets hold on labeled images: calibrated probabilities `float[N, C]` and labels `int[N]`."""
    members = rule.members(probabilities)
    sizes = members.sum(1)
    return SetMetrics(
        images=len(labels),
        covered=int(members[np.arange(len(labels)), labels].sum()),
        singletons=int((sizes == 1).sum()),
        mean_size=float(sizes.mean()),
        size_sd=float(sizes.std()),
    )


def choose_sets(probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> PredictionSets:
    """Chooses the rule on validation images.

    A fifth of them, chosen with a fixed seed, choose the number of places without a penalty and the penalty, as in
    appendix E of the paper: the quantile of the place of the true class, and the penalty with the smallest sets. The
    others give the quantile of the scores: of `n` the `⌈(n + 1) · coverage⌉`-th smallest. So on average over draws of
    the images, a set holds the true class with at least this probability.

    Args:
        probabilities: Calibrated, `float[N, C]`.
        labels: `int[N]`.
        coverage: The probability with which a set is to hold the true class, 0–1.

    Raises:
        CheckFailed: The images are too few for this coverage.
    """
    finite = np.isfinite(probabilities).all(1)
    probabilities, labels = probabilities[finite].astype(np.float32), labels[finite]
    count = len(labels)
    order = np.random.default_rng(0).permutation(count)
    tuning, rest = np.split(order, [math.floor(TUNING * count)])
    if _place(len(rest), coverage) > len(rest):
        best = math.floor(1000 * len(rest) / (len(rest) + 1)) / 1000
        text = f"prediction sets with coverage {coverage:g} need more than {count} validation images"
        hint = f"the best that these reach is --prediction-sets {best:g}" if best else "validate on more images"
        raise CheckFailed(text, hint)
    ranks = 1 + (probabilities[tuning] > _own(probabilities[tuning], labels[tuning])).sum(1)
    place = min(_place(len(tuning), coverage), len(tuning))
    unpenalized = int(np.sort(ranks)[place - 1]) if place else 1
    sizes = {}
    for penalty in PENALTIES if len(tuning) else PENALTIES[:1]:
        rule = _rule(probabilities[tuning], labels[tuning], coverage, penalty, unpenalized)
        sizes[penalty] = float(rule.members(probabilities[tuning]).sum(1).mean()) if len(tuning) else 0.0
    best_penalty = min(sizes, key=lambda one: sizes[one])
    return _rule(probabilities[rest], labels[rest], coverage, best_penalty, unpenalized)


def _place(count: int, coverage: float) -> int:
    """The place of the conformal quantile among `count` scores in ascending order, from 1 on."""
    return math.ceil(round((count + 1) * coverage, 9))


def _own(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The probabilities of the labels, `float[N, 1]`."""
    return np.take_along_axis(probabilities, labels[:, None], 1)


def _rule(
    probabilities: np.ndarray, labels: np.ndarray, coverage: float, penalty: float, unpenalized: int
) -> PredictionSets:
    """The rule with the quantile of labeled images; with too few of these, of all scores the largest."""
    ahead = probabilities > _own(probabilities, labels)
    beyond = np.maximum(1 + ahead.sum(1) - unpenalized, 0)
    scores = np.sort(np.where(ahead, probabilities, 0).sum(1, dtype=np.float64) + penalty * beyond)
    place = min(_place(len(scores), coverage), len(scores))
    quantile = float(np.float32(scores[place - 1] + ROUNDING)) if place else 0.0
    return PredictionSets(
        coverage=coverage, quantile=quantile, penalty=penalty, unpenalized=unpenalized, images=len(labels)
    )
