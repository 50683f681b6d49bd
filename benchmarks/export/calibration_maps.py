"""Maps of logits to probabilities, fitted on the validation images of finished runs and scored on their test images.

A second table has what chance does to the expected calibration error (ECE): labels of both splits are drawn from the
calibrated probabilities, which are then perfect, and a temperature is fitted to the drawn validation labels.

A third table asks whether validation and test images differ: the NLL of both, the best temperature of each, and the ECE
on one half of the test images, with the temperature of the other half or of as many validation images. Where the first
is as chance gives and the second is not, a temperature is right, and the validation images choose another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import samples
from poolzoo.artifacts.samples import ValidationLogits
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.metrics import calibration_fit, held_out, unsmoothing, vector_scaling
from poolzoo.metrics.calibration import Calibration
from poolzoo.metrics.intervals import Z_95, calibration_error

GOAL: Final = 0.015
DRAWS: Final = 200
SPLITS: Final = 10  # random halves of the test images
CHANCE_HEADERS = ("run", "perfect: ECE", "95 %", "met", "fitted T: ECE", "95 %", "met", "this run")
SPLIT_HEADERS = (
    "run",
    *("accuracy: val", "test", "NLL: val", "test", "z", "T: val", "test", "z"),
    *("half of test: T of val", "T of other half", "perfect"),
)
HEADERS = ("run", "map", "T", "smoothing", "chosen", "held-out NLL", "change", "z", "NLL", "change", "z", "ECE")


def logits_of(run: Path) -> tuple[ValidationLogits, ValidationLogits]:
    """Those of the validation and the test images of a run.

    Raises:
        UsageError: The run keeps no logits.
    """
    validation, test = samples.load_validation(run), samples.load_test(run)
    if validation is None or test is None:
        raise UsageError(f"run {run} keeps no logits", "it needs validation.npz and test.npz")
    return validation, test


def rows(run: Path) -> Iterator[tuple[str, ...]]:
    """Of each map: its parameters, the change of the NLL against the temperature, and the scores on test images.

    Raises:
        UsageError: The run keeps no logits.
    """
    validation, test = logits_of(run)
    fit = calibration_fit.fit(validation.logits, validation.labels)
    alone = Calibration(fit.temperature)
    unsmoothed = unsmoothing.fitted(validation.logits, validation.labels, alone)
    vector = vector_scaling.improved(validation.logits, validation.labels, alone)
    gains = unsmoothing.gains(validation.logits, validation.labels, alone)
    cross_validated = f"{_held_out_nll(validation.logits, validation.labels):.4f}"
    before = held_out.nll(alone.apply(test.logits), test.labels)
    maps = (("none", Calibration(1.0), None), ("temperature", alone, None), ("unsmoothing", unsmoothed, -gains))
    for name, one, held in (*maps, *([("vector", vector, None)] if vector else [])):
        logits = one.apply(test.logits)
        after = held_out.nll(logits, test.labels)
        yield (
            run.name,
            name,
            f"{one.temperature:.3f}",
            "" if one.smoothing is None else f"{one.smoothing:.3f}",
            "yes" if one.method == (fit.calibration.method if fit.calibration else "") and name != "none" else "",
            cross_validated if name == "temperature" else "",
            *(("", "") if held is None else change(held)),
            f"{after.mean():.4f}",
            *(("", "") if name == "temperature" else change(after - before)),
            f"{calibration_error(logits, logits.argmax(1) == test.labels):.4f}",
        )


def _held_out_nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean NLL of validation images with a temperature that was fitted on others of them."""
    found = np.empty(len(labels))
    for rows, others in held_out.folds(len(labels)):
        temperature = calibration_fit.fit(logits[rows], labels[rows], smoothing=False, vector=False).temperature
        found[others] = held_out.nll(Calibration(temperature).apply(logits[others]), labels[others])
    return float(found.mean())


