"""Returns layers of a graph in lower precision to float32 until it keeps the user's limits.

Layers are ranked by their harm once. The graph with the n most harmful layers in float32 is made for n = 1, 2, 4, …
until one keeps the limits. Then a binary search finds the least n. A graph that cannot win anyway is not searched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from poolzoo.common import output
from poolzoo.export import candidates
from poolzoo.export.candidate import Candidate, LayerSearch
from poolzoo.export.candidates import Conversion
from poolzoo.export.layer_harm import LayerHarm
from poolzoo.export.precision import Converter

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
        found[name] = search(one, conversion, converters[name])
        if found[name].parity.passed:
            fastest = max(fastest, speeds[name])
    return list(found.values())


def search(missed: Candidate, conversion: Conversion, converter: Converter) -> Candidate:
    """The graph with the fewest layers in float32 that keeps the limits; `missed` with a remark where none does.

    Args:
        missed: A graph that misses the limits.
        conversion: Makes candidates.
        converter: What converted it.
    """
    started = time.perf_counter()
    output.say(f"{missed.precision}: {missed.parity.violations}; measuring the harm of each layer")
    ranked = converter.rank_layers(missed.file)
    made: dict[int, Candidate] = {}

    def passes(count: int) -> bool:
        output.detail(f"{missed.precision} with {count} of {len(ranked)} layers in float32")
        file = missed.file.with_name(f"{missed.precision}-{count}.onnx")
        one = conversion.make(converter, file, [name for layer in ranked[:count] for name in layer.nodes])
        if one.parity.passed:
            made[count] = one
        return one.parity.passed

    tries: list[int] = []
    count = least(len(ranked), passes, tries)
    if count is None:
        remark = "no layer is left to return to float32" if ranked else "it has no layer to return to float32"
        return replace(missed, remark=remark)
    seconds = time.perf_counter() - started
    layers: tuple[LayerHarm, ...] = tuple(ranked[:count])
    output.say(f"{missed.precision}: {count} of {len(ranked)} layers stay in float32: {describe(layers)}")
    return replace(
        made[count],
        search=LayerSearch(
            before=missed,
            before_bytes=missed.bytes,
            layers=layers,
            total=len(ranked),
            tried=len(tries),
            seconds=seconds,
        ),
    )


def least(total: int, passes: Callable[[int], bool], tried: list[int]) -> int | None:
    """The least count from 1 to `total` - 1 that passes, if all above one that passes do; None if none passes.

    Args:
        total: How many layers there are. With all of them in float32 nothing is left in lower precision.
        passes: Whether the graph with that many layers in float32 keeps the limits.
        tried: Gets every count that was tried.
    """

    def check(count: int) -> bool:
        tried.append(count)
        return passes(count)

    low, high = 0, 1
    while high < total and not check(high):
        low, high = high, min(2 * high, total - 1) if high < total - 1 else total
    if high >= total:
        return None
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if check(middle) else (middle, high)
    return high


def describe(layers: Sequence[LayerHarm], most: int = 5) -> str:
    """The layers and their harm in words, the first `most` of them."""
    named = [f"{one.layer} ({one.harm:.2g})" for one in layers[:most]]
    more = f" and {len(layers) - most} more" if len(layers) > most else ""
    return ", ".join(named) + more
