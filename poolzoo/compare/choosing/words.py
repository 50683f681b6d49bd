"""The recommendation of `poolzoo choose` in three sentences, and the commands that train and export it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from poolzoo.compare.choosing.between import Between, Contender
from poolzoo.compare.choosing.finished import Finished
from poolzoo.compare.choosing.results import Candidate
from poolzoo.report.results import Delta
from poolzoo.train.settings import Settings, flag

# Settings that the pilot chose for itself, or that no option sets.
NOT_TYPED: Final = frozenset(
    ["epochs", "limit", "time_budget", "steps", "validation", "reader", "final_norm", "plugins", "local_pool"]
)


def sentences(chosen: Contender, baseline: Candidate | None, found: Between) -> list[str]:
    """What to use, what the regime is worth, and how fast it is.

    Args:
        chosen: What is recommended, with its latency.
        baseline: The baseline of its comparison, with its latency; None where it failed.
        found: How the contenders differ.
    """
    return [
        _use(chosen.candidate, chosen.comparison),
        _regime(chosen.title, found),
        _latency(chosen.candidate, baseline),
    ]


def _use(chosen: Candidate, comparison: Finished) -> str:
    name, base = chosen.variant.name, comparison.planned.config.baseline_variant.name
    place = f"{name} on {comparison.planned.title}"
    tested = f"{chosen.seeds} seed{'s' * (chosen.seeds > 1)} and {comparison.images:,} test images"
    if chosen.delta is not None and chosen.delta.better:
        p = chosen.delta.p_adjusted or 0.0
        shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        return f"Use {place}: over {tested}, it beats {base} by {_interval(chosen.delta)} points (adjusted {shown})."
    differences = [(one, one.delta.mean) for one in comparison.candidates if one.delta and one.delta.mean is not None]
    if not differences:
        why = "one seed cannot tell more" if chosen.seeds == 1 else "there is nothing to compare it with"
        return f"Use {place}, whose accuracy is {100 * chosen.accuracy:.2f} % on {tested}; {why}."
    largest, _ = max(differences, key=lambda pair: abs(pair[1]))
    assert largest.delta is not None
    seen = f"the largest difference that was seen, {_interval(largest.delta)} points for {largest.variant.name}"
    what = "" if name == base else f" {base} is not recommended, and {name} does not differ from it beyond chance;"
    start = f"Use {place}, the baseline: nothing beats it beyond chance;" if name == base else f"Use {place}:{what}"
    return f"{start} {seen}, is within the chance of {tested}."


def _regime(title: str, found: Between) -> str:
    top = found.order[0].title
    if len(found.order) < 2:
        return f"Only {title} was compared; another regime may be better."
    others = [one.title for one in found.order if one.title != title]
    if title != top:
        delta = found.behind.get(title, Delta())
        seen = "" if delta.mean is None else f", which is {_interval(delta)} points ahead"
        return f"In this budget it does not differ beyond chance from {top}{seen}, and it needs fewer operations."
    nearest = others[0]
    delta = found.behind.get(nearest, Delta())
    if delta.mean is None:
        return f"It is the most accurate of {len(found.order)} in this budget, but one seed cannot tell more."
    if delta.better:
        return f"In this budget it beats {nearest} by {_interval(delta)} points; a larger budget may change that."
    return f"In this budget it does not differ from {nearest} beyond chance ({_interval(delta)} points)."


def _latency(chosen: Candidate, baseline: Candidate | None) -> str:
    if chosen.latency_ms is None:
        return "Its latency was not measured."
    own = f"One image takes {chosen.latency_ms:.2f} ms under ONNX Runtime on this machine"
    if baseline is None or baseline.latency_ms is None or baseline.variant == chosen.variant:
        return f"{own}."
    return f"{own}, and {baseline.latency_ms:.2f} ms with {baseline.variant.name}."


def _interval(delta: Delta) -> str:
    mean, low, high = (100 * (value or 0.0) for value in (delta.mean, delta.low, delta.high))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def train_command(comparison: Finished, chosen: Candidate, out: Path) -> list[str]:
    """The words of the `finetune` command that trains a candidate for its usual number of epochs, on all images."""
    variant, given = chosen.variant, comparison.planned.config.settings
    settings = replace(given, backbone=variant.backbone, pool=variant.pool)
    words = ["poolzoo", "finetune", "--data", settings.data, "--backbone", settings.backbone, "--pool", settings.pool]
    if variant.local_pool is not None:
        words += ["--local-pool", variant.local_pool]
    for name, value in _typed(settings).items():
        words += [flag(name)] if value is True else [flag(name), str(value)]
    return [*words, *_plugins(settings), "--out", str(out / "run")]


def _typed(settings: Settings) -> Mapping[str, object]:
    """The other settings that are not their defaults; switches that are off by default are on."""
    left = {one.name for one in fields(Settings)} - NOT_TYPED - {"data", "backbone", "pool"}
    return {
        one.name: value
        for one in fields(Settings)
        if one.name in left and (value := getattr(settings, one.name)) != one.default
    }


def export_command(comparison: Finished, out: Path, target: str | None) -> list[str]:
    """The words of the `export` command for the network that `train_command` trains."""
    words = ["poolzoo", "export", str(out / "run"), *_plugins(comparison.planned.config.settings)]
    words += ["--out", str(out / "bundle")]
    return words if target in (None, "onnxruntime") else [*words, "--target", str(target)]


def _plugins(settings: Settings) -> list[str]:
    return [word for file in settings.plugins for word in ("--plugin", file)]
