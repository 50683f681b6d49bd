"""Maps of logits to probabilities, fitted on the validation images of finished runs and scored on their test images.

A second table has what chance does to the expected calibration error (ECE): labels of both splits are drawn from the
calibrated probabilities, which are then perfect, and a temperature is fitted to the drawn validation labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import samples
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.metrics import calibration_fit, held_out, power_scaling, vector_scaling
from poolzoo.metrics.calibration import Calibration
from poolzoo.metrics.intervals import calibration_error

GOAL: Final = 0.015
DRAWS: Final = 200
CHANCE_HEADERS = ("run", "perfect: ECE", "95 %", "met", "fitted T: ECE", "95 %", "met", "this run")
HEADERS = ("run", "map", "T", "power", "chosen", "held-out NLL", "held-out change", "z", "NLL", "change", "z", "ECE")


def rows(run: Path) -> Iterator[tuple[str, ...]]:
    """Of each map: its parameters, the change of the NLL against the temperature, and the scores on test images.

    Raises:
        UsageError: The run keeps no logits.
    """
    validation, test = samples.load_validation(run), samples.load_test(run)
    if validation is None or test is None:
        raise UsageError(f"run {run} keeps no logits", "it needs validation.npz and test.npz")
    fit = calibration_fit.fit(validation.logits, validation.labels)
    alone = Calibration(fit.temperature)
    powered = power_scaling.fitted(validation.logits, validation.labels, alone)
    vector = vector_scaling.improved(validation.logits, validation.labels, alone)
    gains = power_scaling.gains(validation.logits, validation.labels, alone)
    cross_validated = f"{_held_out_nll(validation.logits, validation.labels):.4f}"
    before = held_out.nll(alone.apply(test.logits), test.labels)
    maps = (("none", Calibration(1.0), None), ("temperature", alone, None), ("power", powered, -gains))
    for name, one, held in (*maps, *([("vector", vector, None)] if vector else [])):
        logits = one.apply(test.logits)
        after = held_out.nll(logits, test.labels)
        yield (
            run.name,
            name,
            f"{one.temperature:.3f}",
            "" if one.power is None else f"{one.power:.3f}",
            "yes" if one.method == (fit.calibration.method if fit.calibration else "") and name != "none" else "",
            cross_validated if name == "temperature" else "",
            *(("", "") if held is None else _change(held)),
            f"{after.mean():.4f}",
            *(("", "") if name == "temperature" else _change(after - before)),
            f"{calibration_error(logits, logits.argmax(1) == test.labels):.4f}",
        )


def _held_out_nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean NLL of validation images with a temperature that was fitted on others of them."""
    found = np.empty(len(labels))
    for rows, others in held_out.folds(len(labels)):
        temperature = calibration_fit.fit(logits[rows], labels[rows], power=False, vector=False).temperature
        found[others] = held_out.nll(Calibration(temperature).apply(logits[others]), labels[others])
    return float(found.mean())


def chance(run: Path) -> tuple[str, ...]:
    """The ECE of perfect probabilities, and with a temperature: mean, 95 % quantile, how often it meets the goal."""
    validation, test = samples.load_validation(run), samples.load_test(run)
    assert validation is not None
    assert test is not None
    found = calibration_fit.fit(validation.logits, validation.labels)
    calibration = found.calibration or Calibration(1.0)
    held, judged = calibration.apply(validation.logits), calibration.apply(test.logits)
    generator = np.random.default_rng(0)
    perfect, fitted = np.empty(DRAWS), np.empty(DRAWS)
    for draw in range(DRAWS):
        labels = _drawn(held, generator)
        correct = judged.argmax(1) == _drawn(judged, generator)
        temperature = calibration_fit.fit(held, labels, power=False, vector=False).temperature
        perfect[draw] = calibration_error(judged, correct)
        fitted[draw] = calibration_error(Calibration(temperature).apply(judged), correct)
    figures = [
        figure
        for errors in (perfect, fitted)
        for figure in (f"{errors.mean():.4f}", f"{np.quantile(errors, 0.95):.4f}", f"{(errors <= GOAL).mean():.0%}")
    ]
    return run.name, *figures, f"{calibration_error(judged, judged.argmax(1) == test.labels):.4f}"


def _drawn(logits: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A label of each image from its softmax probabilities, by the Gumbel-max trick, `int64[N]`."""
    return np.asarray((logits + generator.gumbel(size=logits.shape)).argmax(1))


def _change(differences: np.ndarray) -> tuple[str, str]:
    """The mean of paired differences, and its number of standard errors."""
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.4f}", f"{differences.mean() / error:+.1f}" if error else ""


def show(runs: Sequence[Path]) -> None:
    """Prints both tables."""
    output.table(HEADERS, [row for run in runs for row in rows(run)])
    output.table(CHANCE_HEADERS, [chance(run) for run in runs])
    output.data(f"met: how often the ECE is at most {GOAL} in {DRAWS} draws")
