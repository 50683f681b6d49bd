"""The outputs `accepted` and `prediction_set` of a graph: their check, and a graph without them. Needs no onnx package.

Other runtimes than ONNX Runtime get a graph without them: sorting and boolean outputs are what they support least. The
host computes them from the probabilities and the metadata then, as `predict` does in every runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.metrics.output_rules import ACCEPTED, PREDICTION_SET, OutputRules
from poolzoo.runtime import onnx_file, ort_session
from poolzoo.runtime.ort_session import OnnxModel

PLAIN: Final = ("logits", "probabilities")
PLANTED: Final = 256  # rows of probabilities that the rules' part of the graph is checked on
ROUNDING: Final = 1e-5  # a score so close to the quantile may fall on either side, where sums are rounded otherwise

Found = tuple[str, bool, str]  # the name of a check, whether it passed, and a detail in words


def without(content: bytes) -> bytes | None:
    """A graph with the outputs `logits` and `probabilities` alone, as bytes; None where it has no others."""
    graph = onnx_file.Graph(content)
    return graph.with_only(PLAIN) if {ACCEPTED, PREDICTION_SET} & graph.outputs.keys() else None


def checks(file: Path, model: OnnxModel, images: np.ndarray) -> Iterator[Found]:
    """Whether a graph gives what its rules say: for images, and for planted probabilities around the thresholds.

    Args:
        file: The graph.
        model: The graph, opened.
        images: `uint8[N, H, W, 3]`.

    Raises:
        CheckFailed: The rules in the metadata are none.
    """
    rules, outputs = model.rules, {one.name for one in model.session.get_outputs()}
    for name, why in ((ACCEPTED, rules.abstention), (PREDICTION_SET, rules.sets)):
        if (why is None) != (name not in outputs):
            yield name, False, "the graph and its metadata do not agree on whether there is this output"
            return
    names = rules.names
    if not names:
        return
    probabilities, *given = model.run_outputs(["probabilities", *names], images)
    graph, planted = onnx_file.read(file), _planted(rules, len(model.labels))
    for name, answer in zip(names, given, strict=True):
        part = graph.subgraph("probabilities", name, planted)
        session = ort_session.open_session(part, ort_session.PROVIDERS["cpu"], 1)
        (of_planted,) = session.run([name], {"probabilities": planted})
        wrong = _differing(rules, name, probabilities, answer)
        if not wrong:
            wrong = _differing(rules, name, planted, of_planted)
        text = wrong or f"as its rule says for {len(images)} images and {len(planted)} planted rows of probabilities"
        yield name, not wrong, text


def _differing(rules: OutputRules, name: str, probabilities: np.ndarray, given: np.ndarray) -> str:
    """In words, how an output differs from its rule; "" where it does not."""
    expected = rules.outputs(probabilities)[name]
    if given.shape != expected.shape or given.dtype != np.bool_:
        return f"is {given.dtype}{list(given.shape)}, not bool{list(expected.shape)}"
    rows = (given != expected).reshape(len(given), -1).any(1)
    if name == PREDICTION_SET and rules.sets is not None:
        rows &= rules.sets.margins(probabilities) > ROUNDING
        if not given.any(1).all():
            return f"is empty for {int((~given.any(1)).sum())} rows"
    return f"differs from its rule for {int(rows.sum())} of {len(rows)} rows" if rows.any() else ""


def _planted(rules: OutputRules, classes: int) -> np.ndarray:
    """Probabilities `float32[N, C]` of all degrees of certainty, some with the threshold as the largest."""
    generator = np.random.default_rng(0)
    powers = generator.uniform(0.2, 20.0, (PLANTED, 1))
    logits = powers * generator.normal(size=(PLANTED, classes)) / 2
    chances = np.exp(logits - logits.max(1, keepdims=True))
    planted: np.ndarray = (chances / chances.sum(1, keepdims=True)).astype(np.float32)
    if rules.abstention is not None:
        at = np.float32(rules.abstention.threshold)
        for row, largest in enumerate((at, np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(1)))):
            planted[row] = (1 - largest) / max(1, classes - 1)
            planted[row, -1] = largest
    return planted
