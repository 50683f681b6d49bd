"""The rules that make outputs of a bundle out of its probabilities: which images it accepts, and sets of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from poolzoo.metrics.abstention import Abstention
    from poolzoo.metrics.conformal import PredictionSets

ABSTENTION, PREDICTION_SETS = "abstention", "prediction_sets"  # keys of the rules in `config.json` and metadata
ACCEPTED: Final = "accepted"  # the outputs of a graph
PREDICTION_SET: Final = "prediction_set"


@dataclass(frozen=True)
class OutputRules:
    """What a bundle gives beside logits and probabilities; None where it was not asked for.

    Attributes:
        abstention: Makes `accepted`, `bool[N]`.
        sets: Makes `prediction_set`, `bool[N, C]`.
    """

    abstention: Abstention | None = None
    sets: PredictionSets | None = None

    @property
    def names(self) -> list[str]:
        """The outputs that they make."""
        return [*([ACCEPTED] if self.abstention else []), *([PREDICTION_SET] if self.sets else [])]

    def outputs(self, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name, of probabilities `float[N, C]`; none without rules."""
        found: dict[str, np.ndarray] = {}
        if self.abstention is not None:
            found[ACCEPTED] = self.abstention.accept(probabilities)
        if self.sets is not None:
            found[PREDICTION_SET] = self.sets.members(probabilities)
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> OutputRules:
        """Reads the rules under the keys `abstention` and `prediction_sets`; bundles of earlier versions have none.

        Raises:
            ValueError: One is no rule.
        """
        abstention, sets = None, None
        if (threshold := found.get(ABSTENTION)) is not None:
            from poolzoo.metrics.abstention import Abstention

            abstention = Abstention.from_json(threshold)
        if (quantile := found.get(PREDICTION_SETS)) is not None:
            from poolzoo.metrics.conformal import PredictionSets

            sets = PredictionSets.from_json(quantile)
        return cls(abstention, sets)


NO_RULES: Final = OutputRules()
