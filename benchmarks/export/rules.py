"""What do abstention and prediction sets keep of their promises on real logits, and what do their nodes cost?

python -m benchmarks.export.rules RUN... [--draws 1000] [--images 2000] [--accuracy 0.95] [--coverage 0.9]
python -m benchmarks.export.rules --cost

Of each RUN, a directory of `finetune`, the logits of validation and test images are put together. Each draw chooses the
rules on so many of these images and measures them on all others. Out of reach counts draws where no threshold is found.
With --cost, a softmax is timed with and without the nodes behind it, in turns, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import samples
from poolzoo.artifacts.run import decision_of
from poolzoo.common import files, output, timing
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.metrics.abstention import Abstention, Target, choose_abstention, measure
from poolzoo.metrics.conformal import PredictionSets, choose_sets, measure_sets
from poolzoo.metrics.output_rules import OutputRules
from poolzoo.metrics.rules_report import RulesReport

HEADERS: Final = ("run", "images", "out of reach", "accuracy missed", "accepted", "coverage of sets", "mean size")
CONFIDENCE: Final = 0.95


def promises(run: Path, draws: int, images: int, target: Target, coverage: float) -> tuple[str, ...]:
    """A row of the table of promises.

    Raises:
        UsageError: The run keeps no logits, or too few.
    """
    kept = [samples.load_validation(run), samples.load_test(run)]
    parts = [one for one in kept if one is not None]
    if sum(len(one.labels) for one in parts) <= images:
        raise UsageError(f"{run} keeps too few logits of validation and test images", "name a run of this version")
    logits = np.concatenate([one.logits for one in parts])
    labels = np.concatenate([one.labels for one in parts])
    probabilities = decision_of(files.read_json(run / "config.json")).probabilities(logits).astype(np.float32)
    missed, accepted, coverages, sizes = 0, [], [], []
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        chosen, others = order[:images], order[images:]
        rule = choose_sets(probabilities[chosen], labels[chosen], coverage)
        found = measure_sets(rule, probabilities[others], labels[others])
        coverages.append(found.coverage)
        sizes.append(found.mean_size)
        try:
            abstention = choose_abstention(probabilities[chosen], labels[chosen], target, CONFIDENCE)
        except CheckFailed:
            continue
        selective = measure(abstention, probabilities[others], labels[others])
        accepted.append(selective.coverage)
        missed += selective.accuracy is not None and selective.accuracy < target.value
    shares = (f"{1 - len(accepted) / draws:.3f}", f"{missed / draws:.3f}", f"{np.mean(accepted or [0.0]):.3f}")
    spread = f"{np.mean(coverages):.4f} ± {2 * np.std(coverages) / np.sqrt(draws):.4f}"
    return run.name, str(len(others)), *shares, spread, f"{np.mean(sizes):.3f}"


def cost(classes: int, batch: int) -> tuple[str, ...]:
    """A row of the table of costs: microseconds of a batch."""
    import onnx
    from onnx import helper

    from poolzoo.export import rule_outputs
    from poolzoo.runtime import ort_session

    abstention = Abstention(
        threshold=0.9, target=Target("accuracy", 0.9), confidence=0.95, images=1, accepted=1, errors=0
    )
    sets = PredictionSets(coverage=0.9, quantile=0.95, penalty=0.01, unpenalized=2, images=1)
    every = PredictionSets(coverage=0.9, quantile=0.95, penalty=1e-6, unpenalized=2, images=1)
    rules = {
        "softmax": OutputRules(),
        "accepted": OutputRules(abstention),
        "sets": OutputRules(sets=sets),
        "sets, all classes sorted": OutputRules(sets=every),
    }
    floats = onnx.TensorProto.FLOAT
    given = np.random.default_rng(0).normal(0, 2, (batch, classes)).astype(np.float32)
    calls = {}
    for name, one in rules.items():
        graph = helper.make_graph(
            [helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)],
            "rules",
            [helper.make_tensor_value_info("logits", floats, ["batch", classes])],
            [helper.make_tensor_value_info("probabilities", floats, ["batch", classes])],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        rule_outputs.add_outputs(proto, RulesReport(one))
        session = ort_session.open_session(proto.SerializeToString(), ort_session.PROVIDERS["cpu"], 1)
        calls[name] = lambda session=session: session.run(None, {"logits": given})
    times = timing.interleaved(calls, seconds=2.0)
    return str(classes), str(batch), *(f"{1e3 * statistics.median(times[name]):.0f}" for name in rules)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--accuracy", type=float, default=0.95)
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--cost", action="store_true")
    given = parser.parse_args()
    if given.runs:
        target = Target("accuracy", given.accuracy)
        rows = [promises(run, given.draws, given.images, target, given.coverage) for run in given.runs]
        output.table(HEADERS, rows, right=range(1, len(HEADERS)))
    if given.cost:
        headers = ("classes", "batch", "softmax, µs", "accepted", "sets", "sets, all classes sorted")
        output.table(headers, [cost(classes, batch) for classes in (10, 100, 1000) for batch in (1, 32)])


if __name__ == "__main__":
    main()
