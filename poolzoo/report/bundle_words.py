"""Texts and tables that a bundle's card and page share, as plain text that each escapes for itself.

The file is long because there are many: speed, targets, candidates, layers, parity, rules, preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from poolzoo.artifacts.schema import BatchSpeed, CandidateRow, Export, FloatLayer, Parity, Preprocessing, TargetConfig
from poolzoo.metrics.output_rules import ACCEPTED, PREDICTION_SET
from poolzoo.metrics.rules_report import RulesReport

BASELINE: Final = "torch eager"
MAX_LAYERS: Final = 4  # that a sentence names; a page cuts long ones
MAX_NODES: Final = 8  # that are named; `parity.json` names all


def percent(share: float | None, digits: int = 2) -> str:
    """A share of 0–1 as `98.90 %`; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def small(value: float | None) -> str:
    """A difference as `1.80e-06`; None stands for NaN or infinity."""
    return "not finite" if value is None else f"{value:.2e}" if value else "0"


def milliseconds(value: float | None) -> str:
    """Three digits that matter; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def times(value: float | None) -> str:
    """How many times as fast: hundredths, and below 0.1 two digits that matter; a dash where there is none."""
    return "–" if value is None else f"{_ratio(value)}×"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.2g}"


def size(count: int | None) -> str:
    """Bytes as kB or MB, a thousand each."""
    if count is None:
        return "–"
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the baseline: median over the rounds, and their 10th and 90th percentile."""

    median: float
    p10: float | None = None
    p90: float | None = None

    def __str__(self) -> str:
        """Such as `2.51× (2.43–2.60)`."""
        interval = "" if self.p10 is None or self.p90 is None else f" ({_ratio(self.p10)}–{_ratio(self.p90)})"
        return f"{times(self.median)}{interval}"


@dataclass(frozen=True, kw_only=True)
class TimedRow:
    """One runtime at one batch size, in milliseconds a batch; None where it was not kept."""

    batch: int
    runtime: str
    threads: int | None
    rounds: int | None
    median_ms: float
    min_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    speedup: Speedup | None = None


def timed_rows(speed: Mapping[str, BatchSpeed]) -> list[TimedRow]:
    """Everything that was timed, by batch size."""
    found = []
    for batch, row in speed.items():
        if not row.get("measurements"):  # as earlier versions kept it
            ours = TimedRow(
                batch=int(batch),
                runtime="ONNX Runtime",
                threads=row.get("threads"),
                rounds=row.get("rounds"),
                median_ms=row["ort_ms"],
                speedup=Speedup(row["speedup"]),
            )
            found += [replace(ours, runtime=BASELINE, median_ms=row["torch_ms"], speedup=None), ours]
            continue
        for one in row["measurements"]:
            ratio = one.get("speedup")
            found.append(
                TimedRow(
                    batch=int(batch),
                    runtime=one["runtime"],
                    threads=one.get("threads", row.get("threads")),
                    rounds=one.get("rounds", row.get("rounds")),
                    median_ms=one["median_ms"],
                    min_ms=one.get("min_ms"),
                    p90_ms=one.get("p90_ms"),
                    p99_ms=one.get("p99_ms"),
                    speedup=Speedup(ratio["median"], ratio["p10"], ratio["p90"]) if ratio else None,
                )
            )
    return found


def speed_rows(speed: Mapping[str, BatchSpeed]) -> list[tuple[str, ...]]:
    """The table of everything that was timed, with the headers `SPEED_HEADERS`."""
    return [
        (
            str(row.batch),
            row.runtime,
            str(row.threads or "–"),
            milliseconds(row.median_ms),
            milliseconds(row.min_ms),
            milliseconds(row.p90_ms),
            milliseconds(row.p99_ms),
            str(row.speedup or "–"),
            str(row.rounds or "–"),
        )
        for row in timed_rows(speed)
    ]


SPEED_HEADERS: Final = ("batch", "runtime", "threads", "median, ms", "min", "p90", "p99", "speed-up", "rounds")
SPEED_NOTE: Final = (
    "Runtimes are timed in turns, in shuffled order. The speed-up is the median over the rounds of the ratio to "
    f"{BASELINE} at the same batch and threads, with the 10th and 90th percentile where they were kept."
)


