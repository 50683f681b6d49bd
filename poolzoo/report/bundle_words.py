"""What a bundle's card and page both say, in plain text that each escapes for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BASELINE = "torch eager"
MOST_NODES = 8  # that are named; `parity.json` names all


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


def times(speedup: Mapping[str, float] | None) -> str:
    """A ratio with the spread of its rounds, such as `2.51× (2.43–2.60)`."""
    if not speedup:
        return "–"
    spread = f" ({speedup['p10']:.2f}–{speedup['p90']:.2f})" if {"p10", "p90"} <= speedup.keys() else ""
    return f"{speedup['median']:.2f}×{spread}"


def size(count: int | None) -> str:
    """Bytes as kB or MB, a thousand each."""
    if count is None:
        return "–"
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def arms(speed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everything that was timed: `batch`, `runtime`, `threads`, `median_ms`, and what else is known of it."""
    found = []
    for batch, row in speed.items():
        measured = row.get("measurements") or [
            {"runtime": BASELINE, "median_ms": row["torch_ms"]},
            {"runtime": "ONNX Runtime", "median_ms": row["ort_ms"], "speedup": {"median": row["speedup"]}},
        ]
        common = {"batch": int(batch), "threads": row.get("threads"), "rounds": row.get("rounds")}
        found += [{**common, **arm} for arm in measured]
    return found


