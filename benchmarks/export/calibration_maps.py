"""Maps of logits to probabilities, fitted on the validation images of finished runs and scored on their test images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from poolzoo.artifacts import samples
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.metrics import calibration_fit, held_out, power_scaling, vector_scaling
from poolzoo.metrics.calibration import Calibration
from poolzoo.metrics.intervals import calibration_error

HEADERS = ("run", "map", "T", "power", "chosen", "held-out change", "z", "NLL", "change", "z", "ECE")


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
            *(("", "") if held is None else _change(held)),
            f"{after.mean():.4f}",
            *(("", "") if name == "temperature" else _change(after - before)),
            f"{calibration_error(logits, logits.argmax(1) == test.labels):.4f}",
        )


def _change(differences: np.ndarray) -> tuple[str, str]:
    """The mean of paired differences, and its number of standard errors."""
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.4f}", f"{differences.mean() / error:+.1f}" if error else ""


def show(runs: Sequence[Path]) -> None:
    """Prints the table."""
    output.table(HEADERS, [row for run in runs for row in rows(run)])