def target_rows(targets: Mapping[str, TargetConfig]) -> list[tuple[str, ...]]:
    """The table of what was made for other runtimes, with the headers `TARGET_HEADERS`."""
    return [
        (
            name,
            one["version"] or "–",
            ", ".join(one["changes"]) or "none",
            size(one["bytes"]),
            "yes" if one["checked"] else "it cannot run where it was exported",
        )
        for name, one in targets.items()
    ]


TARGET_HEADERS: Final = ("runtime", "version", "changes of the graph", "size", "agrees")


def selected_runtime(report: Export) -> str:
    """Which runtime `poolzoo predict` uses for the bundle, and how many were compared; "" where none was recorded."""
    if "runtime" not in report:
        return ""
    agreeing = [row for row in report.get("runtimes", []) if row["status"] == "agrees"]
    more = f", the fastest of {len(agreeing)} runtimes that agree with it" if len(agreeing) > 1 else ""
    return f"poolzoo predict runs it in {report['runtime']}{more}."


def candidate_rows(candidates: Sequence[CandidateRow]) -> list[tuple[str, ...]]:
    """The table of the precisions that were tried, with the headers `candidate_headers`."""
    return [
        (
            one["precision"],
            percent(one.get("agreement")),
            percent(one.get("accuracy", one.get("map"))),
            percent(one.get("accuracy_drop", one.get("map_drop"))),
            *_latencies(one),
            size(one.get("bytes")),
            _outcome(one),
        )
        for one in candidates
    ]


def _latencies(candidate: CandidateRow) -> list[str]:
    """Milliseconds for one image and for a larger batch, each with its ratio to fp32."""
    latency, gain = candidate.get("ort_ms") or {}, candidate.get("speedup") or {}
    larger = next((batch for batch in latency if batch != "1"), "32")
    cells = [
        f"{milliseconds(latency[batch])} ({times(gain[batch])})" if latency.get(batch) and gain.get(batch) else "–"
        for batch in ("1", larger)
    ]
    return cells if larger == "32" else [cells[0], f"{cells[1]} at batch {larger}"]


def _outcome(candidate: CandidateRow) -> str:
    if candidate["chosen"]:
        return "selected"
    return candidate.get("lost") or ("passed" if candidate["passed"] else "failed its check")


def searches(candidates: Sequence[CandidateRow]) -> list[str]:
    """What lets a precision keep the limits, such as layers in float32, and what that costs: a few paragraphs each.

    Empty where no layers were searched for.
    """
    said = []
    for one in candidates:
        if (found := one.get("search")) is None:
            continue
        before, layers = found["before"], found["layers"]
        named = [f"{layer['layer']} ({_harm(layer['harm'])}{_cost(layer)})" for layer in layers[:MAX_LAYERS]]
        more = f" and {len(layers) - MAX_LAYERS} more" if len(layers) > MAX_LAYERS else ""
        earlier = before["ort_ms"]
        times = [
            f"{milliseconds(now)} ms instead of {milliseconds(earlier[size])} ms at batch {size}"
            for size, now in one["ort_ms"].items()
        ]
        means = ["corrected biases"] if found["corrected_biases"] else []
        if layers:
            means.append(f"{len(layers)} of {found['of']} layers in float32: {', '.join(named)}{more}")
        said.append(f"{one['precision']} keeps the limits with {listed(means)}.")
        said.append(
            f"Predictions agree on {percent(one['agreement'])} of the images instead of "
            f"{percent(before['agreement'])}, and the graph takes {listed(times)}."
        )
        if layers:
            said.append(
                f"In parentheses is the change of the logits where that layer alone is {one['precision']}, as a "
                "fraction of their standard deviation."
            )
            if (kernels := found.get("kernels")) is not None:
                said.append(
                    "The milliseconds are what the layer's kernels take more in float32, at batch "
                    f"{kernels['batch']}. All kernels take {milliseconds(kernels['after'])} ms instead of "
                    f"{milliseconds(kernels['before'])} ms there; some of them count to no layer."
                )
    return said


LAYER_HEADERS: Final = ("layer", "change of the logits", "ms, lowered", "ms in float32", "more")


