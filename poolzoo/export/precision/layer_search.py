"""Returns layers of a graph in lower precision to float32 until it keeps the user's limits.

Biases are corrected first, which may suffice. Layers are ranked by their harm once. The graph with the n most harmful
layers in float32 is made for n = 1, 2, 4, … until one keeps the limits. Then a binary search finds the least n. A graph
that cannot win anyway is not searched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from poolzoo.common import output
from poolzoo.export.precision import candidates, layer_times
from poolzoo.export.precision.candidate import Candidate, LayerSearch
from poolzoo.export.precision.candidates import Conversion
from poolzoo.export.precision.convert import Converter
from poolzoo.export.precision.layer_harm import LayerHarm
from poolzoo.export.precision.layer_times import LayerTimes

SECONDS: Final = 0.5  # of timing at each batch size, to see which graphs are worth a search


def return_layers(
    choice: str, conversion: Conversion, converted: Sequence[tuple[Candidate, Converter]], batch: int
) -> list[Candidate]:
    """The candidates, where those that miss the limits and may be the fastest have layers in float32.

    Args:
        choice: A key of `candidates.PRECISIONS`.
        conversion: Makes candidates.
        converted: The candidates in lower precision, each with what converted it.
        batch: The larger batch size at which candidates are timed.
    """
    found = {one.precision: one for one, _ in converted}
    converters = {converter.precision: converter for _, converter in converted}
    missed = [one for one in found.values() if not one.parity.passed]
    if not missed:
        return list(found.values())
    everything = [conversion.fp32, *found.values()]
    times = candidates.measure_candidates(everything, conversion.source.images, batch, SECONDS)
    speeds = candidates.speeds(everything, times)
    fastest = max((speeds[one.precision] for one in found.values() if one.parity.passed), default=0.0)
    if choice == "auto":
        fastest = max(fastest, candidates.MIN_SPEEDUP)
    for one in sorted(missed, key=lambda one: -speeds[one.precision]):
        name = one.precision
        if speeds[name] <= fastest:
            found[name] = replace(one, remark="no layers were returned to float32, since it is too slow to be selected")
            continue
        found[name] = search(one, conversion, converters[name], batch)
        if found[name].parity.passed:
            fastest = max(fastest, speeds[name])
    return list(found.values())


def search(missed: Candidate, conversion: Conversion, converter: Converter, batch: int) -> Candidate:
    """The graph with the fewest layers in float32 that keeps the limits; `missed` with a remark where none does.

    Corrected biases cost no time in the graph, and are tried before. In static int8, additions and normalizations
    harm transformers most, and cost little time in float32. So all layers without weights return together where that
    halves the disagreement with the network.

    Args:
        missed: A graph that misses the limits.
        conversion: Makes candidates.
        converter: What converted it.
        batch: The batch size at which layers are timed.
    """
    started = time.perf_counter()
    made: dict[int, Candidate] = {}
    tries: list[int] = []
    ranked: list[LayerHarm] = []

    def passes(count: int) -> bool:
        output.detail(f"{missed.precision} with {count} layers in float32")
        file = missed.file.with_name(f"{missed.precision}-{count}.onnx")
        made[count] = conversion.make(converter, file, [name for layer in ranked[:count] for name in layer.nodes])
        return made[count].parity.passed

    corrected = converter.correct_biases(missed.file)
    if corrected:
        output.say(f"{missed.precision}: {missed.parity.violations}; correcting biases")
        tries.append(0)
        passes(0)
        corrected = made[0].parity.outputs.top1_agreement >= missed.parity.outputs.top1_agreement
        if not corrected:
            converter.keep_biases()
    start = made[0] if corrected else missed
    count: int | None = 0
    if not start.parity.passed:
        output.say(f"{missed.precision}: {start.parity.violations}; measuring the harm of each layer")
        ranked = converter.rank_layers(start.file)
        low, high = 0, len(ranked)
        if missed.precision == "int8-static" and 0 < (light := sum(not one.weighted for one in ranked)) < high:
            by_harm, ranked = ranked, sorted(ranked, key=lambda one: one.weighted)  # by harm within each kind
            tries.append(light)
            if passes(light):
                high = light + 1
            elif 2 * _lost(made[light]) <= _lost(start):
                low = light
            else:
                ranked = by_harm
        count = least(low, high, passes, tries)
    if count is None:
        return replace(missed, remark="no layer is left to return to float32")
    layers = tuple(ranked[:count])
    if layers:
        output.say(f"{missed.precision}: {count} of {len(ranked)} layers stay in float32: {describe(layers)}")
    images = conversion.source.images
    times = layer_times.measure(
        missed.file,
        made[count].file,
        conversion.fp32.file,
        conversion.fp32.model,
        layers,
        images[np.arange(batch) % len(images)],
    )
    found = LayerSearch(
        before=missed,
        before_bytes=missed.bytes,
        corrected=corrected,
        layers=layers,
        total=len(ranked),
        tried=len(tries),
        seconds=time.perf_counter() - started,
        times=times,
    )
    return replace(made[count], search=found)


def _lost(one: Candidate) -> float:
    """The fraction of images on which a graph disagrees with the network."""
    return 1 - one.parity.outputs.top1_agreement


def least(low: int, high: int, passes: Callable[[int], bool], tried: list[int]) -> int | None:
    """The least count between two that passes, if all above one that passes do; None if none of those tried does.

    Args:
        low: A count that does not pass.
        high: A count above all that may be tried.
        passes: Whether the graph with that many layers in float32 keeps the limits.
        tried: Gets every count that was tried.
    """

    def check(count: int) -> bool:
        tried.append(count)
        return passes(count)

    at, step = low + 1, 1
    while at < high and not check(at):
        step *= 2
        low, at = at, min(at + step, high - 1) if at < high - 1 else high
    if at >= high:
        return None
    while low + 1 < at:
        middle = (low + at) // 2
        low, at = (low, middle) if check(middle) else (middle, at)
    return at


def describe(layers: Sequence[LayerHarm], most: int = 5, times: LayerTimes | None = None) -> str:
    """The layers with their harm, and their cost where `times` has it, in words; the first `most` of them."""
    added = [times.added(one.layer) if times is not None else None for one in layers[:most]]
    costs = ["" if cost is None else f", {cost:+.2f} ms" for cost in added]
    named = [f"{one.layer} ({one.harm:.2g}{cost})" for one, cost in zip(layers[:most], costs, strict=True)]
    more = f" and {len(layers) - most} more" if len(layers) > most else ""
    return ", ".join(named) + more
