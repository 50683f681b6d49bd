"""Whether a bundle decides as it says: its probabilities follow from its logits, and its files agree. Needs no onnx."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from poolzoo.metrics import decisions
from poolzoo.metrics.output_rules import OutputRules
from poolzoo.runtime.ort_session import OnnxModel

if TYPE_CHECKING:
    from poolzoo.artifacts.schema import Config

Found = tuple[str, bool, str]  # the name of a check, whether it passed, and a detail in words
EPS: Final = 2.0**-20  # of probabilities from float32 logits, as a share of the largest logit and 1
HALF_EPS: Final = 2.0**-9  # where logits or the softmax are float16


def checks(config: Config, model: OnnxModel, outputs: tuple[np.ndarray, np.ndarray]) -> Iterator[Found]:
    """Whether graph, metadata and `config.json` have the same labels, thresholds, calibration and rules.

    Args:
        config: The bundle's `config.json`.
        model: The graph, opened.
        outputs: Logits and probabilities that it gives for some images, `float32[N, classes]` each.

    Raises:
        CheckFailed: The metadata hold no such things.
        ValueError: `config.json` holds none.
    """
    yield _probabilities(model, *outputs)
    count = len(model.labels)
    recorded = decisions.recorded(config.get("task"), config.get("thresholds"), count, config.get("calibration"))
    rules = OutputRules.from_json(cast(Mapping[str, object], config.get("export", {})))
    pairs = {
        "labels": (model.labels, list(config.get("label_names", model.labels))),
        "thresholds": (model.decision.thresholds, recorded.thresholds),
        "calibration": (model.decision.calibration, recorded.calibration),
        "abstention": (model.rules.abstention, rules.abstention),
        "prediction sets": (model.rules.sets, rules.sets),
    }
    different = [name for name, (of_graph, of_config) in pairs.items() if of_graph != of_config]
    text = f"config.json and the graph's metadata have different {', '.join(different)}"
    yield "config", not different, text if different else "the graph's metadata say the same"


def _probabilities(model: OnnxModel, logits: np.ndarray, given: np.ndarray) -> Found:
    """Whether the graph's probabilities are those of its logits and the recorded calibration."""
    finite = decisions.is_finite(logits)
    expected = model.decision.probabilities(logits[finite])
    largest = model.decision.magnitudes(logits[finite])
    is_half = json.loads(model.metadata.get("precision", "null")) == "fp16"
    difference = np.abs(given[finite] - expected).max(1, initial=0.0)
    passed = bool((difference <= (HALF_EPS if is_half else EPS) * largest).all())
    calibrated = "calibrated logits" if model.decision.calibration else "logits"
    text = f"those of its {calibrated}, to {difference.max(initial=0.0):.1e}"
    return "probabilities", passed, text if passed else f"not {text}"