def layer_rows(candidate: CandidateRow) -> list[tuple[str, ...]]:
    """All layers that stay in float32, with their harm and the milliseconds of their kernels; empty for none."""
    rows = []
    for layer in candidate["search"]["layers"] if "search" in candidate else ():
        kernels = layer.get("kernels")
        times = [kernels["before"], kernels["after"]] if kernels else [None, None]
        cost = f"{kernels['after'] - kernels['before']:+.3f}" if kernels else "–"
        rows.append((layer["layer"], _harm(layer["harm"]), *map(milliseconds, times), cost))
    return rows


def _cost(layer: FloatLayer) -> str:
    """What a layer costs in time, in words; empty where that is unknown."""
    kernels = layer.get("kernels")
    return f", {kernels['after'] - kernels['before']:+.2g} ms" if kernels else ""


def _harm(harm: float | None) -> str:
    return "not finite" if harm is None else f"{harm:.2g}"


def candidate_headers(candidates: Sequence[CandidateRow]) -> tuple[str, ...]:
    """The headers of `candidate_rows`."""
    score = "mAP" if any("map" in one for one in candidates) else "accuracy"
    return (
        "precision",
        "agreement",
        score,
        f"{score} drop",
        "batch 1, ms (speed-up over fp32)",
        "batch 32, ms (speed-up over fp32)",
        "size",
        "outcome",
    )


def parity(found: Parity) -> list[str]:
    """How the graph was compared with the network and the result, a sentence or two each."""
    edges = len(found.get("max_abs_by_edge", {}))
    reference = f"the network in {found['reference']}" if "reference" in found else "the network"
    images = [f"{found['n']} {found['images']} images", *([f"{edges} synthetic edge cases"] if edges else [])]
    under = f", under {found['provider']}" if "provider" in found else ""
    under += f" with graph optimization level “{found['optimization']}”" if "optimization" in found else ""
    batches = listed([str(batch) for batch in found["batches"]])
    said = [f"The graph was compared with {reference} on {listed(images)}, in batches of {batches}{under}."]
    said += [_difference(found), _agreement(found)]
    name = "mAP" if "map" in found else "accuracy"
    if limits := found.get("limits"):
        said.append(
            "At this precision parity is a limit on predictions: they must agree on at least "
            f"{percent(limits['agreement'])} of the images, and {name} may fall by at most "
            f"{100 * limits['accuracy_drop']:.2f} points."
        )
    if accuracy := found.get("accuracy", found.get("map")):
        both = f"{percent(accuracy['onnxruntime'])} from the graph, {percent(accuracy['torch'])} from torch"
        said.append(f"{'mAP' if 'map' in found else 'Accuracy'} on these images: {both}.")
    else:
        said.append("Accuracy was not measured, because no labeled images come with the network.")
    said += _half_precision(found)
    if probes := found.get("probes"):
        passed = sum(probe["passed"] for probe in probes)
        said.append(f"{passed} of {len(probes)} probes of the network's parts with extreme inputs passed.")
    return said


RISK_COVERAGE: Final = "Risk–coverage curve: share of wrong predictions among the images that are most certain"
RISK_COVERAGE_NOTE: Final = (
    "The share of wrong predictions where the test images with the largest probability alone are accepted. The area "
    "under this curve is its mean over all numbers of images."
)


def rules(report: RulesReport) -> dict[str, list[str]]:
    """The outputs beside logits and probabilities, each with sentences on its rule and what it does to test images."""
    said: dict[str, list[str]] = {}
    if (rule := report.rules.abstention) is not None:
        promise = f"{rule.target} with confidence {rule.confidence:g}" if rule.confidence else f"{rule.target}"
        which = f"Images with a largest probability of at least {rule.threshold:.4f} are accepted"
        which = which if rule.threshold > 0 else "Every image is accepted"
        said[ACCEPTED] = [f"{which}. That is chosen on {rule.images} validation images, for {promise}."]
        if (tested := report.selective) is not None:
            said[ACCEPTED] += [
                f"Of {tested.images} test images {percent(tested.coverage)} are accepted "
                f"({_interval(tested.coverage_interval)}). Of these {percent(tested.accuracy)} are right "
                f"({_interval(tested.accuracy_interval)})."
            ]
        if report.aurc is not None:
            said[ACCEPTED] += [f"The area under the risk–coverage curve of these images is {report.aurc:.4f}."]
    if (sets := report.rules.sets) is not None:
        said[PREDICTION_SET] = [
            f"A set holds the true class with probability {sets.coverage:g}. That is chosen on {sets.images} "
            "validation images."
        ]
        if (found := report.sets) is not None:
            low, high = found.size_interval
            said[PREDICTION_SET] += [
                f"Of {found.images} test images {percent(found.coverage)} have it in their set "
                f"({_interval(found.coverage_interval)}). A set has {found.mean_size:.2f} classes on average "
                f"({low:.2f} to {high:.2f}); {percent(found.singletons / found.images)} of the sets have one class."
            ]
    return said


