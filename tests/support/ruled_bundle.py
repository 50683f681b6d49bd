"""The linear bundle with rules, whose outputs are worked out by loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from support.linear_bundle import LABELS, chances, linear_bundle

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.export import rule_outputs, script
from poolzoo.metrics.abstention import Abstention, Target
from poolzoo.metrics.conformal import PredictionSets
from poolzoo.metrics.output_rules import OutputRules
from poolzoo.metrics.rules_report import RulesReport

ABSTENTION = Abstention(
    threshold=0.5, target=Target("accuracy", 0.9), confidence=0.95, images=100, accepted=70, errors=3
)
SETS = PredictionSets(coverage=0.9, quantile=0.8, penalty=0.1, unpenalized=1, images=80)
BOTH = OutputRules(ABSTENTION, SETS)


def ruled_bundle(path: Path, kind: str = "uint8", rules: OutputRules = BOTH) -> Path:
    """`linear_bundle` with `accepted` and `prediction_set`, and its stand-alone script."""
    linear_bundle(path, kind)
    proto, report = onnx.load(path / "model.onnx"), RulesReport(rules)
    rule_outputs.add_outputs(proto, report)
    onnx.save(proto, path / "model.onnx")
    files.write_json(path / "config.json", {"export": report.to_json()})
    (path / "predict.py").write_text(script.render())
    manifest.write_manifest(path, "bundle")
    return path


def expected(pixels: np.ndarray) -> list[tuple[bool, list[str]]]:
    """Whether each image is accepted, and its set in descending order of probability."""
    found = []
    for row in chances(pixels):
        order = sorted(range(len(LABELS)), key=lambda place: -row[place])
        scores = [sum(row[order[:at]]) + SETS.penalty * at for at in range(len(order))]
        members = [LABELS[place] for place, score in zip(order, scores, strict=True) if score <= SETS.quantile]
        found.append((row.max() >= ABSTENTION.threshold, members))
    return found
