"""Outputs beside logits and probabilities: rules chosen on validation images, nodes in the graph, and what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from poolzoo.common import json_writer, output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.export.source import ExportSource
from poolzoo.metrics.abstention import CONFIDENCE, choose_abstention
from poolzoo.metrics.conformal import PredictionSets, choose_sets
from poolzoo.metrics.decisions import is_finite
from poolzoo.metrics.output_rules import ACCEPTED, PREDICTION_SET, OutputRules
from poolzoo.metrics.rules_report import RuleOptions, RulesReport
from poolzoo.parity.report import ParityReport
from poolzoo.runtime import rule_outputs
from poolzoo.runtime.ort_session import OnnxModel

PREFIX: Final = "poolzoo/"  # of the names of what is added to the graph
ABOVE_ONE: Final = np.float32(2)  # more than any probability


def choose(source: ExportSource, options: RuleOptions) -> OutputRules:
    """Chooses the rules on the validation images of a run.

    Raises:
        UsageError: An image has several labels, or there are no logits of validation images.
        CheckFailed: The images do not reach what is asked for; names what they reach.
    """
    if options.flag is None:
        return OutputRules()
    if source.decision.task.is_multilabel:
        text = f"{options.flag} is for one label per image, and {source.title} gives several"
        raise UsageError(text, f"export it without {options.flag}")
    validation = source.validation()
    if validation is None:
        text = f"{options.flag} needs the logits of validation images, and none are kept of {source.title}"
        raise UsageError(text, "poolzoo evaluate RUN --calibrate keeps them, where the images are still there")
    probabilities = _probabilities(source, validation.logits)
    target, coverage = options.abstain_at, options.set_coverage
    return OutputRules(
        abstention=choose_abstention(probabilities, validation.labels, target, options.confidence or CONFIDENCE)
        if target is not None
        else None,
        sets=choose_sets(probabilities, validation.labels, coverage) if coverage is not None else None,
    )


def warn(report: RulesReport) -> None:
    """Warns where test images show that a rule does not hold."""
    for found, target, what, images in report.misses:
        text = f"{found} {what} on {images} test images is below {target:g} by more than chance"
        output.warn(text, "the validation images may differ from them, or lower precision may cost it")


def tested(
    source: ExportSource, parity: ParityReport, precision: str, rules: OutputRules
) -> tuple[np.ndarray, np.ndarray] | None:
    """Calibrated probabilities `float[N, C]` and labels of test images; None without any, or with several labels.

    These are the images that a run keeps, through the graph itself. Rules in fp32, where the graph is checked to be the
    network, are measured on all test images of the run.

    Args:
        source: The network.
        parity: The check of the selected graph.
        precision: That of the graph.
        rules: The rules.
    """
    logits, labels = parity.logits, source.image_labels
    if rules.names and precision == "fp32" and (every := source.test()) is not None:
        logits, labels = every.logits, every.labels
    if labels is None or source.decision.task.is_multilabel:
        return None
    return _probabilities(source, logits), labels


def _probabilities(source: ExportSource, logits: np.ndarray) -> np.ndarray:
    """Calibrated probabilities, `float32[N, C]`; NaN where a logit is not finite."""
    finite = is_finite(logits)
    probabilities = np.full(logits.shape, np.nan, np.float32)
    probabilities[finite] = source.decision.probabilities(logits[finite])
    return probabilities


def add_outputs(proto: onnx.ModelProto, report: RulesReport) -> None:
    """Adds the outputs of rules to a graph, computed from `probabilities`, and the rules to its metadata.

    Args:
        proto: The graph, which is changed.
        report: The rules.
    """
    graph = proto.graph
    value = next(one for one in graph.output if one.name == "probabilities")
    batch, classes = value.type.tensor_type.shape.dim
    rows: int | str = batch.dim_param or batch.dim_value
    if report.rules.abstention is not None:
        _add_accepted(graph, report.rules.abstention.threshold)
        graph.output.append(helper.make_tensor_value_info(ACCEPTED, TensorProto.BOOL, [rows]))
    if report.rules.sets is not None:
        _add_sets(graph, report.rules.sets, classes.dim_value)
        shape = [rows, classes.dim_value]
        graph.output.append(helper.make_tensor_value_info(PREDICTION_SET, TensorProto.BOOL, shape))
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    rules = {key: json_writer.dumps(rule) for key, rule in report.to_json().items()}
    helper.set_model_props(proto, metadata | rules)
    onnx.checker.check_model(proto, full_check=True)


def _add_accepted(graph: onnx.GraphProto, threshold: float) -> None:
    """`threshold ≤ max(probabilities)`: OpenVINO's `GreaterOrEqual` is true of NaN."""
    axis, least = _constant(graph, "axis", np.array([1])), _constant(graph, "threshold", np.float32(threshold))
    largest = _node(graph, "ReduceMax", ["probabilities", axis], "largest", keepdims=0)
    graph.node.append(helper.make_node("LessOrEqual", [least, largest], [ACCEPTED], name=PREFIX + ACCEPTED))


def _add_sets(graph: onnx.GraphProto, rule: PredictionSets, classes: int) -> None:
    """The computation of `PredictionSets.members`: classes at least as probable as the last that is reached."""
    places = _constant(graph, "places", np.array([rule.places(classes)]))
    penalties = _constant(graph, "penalties", rule.penalties(classes))
    quantile = _constant(graph, "quantile", np.float32(rule.quantile))
    second = _constant(graph, "second_axis", np.array(1))
    none = _constant(graph, "above_one", ABOVE_ONE)
    axes = _constant(graph, "axes", np.array([1]))
    names = [f"{PREFIX}ranked", f"{PREFIX}ranks"]
    graph.node.append(helper.make_node("TopK", ["probabilities", places], names, name=f"{PREFIX}TopK", axis=1))
    before = _node(graph, "CumSum", [names[0], second], "before", exclusive=1)
    scores = _node(graph, "Add", [before, penalties], "scores")
    reached = _node(graph, "LessOrEqual", [scores, quantile], "reached")
    kept = _node(graph, "Where", [reached, names[0], none], "kept")
    least = _node(graph, "ReduceMin", [kept, axes], "least", keepdims=1)
    last = helper.make_node("LessOrEqual", [least, "probabilities"], [PREDICTION_SET], name=PREFIX + PREDICTION_SET)
    graph.node.append(last)


def _constant(graph: onnx.GraphProto, name: str, value: np.ndarray | np.generic) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), PREFIX + name))
    return PREFIX + name


def _node(graph: onnx.GraphProto, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
    made = helper.make_node(operator, inputs, [PREFIX + name], name=f"{PREFIX}{operator}_{name}", **attributes)
    graph.node.append(made)
    return PREFIX + name


def require_right(file: Path, model: OnnxModel, images: np.ndarray) -> None:
    """Makes sure that a graph gives what its rules say.

    Raises:
        CheckFailed: It does not.
    """
    for name, passed, detail in rule_outputs.checks(file, model, images):
        if not passed:
            raise CheckFailed(f"output {name}: {detail}", "nothing was written; report it as a bug")