def _interval(ends: tuple[float, float]) -> str:
    """A 95 % interval of a share."""
    return " to ".join(percent(end) for end in ends)


def _half_precision(found: Parity) -> list[str]:
    """The range of values inside a graph of lower precision, and its error in half arithmetic; nothing for fp32."""
    said = []
    if inside := found.get("inside"):
        place = f"{inside['value']}, on {inside['images']} images"
        said.append(f"The largest magnitude inside the network in float32 is {inside['largest']:.3g} ({place}).")
        kept = list(inside.get("float32", ()))
        more = f" and {len(kept) - MAX_NODES} more" if len(kept) > MAX_NODES else ""
        if kept:
            nodes = ", ".join(kept[:MAX_NODES])
            said.append(f"Nodes that stay in float32, because float16 does not hold their values: {nodes}{more}.")
    if half := found.get("half"):
        pair = f"{small(half['max_abs'])}, of {small(half['allowed'])} allowed"
        said.append(
            "ONNX Runtime's CPU provider computes fp16 mostly in float32, so its figures say little of hardware with "
            f"half arithmetic. In half arithmetic, on {half['images']} images, logits differ by at most {pair}."
        )
    return said


def _difference(found: Parity) -> str:
    text = f"The largest difference of any output is {small(found['max_abs'])}"
    if found.get("relative") is not None:
        text += f", {small(found['relative'])} of the largest logit"
    if found.get("gate", "noise") == "noise" and (worst := found.get("worst")):
        text += f"; closest to its limit is {worst['input']}, {small(worst['max_abs'])} of {small(worst['allowed'])}"
    if found.get("noise_floor") is not None:
        text += f", and the network's own rounding noise in float32 is {small(found['noise_floor'])}"
    if (cosine := found.get("cosine")) is not None:
        text += f". The least cosine similarity of the logits is 1 − {small(max(1 - cosine, 0.0))}"
    return text + "."


def _agreement(found: Parity) -> str:
    text = f"Predictions agree on {percent(found['top1_agreement'])} of the {found['images']} images"
    if flips := found.get("flips"):
        first = flips[0]
        apart = f"whose two best logits are {small(first['margin'])} apart"
        if "map" in found:
            apart = f"with a logit {small(first['margin'])} from its threshold"
        text += f"; the first difference is {first['input']}, {apart}"
    return text + "."


def preprocessing(measured: Preprocessing) -> str:
    """The preprocessing before the graph and its time, in a sentence."""
    known = (("p90", measured.get("p90_ms")), ("p99", measured.get("p99_ms")))
    percentiles = listed([f"{name} {milliseconds(one)}" for name, one in known if one is not None])
    more = f" ({percentiles})" if percentiles else ""
    return f"Preprocessing, {measured['what']}: {milliseconds(measured['median_ms'])} ms{more}. No row includes it."


def value(anything: object) -> str:
    """A figure or a setting in words; a mapping part by part, without parts that are empty."""
    if anything is None:
        return "–"
    if isinstance(anything, bool):
        return "yes" if anything else "no"
    if isinstance(anything, Mapping):
        parts = {key: value(part) for key, part in anything.items() if part not in (None, {}, [])}
        nested = any(isinstance(part, Mapping) for part in anything.values())
        return ("; " if nested else ", ").join(f"{key} {part}" for key, part in parts.items()) or "–"
    return ", ".join(value(part) for part in anything) or "–" if isinstance(anything, (list, tuple)) else str(anything)
