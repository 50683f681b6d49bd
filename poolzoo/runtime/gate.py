"""Does a runtime compute what the bundle says? One session, all cases, batches of several sizes one after another.

In float32 arithmetic, each case has its tolerance (see `cases`). Lower arithmetic is a graph in fp16 or int8, or
precision "auto". There a logit may be off by a sixteenth of the largest one, or by the tolerance that the bundle
stores. The predicted class must agree on as many natural images as the bundle's limits say; one may always differ.
Where an image has several labels, the Jaccard index of the sets of labels counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from poolzoo.metrics.decisions import ONE_LABEL, Decision
from poolzoo.runtime import tolerance
from poolzoo.runtime.cases import LOWER, Cases, CaseSet
from poolzoo.runtime.process import Answer
from poolzoo.runtime.verify import Check

BATCHES: Final = (1, 2, 7)
LARGE: Final = 64  # images at once, as `predict` runs them
SYNTHETIC_BATCH: Final = 3
SOFTMAX, SOFTMAX_LOWER = 1e-5, 1e-2  # how far probabilities may be from the softmax, or sigmoid, of the logits

Run = Callable[[np.ndarray], Answer]


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """What the gate found of a session.

    Attributes:
        checks: Every check, in order.
        max_abs, allowed: The difference and the tolerance of the case closest to its limit; None where one answer is
            not finite.
        case: Its name.
        first_ms: Milliseconds of the first batch.
    """

    checks: tuple[Check, ...]
    max_abs: float | None
    allowed: float | None
    case: str
    first_ms: float

    @property
    def failure(self) -> Check | None:
        """The first check that failed; None where all passed."""
        return next((check for check in self.checks if not check.passed), None)


@dataclass(frozen=True)
class _Closest:
    case: str
    difference: float
    allowed: float
    ratio: float


class _Gate:
    """Compares answers and collects checks."""

    def __init__(self, cases: CaseSet, *, lower: bool) -> None:
        self.lower = lower
        self.agreement = cases.agreement
        self.decision = cases.decision
        both = (cases.golden, cases.synthetic, *cases.photographs)
        self.largest = max(float(np.abs(one.logits).max()) for one in both)
        self.checks: list[Check] = []
        self.closest = _Closest("", 0.0, 0.0, -1.0)
        self.changed = False
        self.off = 0.0
        self.lost: dict[str, float] = {}

    def compare(self, id: str, cases: Cases, logits: np.ndarray, probabilities: np.ndarray) -> None:
        """Adds a check of the answers to all cases."""
        if logits.shape != cases.logits.shape:
            text = f"gives {logits.shape[1]} classes, the bundle has {cases.logits.shape[1]}"
            self.checks.append(Check(id, False, text))
            return
        bad = ~(np.isfinite(logits).all(1) & np.isfinite(probabilities).all(1))
        if bad.any():
            named = [name for name, is_bad in zip(cases.names, bad, strict=True) if is_bad]
            more = f" and {len(named) - 5} more" if len(named) > 5 else ""
            self.checks.append(Check(id, False, f"NaN or infinity on {', '.join(named[:5])}{more}"))
            return
        difference = np.abs(logits.astype(np.float64) - cases.logits).max(1)
        allowed = cases.allowed.astype(np.float64)
        if self.lower:
            allowed = np.maximum(allowed, LOWER * self.largest)
        else:
            difference = tolerance.apart((logits, probabilities), (cases.logits, cases.probabilities))
        worst, ratio = tolerance.closest_to_limit(difference, allowed)
        found = _Closest(cases.names[worst], float(difference[worst]), float(allowed[worst]), ratio)
        if ratio > self.closest.ratio:
            self.closest = found
        text = f"{found.case} is off by {found.difference:.2e}, {found.allowed:.2e} is allowed"
        self.checks.append(Check(id, ratio <= 1.0, text))
        self.off = max(self.off, probability_distance(self.decision, logits, probabilities))
        lost = (1 - self.decision.agreement(logits, cases.logits)).tolist()
        for name, natural, share in zip(cases.names, cases.natural, lost, strict=True):
            if natural:
                self.lost[name] = max(self.lost.get(name, 0.0), share)

    def finish(self) -> None:
        """Adds the checks over everything that was compared."""
        limit = SOFTMAX_LOWER if self.lower else SOFTMAX
        function = probability_function(self.decision)
        text = f"probabilities are {self.off:.1e} off the {function} of the logits, {limit:g} is allowed"
        self.checks.append(Check(function, self.off <= limit, text))
        if self.lower and self.lost:
            lost, total = sum(self.lost.values()), len(self.lost)
            most = max(1.0, (1 - self.agreement) * total)
            text = f"{lost:g} of {total} natural images have another class, {int(most)} may"
            if self.decision.task.is_multilabel:
                text = (
                    f"label sets agree on {1 - lost / total:.4f} of {total} natural images, {1 - most / total:.4f} must"
                )
            self.checks.append(Check("agreement", lost <= most, text))
        text = "changes the images that it is given" if self.changed else "leaves the images as they are"
        self.checks.append(Check("input", not self.changed, text))


def judge(run: Run, cases: CaseSet, *, precision: str = "fp32") -> Judgment:
    """Judges one session.

    Args:
        run: Runs a batch in it.
        cases: What it is judged on.
        precision: "fp32", or "auto" where it may compute in lower arithmetic.

    Raises:
        RuntimeFailed: The session fails.
    """
    gate = _Gate(cases, lower=cases.lower or precision != "fp32")
    first_ms: list[float] = []

    def answers(part: Cases, size: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [run(part.images[rows[start : start + size]]) for start in range(0, len(rows), size)]
        first_ms.append(found[0].ms)
        gate.changed = gate.changed or any(one.changed for one in found)
        back = np.argsort(rows)
        logits = np.concatenate([one.logits for one in found])[back]
        return logits, np.concatenate([one.probabilities for one in found])[back]

    golden, synthetic = cases.golden, cases.synthetic
    whole = np.arange(len(golden))
    for size in (*BATCHES, len(golden)):
        logits, probabilities = answers(golden, size, whole)
        gate.compare(f"golden-batch-{size}", golden, logits, probabilities)
    repeated = golden.rows(np.arange(LARGE) % len(golden))
    gate.compare(f"golden-batch-{LARGE}", repeated, *answers(repeated, LARGE, np.arange(LARGE)))
    again, _ = answers(golden, len(golden), whole)
    gate.checks.append(_repeated(logits, again, golden))
    gate.compare("synthetic", synthetic, *answers(synthetic, len(synthetic), np.arange(len(synthetic))))
    backwards = np.arange(len(synthetic))[::-1]
    gate.compare(
        f"synthetic-batch-{SYNTHETIC_BATCH}-reversed", synthetic, *answers(synthetic, SYNTHETIC_BATCH, backwards)
    )
    for photograph in cases.photographs:
        gate.compare(photograph.names[0], photograph, *answers(photograph, 1, np.array([0])))
    gate.finish()
    finite = gate.closest.ratio >= 0
    return Judgment(
        checks=tuple(gate.checks),
        max_abs=gate.closest.difference if finite else None,
        allowed=gate.closest.allowed if finite else None,
        case=gate.closest.case,
        first_ms=first_ms[0],
    )


def _repeated(first: np.ndarray, again: np.ndarray, cases: Cases) -> Check:
    """Whether the same batch has the same answer twice, but for the order of sums in several threads."""
    if first.shape != again.shape or first.shape != cases.logits.shape:
        return Check("repeat", False, f"gives {list(first.shape)} and then {list(again.shape)} for the same batch")
    apart = tolerance.distances(first.astype(np.float64), again).max(1)
    worst, ratio = tolerance.closest_to_limit(apart, cases.allowed)
    text = f"the same batch twice: {cases.names[worst]} differs by {apart[worst]:.2e}"
    return Check("repeat", ratio <= 1.0 and np.array_equal(np.isfinite(first), np.isfinite(again)), text)


def require_golden(run: Run, golden: Cases, *, lower: bool, decision: Decision = ONE_LABEL) -> None:
    """Makes sure that a session gives the stored outputs of a bundle, in one batch, before its labels are used.

    Raises:
        ValueError: It does not; says why.
        RuntimeFailed: The session fails.
    """
    every = CaseSet(golden=golden, synthetic=golden, photographs=(), lower=lower, agreement=0.0, decision=decision)
    gate = _Gate(every, lower=lower)
    answer = run(golden.images)
    gate.compare("golden", golden, answer.logits, answer.probabilities)
    gate.finish()
    if failed := next((check for check in gate.checks if not check.passed), None):
        raise ValueError(failed.detail)


def probability_function(decision: Decision) -> str:
    """The name of the function that makes probabilities of logits."""
    return "sigmoid" if decision.task.is_multilabel else "softmax"


def probability_distance(decision: Decision, logits: np.ndarray, probabilities: np.ndarray) -> float:
    """How far probabilities are from those of the logits at most."""
    return float(np.abs(decision.probabilities(logits) - probabilities).max())