def chance(run: Path) -> tuple[str, ...]:
    """The ECE of perfect probabilities, and with a temperature: mean, 95 % quantile, how often it meets the goal."""
    validation, test = logits_of(run)
    found = calibration_fit.fit(validation.logits, validation.labels)
    calibration = found.calibration or Calibration(1.0)
    held, judged = calibration.apply(validation.logits), calibration.apply(test.logits)
    generator = np.random.default_rng(0)
    perfect, fitted = np.empty(DRAWS), np.empty(DRAWS)
    for draw in range(DRAWS):
        labels = _drawn(held, generator)
        correct = judged.argmax(1) == _drawn(judged, generator)
        temperature = calibration_fit.fit(held, labels, smoothing=False, vector=False).temperature
        perfect[draw] = calibration_error(judged, correct)
        fitted[draw] = calibration_error(Calibration(temperature).apply(judged), correct)
    figures = [
        figure
        for errors in (perfect, fitted)
        for figure in (f"{errors.mean():.4f}", f"{np.quantile(errors, 0.95):.4f}", f"{(errors <= GOAL).mean():.0%}")
    ]
    return run.name, *figures, f"{calibration_error(judged, judged.argmax(1) == test.labels):.4f}"


def difference(run: Path) -> tuple[str, ...]:
    """How far validation and test images differ, and the ECE of halves of the test images."""
    validation, test = logits_of(run)
    found = [
        calibration_fit.fit(part.logits, part.labels, smoothing=False, vector=False) for part in (validation, test)
    ]
    alone = Calibration(found[0].temperature)
    losses = [held_out.nll(alone.apply(part.logits), part.labels) for part in (validation, test)]
    error = np.hypot(*(loss.std(ddof=1) / np.sqrt(len(loss)) for loss in losses))
    # The interval of T is that of 1 / T, which is symmetric.
    slopes = [1 / fit.temperature for fit in found]
    widths = [(1 / fit.interval[0] - 1 / fit.interval[1]) / (2 * Z_95) for fit in found]
    generator = np.random.default_rng(0)
    errors = np.array([_half_errors(validation, test, generator) for _ in range(SPLITS)]).mean(0)
    return (
        run.name,
        *(f"{(part.logits.argmax(1) == part.labels).mean():.4f}" for part in (validation, test)),
        *(f"{loss.mean():.4f}" for loss in losses),
        f"{(losses[1].mean() - losses[0].mean()) / error:+.1f}",
        *(f"{fit.temperature:.3f}" for fit in found),
        f"{(slopes[0] - slopes[1]) / np.hypot(*widths):+.1f}",
        *(f"{value:.4f}" for value in errors),
    )


def _half_errors(validation: ValidationLogits, test: ValidationLogits, generator: np.random.Generator) -> list[float]:
    """The ECE of a random half of the test images: with T of validation images, with T of the others, by chance."""
    order = generator.permutation(len(test.labels))
    judged, others = order[: len(order) // 2], order[len(order) // 2 :]
    drawn = generator.permutation(len(validation.labels))[: len(others)]
    errors = []
    for logits, labels in (
        (validation.logits[drawn], validation.labels[drawn]),
        (test.logits[others], test.labels[others]),
    ):
        temperature = calibration_fit.fit(logits, labels, smoothing=False, vector=False).temperature
        calibrated = Calibration(temperature).apply(test.logits[judged])
        errors.append(calibration_error(calibrated, calibrated.argmax(1) == test.labels[judged]))
    return [*errors, calibration_error(calibrated, calibrated.argmax(1) == _drawn(calibrated, generator))]


def _drawn(logits: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A label of each image from its softmax probabilities, by the Gumbel-max trick, `int64[N]`."""
    return np.asarray((logits + generator.gumbel(size=logits.shape)).argmax(1))


def change(differences: np.ndarray) -> tuple[str, str]:
    """The mean of paired differences, and its number of standard errors."""
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.4f}", f"{differences.mean() / error:+.1f}" if error else ""


def show(runs: Sequence[Path]) -> None:
    """Prints the three tables."""
    output.table(HEADERS, [row for run in runs for row in rows(run)])
    output.table(CHANCE_HEADERS, [chance(run) for run in runs])
    output.table(SPLIT_HEADERS, [difference(run) for run in runs])
    output.data(f"met: how often the ECE is at most {GOAL} in {DRAWS} draws")
