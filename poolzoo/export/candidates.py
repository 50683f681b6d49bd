"""Which precision to ship: all that were asked for, compared with the network and timed against one another, here.

int8 may be several times as fast as fp32 or several times as slow, and accuracy hides what it does to single images.
So nothing is assumed: the fastest one within the user's limits is kept, and it is said why the others are not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from poolzoo.common import output, timing
from poolzoo.common.errors import CheckFailed
from poolzoo.export import graph, precision
from poolzoo.export.source import ExportSource
from poolzoo.parity.layers import Layers
from poolzoo.parity.parity import Limits, Parity, by_limits
from poolzoo.parity.reference import Reference
from poolzoo.runtime import half_arithmetic, ort_session

# What each choice of `--precision` tries, beside fp32.
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "fp32": (),
    "fp16": ("fp16",),
    "int8": ("int8-static", "int8-dynamic"),
    "auto": ("fp16", "int8-static", "int8-dynamic"),
}
TIMED: Final = 32  # batch size, beside 1; smaller for images so large that three graphs would fill the memory
FASTER: Final = 1.05  # than fp32 by so much, or `auto` keeps fp32: what is exact is not given up for noise


@dataclass(frozen=True)
class Candidate:
    """A graph that could be shipped, opened, and what was found of it."""

    precision: str
    file: Path
    opened: ort_session.OnnxModel
    parity: Parity


def lowered(
    choice: str,
    fp32: Candidate,
    names: Layers,
    source: ExportSource,
    kind: str,
    reference: Reference,
    limits: Limits,
    open_: Callable[[Path], ort_session.OnnxModel],
) -> list[Candidate]:
    """The lower precisions that a choice names, each converted, opened and compared with the network.

    Raises:
        CheckFailed: The only one that was asked for cannot be made; one of several is left out with a line.
    """
    found = []
    if "int8-static" in CHOICES[choice] and source.image_labels is None:
        output.warn("int8 is calibrated on synthetic images, since none come with the network")
    for name in CHOICES[choice]:
        output.say(f"trying {name}")
        file = fp32.file.with_name(f"{name}.onnx")
        try:
            images = source.calibration
            if name == "fp16":  # what overflows may do so on edge images alone
                images = np.concatenate([reference.images[: reference.edge_count], images[: precision.RANGED]])
            inside = precision.lower(name, fp32.file, file, names, fp32.opened.to_input(images))
            proto = onnx.load(file)
            graph.describe(proto, source, kind, name, inside)
            onnx.save(proto, file)
            opened = open_(file)
            verdict = by_limits(reference, opened, limits)
            if inside:
                verdict.report["inside"] = inside
            if name == "fp16":
                in_half_arithmetic(verdict, proto, opened, reference, limits)
            found.append(Candidate(name, file, opened, verdict))
        except OSError:
            raise
        except Exception as error:  # ONNX Runtime's converters raise what they like
            text = f"{name} cannot be made: {type(error).__name__}: {error}"
            if ort_session.is_out_of_memory(error):
                text = f"{name} cannot be made in this memory, not even from one image at a time"
            if CHOICES[choice] == (name,):
                raise CheckFailed(text, "export it with --precision fp32") from error
            output.warn(text, "it is left out")
    if choice != "fp32" and not found:
        raise CheckFailed(f"no {choice} could be made", "export it with --precision fp32")
    return found


def in_half_arithmetic(
    verdict: Parity, proto: onnx.ModelProto, opened: ort_session.OnnxModel, reference: Reference, limits: Limits
) -> None:
    """Adds to a verdict what the graph gives in half arithmetic; it must hold there too."""
    rows = half_arithmetic.chosen(len(verdict.golden["images"]))
    found = half_arithmetic.logits(proto, opened.to_input(verdict.golden["images"][rows]))
    judged = half_arithmetic.judge(found, reference.float32[0][rows], rows >= reference.edge_count, limits.agreement)
    verdict.report["half"] = judged
    if not judged["passed"]:
        verdict.report["passed"] = False
        verdict.report["lost"] = "; ".join(filter(None, [verdict.report["lost"], half_arithmetic.explain(judged)]))


def choose(
    choice: str, found: list[Candidate], images: np.ndarray, batch: int = TIMED
) -> tuple[Candidate, list[dict[str, Any]]]:
    """Times the candidates against one another and keeps one.

    Args:
        choice: What was asked for, a key of `CHOICES`.
        found: The candidates, fp32 first.
        images: Images to take batches from, `uint8[N, H, W, 3]`.
        batch: The larger of the two batch sizes that are timed.

    Returns:
        The one to ship (where none that was asked for is within the limits, the fastest of those), and the report's
        `candidates`, each with why it lost.
    """
    times = _times(found, images) if batch == TIMED else _times(found, images, batch)
    wanted = [one for one in found if choice in ("fp32", "auto") or one.precision != "fp32"]
    speedups = {
        one.precision: {size: timing.ratio(by["fp32"], by[one.precision]) for size, by in times.items()}
        for one in found
    }
    overall = {name: statistics.geometric_mean(of.values()) for name, of in speedups.items()}
    fine = [one for one in wanted if one.parity.passed] or wanted
    best = max(fine, key=lambda one: overall[one.precision])
    if choice == "auto" and overall[best.precision] < FASTER:
        best = found[0]
    rows = []
    for one in found:
        figures, name = one.parity.report, one.precision
        accuracy = figures.get("accuracy")
        rows.append(
            {
                "precision": name,
                "chosen": one is best,
                "passed": one.parity.passed,
                "agreement": figures["top1_agreement"],
                "accuracy": accuracy and accuracy["onnxruntime"],
                "accuracy_drop": accuracy and accuracy["torch"] - accuracy["onnxruntime"],
                "max_abs": figures["max_abs"],
                "cosine": figures["cosine"],
                "ort_ms": {str(size): round(statistics.median(by[name]), 4) for size, by in times.items()},
                "speedup": {str(size): round(of, 3) for size, of in speedups[name].items()},
                "bytes": one.file.stat().st_size,
                "lost": None if one is best else _why(one, best, overall, asked_for=one in wanted),
            }
        )
    return best, rows


def say_what_ships(choice: str, rows: list[dict[str, Any]]) -> None:
    """Says so where what ships is slower than fp32, or is not the first form of what was asked for, with its speed."""
    chosen = next(row for row in rows if row["chosen"])
    asked = CHOICES[choice]
    if choice in ("fp32", "auto") or chosen["precision"] not in asked:
        return
    speed = " and ".join(f"{gain:.2f} times at batch {size}" for size, gain in chosen["speedup"].items())
    if chosen["precision"] != asked[0]:
        why = next((row["lost"] for row in rows if row["precision"] == asked[0]), "which cannot be made")
        output.warn(f"{chosen['precision']} ships instead of {asked[0]} ({why}); its speed is that of fp32 {speed}")
    elif statistics.geometric_mean(chosen["speedup"].values()) < 1:
        output.warn(f"{chosen['precision']} is slower than fp32 here: its speed is that of fp32 {speed}")


def _why(one: Candidate, best: Candidate, overall: dict[str, float], *, asked_for: bool) -> str:
    """Why a candidate was not kept."""
    if not asked_for:
        return "not asked for"
    if not one.parity.passed:
        return str(one.parity.report.get("lost") or "it failed parity")
    if best.precision == "fp32" and overall[one.precision] >= 1:
        return f"{overall[one.precision]:.2f} times as fast as fp32, which is too little to give up exactness for"
    return f"slower than {best.precision} by a factor of {overall[best.precision] / overall[one.precision]:.2f}"


def _times(found: list[Candidate], images: np.ndarray, batch: int = TIMED) -> dict[int, dict[str, list[float]]]:
    """Milliseconds by batch size and precision; a single candidate needs no race."""
    times = {}
    for size in sorted({1, batch}):
        given = images[np.arange(size) % len(images)]
        calls = {one.precision: (lambda model=one.opened, given=given: model.run(given)) for one in found}
        times[size] = timing.interleaved(calls, seconds=1.0 if len(found) == 1 else 3.0)
    return times