def speed_rows(speed: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table of everything that was timed, below `SPEED_HEADERS`."""
    keys = ("median_ms", "min_ms", "p90_ms", "p99_ms")
    return [
        (
            str(arm["batch"]),
            str(arm["runtime"]),
            str(arm["threads"] or "–"),
            *(milliseconds(arm.get(key)) for key in keys),
            times(arm.get("speedup")),
            str(arm["rounds"] or "–"),
        )
        for arm in arms(speed)
    ]


SPEED_HEADERS = ("batch", "runtime", "threads", "median, ms", "min", "p90", "p99", "speed-up", "rounds")
SPEED_NOTE = (
    "Timed in turns, in shuffled order. The speed-up is the median over the rounds of the ratio to "
    f"{BASELINE} at the same batch and threads, with the 10th and 90th percentile where they were kept."
)


def candidate_rows(candidates: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The table of the precisions that were tried, below `CANDIDATE_HEADERS`."""
    rows = []
    for one in candidates:
        ort, gain = one.get("ort_ms") or {}, one.get("speedup") or {}
        verdict = "chosen" if one["chosen"] else one.get("lost") or ("passed" if one["passed"] else "failed its check")
        larger = next((size for size in ort if size != "1"), "32")
        batches = [
            f"{milliseconds(ort[b])} ({gain[b]:.2f}×)" if ort.get(b) and gain.get(b) else "–" for b in ("1", larger)
        ]
        if larger != "32":
            batches[-1] += f" at batch {larger}"
        shares = [percent(one.get(key)) for key in ("agreement", "accuracy", "accuracy_drop")]
        rows.append((one["precision"], *shares, *batches, size(one.get("bytes")), verdict))
    return rows


CANDIDATE_HEADERS = (
    "precision",
    "agreement",
    "accuracy",
    "accuracy lost",
    "batch 1, ms (over fp32)",
    "batch 32, ms (over fp32)",
    "size",
    "verdict",
)


def parity(agreement: Mapping[str, Any]) -> list[str]:
    """How the graph was compared with the network and what came of it, a sentence or two each."""
    n, kind, edges = agreement["n"], agreement["images"], len(agreement.get("max_abs_by_edge", {}))
    reference = f"the network in {agreement['reference']}" if "reference" in agreement else "the network"
    on = [f"{n} {kind} images", *([f"{edges} edge images"] if edges else [])]
    under = f", under {agreement['provider']}" if "provider" in agreement else ""
    under += f" with its optimization at “{agreement['optimization']}”" if "optimization" in agreement else ""
    batches = listed([str(batch) for batch in agreement["batches"]])
    said = [f"The graph was compared with {reference} on {listed(on)}, in batches of {batches}{under}."]
    said += [_difference(agreement), _choices(agreement)]
    if limits := agreement.get("limits"):
        said.append(
            "At this precision the graph is judged by its choices: the first choice must agree on at least "
            f"{percent(limits['agreement'])} of the images, and accuracy may fall by at most "
            f"{100 * limits['accuracy_drop']:.2f} points."
        )
    if accuracy := agreement.get("accuracy"):
        both = f"{percent(accuracy['onnxruntime'])} from the graph, {percent(accuracy['torch'])} from torch"
        said.append(f"Accuracy on these images: {both}.")
    else:
        said.append("Accuracy was not measured, because no labeled images come with the network.")
    said += half_precision(agreement)
    if probes := agreement.get("probes"):
        good = sum(probe["passed"] for probe in probes)
        said.append(f"{good} of {len(probes)} probes of the network's parts with extreme inputs passed.")
    return said


def half_precision(agreement: Mapping[str, Any]) -> list[str]:
    """What was found of the values inside a graph in lower precision, and in half arithmetic; nothing for fp32."""
    said = []
    if inside := agreement.get("inside"):
        at = f"{inside['value']}, on {inside['images']} images"
        said.append(f"The largest magnitude inside the network in float32 is {inside['largest']:.3g} ({at}).")
        kept = list(inside.get("float32", ()))
        more = f" and {len(kept) - MOST_NODES} more" if len(kept) > MOST_NODES else ""
        if kept:
            nodes = ", ".join(kept[:MOST_NODES])
            said.append(
                f"Nodes that stay in float32, because half precision does not hold their values: {nodes}{more}."
            )
    if half := agreement.get("half"):
        pair = f"{small(half['max_abs'])}, of {small(half['allowed'])} allowed"
        said.append(
            "ONNX Runtime's CPU provider computes fp16 mostly in float32, so that its figures say little of hardware "
            f"which does not; in half arithmetic, on {half['images']} images, logits differ by at most {pair}."
        )
    return said


def _difference(agreement: Mapping[str, Any]) -> str:
    text = f"The largest difference of any output is {small(agreement['max_abs'])}"
    if agreement.get("relative") is not None:
        text += f", {small(agreement['relative'])} of the largest logit"
    if agreement.get("gate", "noise") == "noise" and (worst := agreement.get("worst")):
        text += f"; nearest to its limit is {worst['input']}, {small(worst['max_abs'])} of {small(worst['allowed'])}"
    if agreement.get("noise_floor") is not None:
        text += f", and the network's own rounding noise in float32 is {small(agreement['noise_floor'])}"
    if agreement.get("cosine") is not None:
        text += f". The least cosine between the logits of both is 1 − {small(max(1 - agreement['cosine'], 0.0))}"
    return text + "."


def _choices(agreement: Mapping[str, Any]) -> str:
    text = f"The first choice agrees on {percent(agreement['top1_agreement'])} of the {agreement['images']} images"
    if flips := agreement.get("flips"):
        text += (
            f"; it differs first on {flips[0]['input']}, whose two best logits lie {small(flips[0]['margin'])} apart"
        )
    return text + "."


def preprocessing(measured: Mapping[str, Any]) -> str:
    """What stands before the graph, and how long it takes, in a sentence."""
    spread = [f"{key.split('_')[0]} {milliseconds(measured[key])}" for key in ("p90_ms", "p99_ms") if key in measured]
    more = f" ({listed(spread)})" if spread else ""
    return (
        f"Before the graph, {measured['what']}: {milliseconds(measured['median_ms'])} ms{more}, which no row includes."
    )


def value(anything: Any) -> str:
    """A figure or a setting in words; what has parts, part by part, without those that are not there."""
    if anything is None:
        return "–"
    if isinstance(anything, bool):
        return "yes" if anything else "no"
    if isinstance(anything, dict):
        parts = {key: value(part) for key, part in anything.items() if part not in (None, {}, [])}
        nested = any(isinstance(part, dict) for part in anything.values())
        return ("; " if nested else ", ").join(f"{key} {part}" for key, part in parts.items()) or "–"
    return ", ".join(value(part) for part in anything) or "–" if isinstance(anything, (list, tuple)) else str(anything)
