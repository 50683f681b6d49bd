"""Would another map of logits to probabilities be better than a temperature? Of finished runs, without training.

python -m benchmarks.export.calibration_families RUN...

Every family is fitted on the logits that the validation images have after the temperature, `validation.npz`, by the
least negative log-likelihood (NLL). Held-out change is that of the NLL in five-fold cross-validation on these images,
against the temperature; the test columns are on `test.npz`. z counts standard errors of paired differences. A family
would be worth its place if its held-out change were below 0 beyond chance, on several backbones.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from benchmarks.export.calibration_maps import change, logits_of
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.metrics import calibration_fit, held_out
from poolzoo.metrics.calibration import CORNER, Calibration
from poolzoo.metrics.intervals import calibration_error

HEADERS: Final = ("run", "family", "numbers", "held-out change", "z", "test NLL", "change", "z", "ECE", "order kept")
KNOTS: Final = np.array([-2.0, 0.0, 1.0, 2.0, 4.0, 8.0])  # of the log odds of the top class


@dataclass(frozen=True)
class Family:
    """Maps of logits `float64[N, K]` to others by a few numbers.

    Attributes:
        name: What it is.
        map: The new logits, from logits and numbers.
        start: The numbers that change nothing, or almost nothing. Their prior is normal around these, and weighs as
            much as one image.
    """

    name: str
    map: Callable[[np.ndarray, np.ndarray], np.ndarray]
    start: tuple[float, ...]


def by_entropy(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    """A temperature that depends on the entropy of the probabilities."""
    logs = log_softmax(z, 1)
    entropy = -(np.exp(logs) * logs).sum(1, keepdims=True) / np.log(z.shape[1])
    return np.asarray(z * np.exp(p[0] + p[1] * entropy))


def by_top(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    """A temperature that depends on the largest probability, as a polynomial of it."""
    top = softmax(z, 1).max(1, keepdims=True) - 0.8
    return np.asarray(z * np.exp(np.polyval(p[::-1], top)))


def by_spread(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    """A temperature that depends on the standard deviation of the logits."""
    return np.asarray(z * np.exp(p[0] + p[1] * np.log(z.std(1, keepdims=True) / 2)))


def ensemble(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Probabilities with a temperature, without one, and uniform ones, mixed (Zhang, Kailkhura and Han, ICML 2020)."""
    weights = softmax([0.0, p[1], p[2]])
    mixed = weights[0] * softmax(z * np.exp(p[0]), 1) + weights[1] * softmax(z, 1) + weights[2] / z.shape[1]
    return np.asarray(np.log(mixed))


def _of_top(z: np.ndarray, odds: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """New log odds of the top class, from the logarithms of its probability and of the rest; the rest keeps its shares.

    A map of the top probability changes the class where it falls below that of another one.
    """
    logs, rows, top = log_softmax(z, 1), np.arange(len(z)), z.argmax(1)
    others = logs.copy()
    others[rows, top] = -np.inf
    rest = logsumexp(others, 1)
    new = odds(logs[rows, top], rest)
    others += (-np.logaddexp(0, new) - rest)[:, None]
    others[rows, top] = -np.logaddexp(0, -new)
    return others


def shifted_top(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Platt's scale and shift of the log odds of the top class."""
    return _of_top(z, lambda top, rest: np.exp(p[0]) * (top - rest) + p[1])


def beta_top(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Beta calibration of the top probability (Kull, Silva Filho and Flach, AISTATS 2017)."""
    return _of_top(z, lambda top, rest: np.exp(p[0]) * top - np.exp(p[1]) * rest + p[2])


def spline_top(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    """A piecewise linear, monotone map of the log odds of the top class, in the spirit of Gupta et al., ICLR 2021."""
    values = KNOTS[0] + p[0] + np.concatenate([[0.0], np.cumsum(np.diff(KNOTS) * np.exp(p[1:]))])
    return _of_top(z, lambda top, rest: np.interp(top - rest, KNOTS, values) + np.maximum(top - rest - KNOTS[-1], 0))


def power(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    """A power of the distances to the largest logit, which keeps the order of classes (Rahimi et al., NeurIPS 2020)."""
    distances = z.max(1, keepdims=True) - z
    return np.asarray(-((np.exp(p[0]) * distances + 1e-9) ** np.exp(p[1])))


def unsmoothed(z: np.ndarray, p: np.ndarray, corner: float = CORNER) -> np.ndarray:
    """Probabilities less what label smoothing gives each class; `unsmoothing` fits it with the usual corner."""
    smoothing = p[1] / z.shape[1]
    x = softmax(z * np.exp(p[0]), 1) - smoothing
    return np.asarray(np.log(x + np.hypot(x, corner * smoothing)))


FAMILIES: Final = (
    Family("power of distances", power, (0.0, 0.0)),
    Family("label smoothing taken back", unsmoothed, (0.0, 0.0)),
    Family("the same, sharper corner", partial(unsmoothed, corner=CORNER / 2), (0.0, 0.0)),
    Family("the same, softer corner", partial(unsmoothed, corner=2 * CORNER), (0.0, 0.0)),
    Family("temperature by entropy", by_entropy, (0.0, 0.0)),
    Family("temperature by top probability", by_top, (0.0, 0.0)),
    Family("the same, quadratic", by_top, (0.0, 0.0, 0.0)),
    Family("temperature by spread", by_spread, (0.0, 0.0)),
    Family("ensemble of temperatures", ensemble, (0.0, -2.0, -6.0)),
    Family("Platt, top class", shifted_top, (0.0, 0.0)),
    Family("beta, top class", beta_top, (0.0, 0.0, 0.0)),
    Family("spline, top class", spline_top, (0.0,) * len(KNOTS)),
)


def fitted(family: Family, z: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The member of a family with the least NLL."""
    start = np.array(family.start)

    def objective(p: np.ndarray) -> float:
        return float(held_out.nll(family.map(z, p), labels).mean() + ((p - start) ** 2).sum() / (2 * len(z)))

    found = minimize(objective, start, method="L-BFGS-B").x
    return lambda logits: family.map(logits, found)


def rows(run: Path) -> list[tuple[str, ...]]:
    """A row of each family.

    Raises:
        UsageError: The run keeps no logits.
    """
    validation, test = logits_of(run)
    temperature = calibration_fit.fit(validation.logits, validation.labels, smoothing=False, vector=False).temperature
    z, judged = (Calibration(temperature).apply(part.logits) for part in (validation, test))
    before, test_before = held_out.nll(z, validation.labels), held_out.nll(judged, test.labels)
    found = []
    for family in FAMILIES:
        after = np.empty(len(z))
        for kept, others in held_out.folds(len(z)):
            after[others] = held_out.nll(
                fitted(family, z[kept], validation.labels[kept])(z[others]), validation.labels[others]
            )
        logits = fitted(family, z, validation.labels)(judged)
        test_after = held_out.nll(logits, test.labels)
        found.append(
            (
                f"{run.parent.name}/{run.name}",
                family.name,
                str(len(family.start)),
                *change(after - before),
                f"{test_after.mean():.4f}",
                *change(test_after - test_before),
                f"{calibration_error(logits, logits.argmax(1) == test.labels):.4f}",
                f"{(logits.argmax(1) == judged.argmax(1)).mean():.4f}",
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    given = parser.parse_args()
    try:
        output.table(HEADERS, [row for run in given.runs for row in rows(run)])
    except UsageError as error:
        parser.error(f"{error}; {error.hint}")


if __name__ == "__main__":
    main()
