"""What is asked of the rules of a bundle, and what they do to images that did not choose them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from poolzoo.common import json_reader
from poolzoo.metrics.abstention import SelectiveMetrics, Target, measure
from poolzoo.metrics.conformal import SetMetrics, measure_sets
from poolzoo.metrics.output_rules import ABSTENTION, NO_RULES, PREDICTION_SETS, OutputRules
from poolzoo.metrics.risk_coverage import risk_coverage

Miss = tuple[str, float, str, int]  # what was found, what was asked for, of what, on how many images


@dataclass(frozen=True)
class RuleOptions:
    """What is asked of the outputs beside logits and probabilities.

    Attributes:
        abstain_at: What the accepted images must reach; None for no output `accepted`.
        confidence: Of a target of accuracy; None for 0.95.
        set_coverage: With which probability, 0–1, sets hold the true class; None for no output `prediction_set`.
    """

    abstain_at: Target | None = None
    confidence: float | None = None
    set_coverage: float | None = None

    @property
    def flag(self) -> str | None:
        """The option that asks for an output; None where none does."""
        return "--abstain-at" if self.abstain_at else "--prediction-sets" if self.set_coverage else None


@dataclass(frozen=True)
class RulesReport:
    """Rules, and what they do to images that did not choose them; None where there is no rule.

    Attributes:
        rules: The rules.
        selective: What abstention does.
        aurc: The area under the risk–coverage curve of these images, where there is abstention.
        sets: What sets hold.
    """

    rules: OutputRules = NO_RULES
    selective: SelectiveMetrics | None = None
    aurc: float | None = None
    sets: SetMetrics | None = None

    @property
    def misses(self) -> list[Miss]:
        """What the images show, beyond chance, not to be reached."""
        found: list[Miss] = []
        if self.rules.abstention is not None and self.selective is not None:
            target = self.rules.abstention.target
            if self.selective.misses(self.rules.abstention):
                share = self.selective.accuracy if target.kind == "accuracy" else self.selective.coverage
                what = "of the accepted images" if target.kind == "accuracy" else "of abstention"
                found.append((f"{target.kind} {share:.4f}", target.value, what, self.selective.images))
        if self.rules.sets is not None and self.sets is not None and self.sets.misses(self.rules.sets):
            share = self.sets.coverage
            found.append((f"coverage {share:.4f}", self.rules.sets.coverage, "of prediction sets", self.sets.images))
        return found

    def to_json(self) -> dict[str, dict[str, object]]:
        """The keys `abstention` and `prediction_sets` of `export` in `config.json`, where there is such a rule."""
        found: dict[str, dict[str, object]] = {}
        if self.rules.abstention is not None:
            found[ABSTENTION] = self.rules.abstention.to_json()
            if self.selective is not None:
                found[ABSTENTION]["test"] = {**self.selective.to_json(), "aurc": self.aurc}
        if self.rules.sets is not None:
            found[PREDICTION_SETS] = self.rules.sets.to_json()
            if self.sets is not None:
                found[PREDICTION_SETS]["test"] = self.sets.to_json()
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> RulesReport:
        """Reads what `to_json` wrote, beside other keys.

        Raises:
            ValueError, KeyError: Something is missing.
        """
        selective, sets = (json_reader.mapping(found.get(key)).get("test") for key in (ABSTENTION, PREDICTION_SETS))
        tested = json_reader.mapping(selective)
        return cls(
            rules=OutputRules.from_json(found),
            selective=SelectiveMetrics.from_json(tested) if tested else None,
            aurc=json_reader.number(tested.get("aurc")),
            sets=SetMetrics.from_json(json_reader.mapping(sets)) if sets else None,
        )


def measure_rules(rules: OutputRules, probabilities: np.ndarray, labels: np.ndarray) -> RulesReport:
    """Measures rules on labeled images: calibrated probabilities `float[N, C]` and labels `int[N]`."""
    if rules.abstention is None and rules.sets is None:
        return RulesReport()
    return RulesReport(
        rules=rules,
        selective=None if rules.abstention is None else measure(rules.abstention, probabilities, labels),
        aurc=None if rules.abstention is None else risk_coverage(probabilities, labels).aurc,
        sets=None if rules.sets is None else measure_sets(rules.sets, probabilities, labels),
    )
