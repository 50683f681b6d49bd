"""Several comparisons together: which pooling wins over them, on these test sets and perhaps on others.

Two questions have two answers. On these test sets, gains are aggregated and tested against seed and sampling variance
(`aggregate`). On other data, a test set is one observation (`ranks`), and few of them can show nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.common.errors import UsageError
from poolzoo.compare.across import aggregate, conclusions, ranks, several
from poolzoo.compare.across.aggregate import Aggregate
from poolzoo.compare.across.resampling import Block, weights
from poolzoo.compare.across.several import Source
from poolzoo.compare.statistics import RESAMPLES, holm
from poolzoo.plugin.grammar import suggest
from poolzoo.report.across_results import AcrossComparison, AcrossGroup, AcrossResult, AcrossVariant, Cell

SEVERAL: Final = 2  # comparisons that an aggregate needs


def report(paths: Sequence[Path], baseline: str | None, alpha: float, resamples: int = RESAMPLES) -> AcrossResult:
    """What several comparisons say together; those that vary the same form a group.

    Args:
        paths: As for `several.read`.
        baseline: A name, a pooling, or a local pooling that all comparisons have; None for the one that they used.
        alpha: The significance level of the tests.
        resamples: Of the bootstrap.

    Raises:
        UsageError: There are not two comparisons that vary the same, they share no variant, or have no common baseline.
        CheckFailed: One is damaged.
    """
    sources = several.read(paths)
    if len(sources) < SEVERAL:
        raise UsageError(f"{sources[0].name} is one comparison, two are needed", "its own page is in its directory")
    numbers = dict(zip((one.name for one in sources), several.number_test_sets(sources), strict=True))
    titles = list(dict.fromkeys(one.varies for one in sources))
    of_title = {title: [one for one in sources if one.varies == title] for title in titles}
    groups = [
        _group(title, found, _baseline(found, baseline), numbers, alpha, resamples)
        for title, found in of_title.items()
        if title != several.NOTHING and len(found) >= SEVERAL
    ]
    alone = [one for found in of_title.values() if len(found) < SEVERAL for one in found]
    alone += [one for one in of_title.get(several.NOTHING, []) if one not in alone]
    if not groups:
        varied = "; ".join(f"{one.name} varies {one.varies}" for one in sources)
        raise UsageError(f"no two comparisons vary the same: {varied}", "compare poolings of one kind on several data")
    notes = [f"{one.name} takes no part: no other comparison varies {one.varies}" for one in alone]
    notes += [
        f"{one.name} takes no part: {one.left_out}" for group in groups for one in group.comparisons if one.left_out
    ]
    notes += _notes_on_images(groups, sources)
    notes += [note for one in sources if (note := _note_on_seeds(one))]
    return AcrossResult(schema=manifest.SCHEMA, alpha=alpha, resamples=resamples, groups=groups, notes=notes)


def _baseline(sources: Sequence[Source], text: str | None) -> str:
    """The variant that the others are compared with.

    Raises:
        UsageError: The comparisons used different ones, or one of them lacks it.
    """
    if text is None:
        used = {one.name: str(one.result.baseline) for one in sources}
        if len(set(used.values())) > 1:
            shown = ", ".join(f"{baseline} in {name}" for name, baseline in used.items())
            raise UsageError(f"the comparisons have different baselines: {shown}", "choose one with --baseline NAME")
        text = next(iter(used.values()))
    meant: dict[str, str] = {}
    for one in sources:
        found = one.find(text)
        if found is None:
            known = list(one.rows)
            hint = suggest(text, known) or f"it has {', '.join(known)}"
            raise UsageError(f"the baseline {text!r} is not in {one.name}", hint)
        meant[one.name] = found
    if len(set(meant.values())) > 1:
        shown = ", ".join(f"{found} in {name}" for name, found in meant.items())
        raise UsageError(f"--baseline {text!r} means different variants: {shown}", "write the whole name")
    return meant[sources[0].name]


def _group(
    title: str,
    sources: Sequence[Source],
    baseline: str,
    numbers: Mapping[str, int],
    alpha: float,
    resamples: int,
) -> AcrossGroup:
    """The aggregates, ranks and sentences of comparisons that vary the same.

    Raises:
        UsageError: They share no variant beside the baseline.
    """
    kept = several.with_common_variants(sources, baseline)
    if len(kept) < SEVERAL:
        given = " and ".join(one.name for one in sources)
        raise UsageError(f"{given} share no variant beside {baseline}", "compare the same poolings on several data")
    names = several.common_variants(kept, baseline)
    blocks = _blocks(kept, numbers)
    cells = {one.name: one.cells(baseline, alpha) for one in sources}
    found = aggregate.aggregate(blocks, names, baseline, alpha, resamples)
    scores = _scores(blocks, [*names, baseline], baseline)
    variants = _variants(blocks, names, baseline, found, scores, [cells[one.name] for one in kept])
    comparisons = [_comparison(one, numbers, cells[one.name], one in kept, blocks) for one in sources]
    every = dict.fromkeys(name for one in sources for name in one.rows)
    group = AcrossGroup(
        title=title,
        baseline=baseline,
        comparisons=sorted(comparisons, key=lambda one: one.left_out is not None),
        test_sets=len(scores),
        variants=sorted(variants, key=lambda one: (-one.accuracy, one.name)),
        missing={n: sum(n not in one.rows for one in kept) for n in every if n not in (*names, baseline)},
        profile={name: _run_gains(blocks, name, baseline) for name in names},
    )
    if group.test_sets > 1:
        order = np.argsort([one.average_rank for one in variants], kind="stable").tolist()
        group = replace(
            group,
            friedman_p=ranks.friedman(scores),
            critical_difference=ranks.critical_difference(len(variants), group.test_sets, alpha),
            joined=ranks.cliques(order, ranks.pairwise(scores), alpha),
        )
    return replace(group, conclusions=conclusions.conclusions(group, alpha))


def _blocks(sources: Sequence[Source], numbers: Mapping[str, int]) -> list[Block]:
    """The sources as the statistics take them. Predictions count where all of a test set are at hand and comparable."""
    usable = {}
    for number in {numbers[one.name] for one in sources}:
        same = [one for one in sources if numbers[one.name] == number]
        sizes = {one.result.data.n_test for one in same}
        aligned = all(one.identified for one in same) or len(same) == 1
        aligned = aligned or (len(sizes) == 1 and not any(one.identified for one in same))
        usable[number] = aligned and all(one.predictions is not None for one in same)
    return [
        Block(
            name=one.name,
            test_set=numbers[one.name],
            accuracies=one.accuracies,
            n_test=one.n_test,
            errors=one.errors,
            predictions=one.predictions if usable[numbers[one.name]] else None,
        )
        for one in sources
    ]


def _scores(blocks: Sequence[Block], names: Sequence[str], baseline: str) -> np.ndarray:
    """The mean gain of each variant on each test set, `float[T, V]`."""
    gains = np.array([[block.gain(name, baseline) for name in names] for block in blocks])
    sets = [block.test_set for block in blocks]
    return np.stack([gains[[one == number for one in sets]].mean(0) for number in dict.fromkeys(sets)])


def _variants(
    blocks: Sequence[Block],
    names: Sequence[str],
    baseline: str,
    found: Mapping[str, Aggregate],
    scores: np.ndarray,
    cells: Sequence[Mapping[str, Cell]],
) -> list[AcrossVariant]:
    """One for each name, then the baseline."""
    average = ranks.ranks(scores).mean(0).tolist()
    weight = weights(blocks)
    elsewhere = holm([ranks.signed_rank(scores[:, place]) for place in range(len(names))])
    rows = []
    for place, name in enumerate([*names, baseline]):
        accuracy = float(weight @ [block.mean(name) for block in blocks])
        row = AcrossVariant(name=name, accuracy=accuracy, average_rank=average[place])
        if name != baseline:
            of = [one[name] for one in cells]
            own = found[name]
            row = replace(
                row,
                gain=own.gain,
                iqm=own.iqm,
                improvement=own.improvement,
                error_ratio=own.error_ratio,
                better_in=sum(cell.better for cell in of),
                worse_in=sum(cell.worse for cell in of),
                elsewhere_p=elsewhere[place],
                rests_on=own.rests_on,
            )
            row = replace(row, verdict=_verdict(row))
        rows.append(row)
    return rows


def _verdict(row: AcrossVariant) -> str:
    """A win or a loss needs a significant aggregate that no comparison contradicts significantly."""
    if row.gain is None or row.gain.p is None:
        return "not tested"
    against = row.worse_in if row.gain.better else row.better_in
    if (row.better_in and row.worse_in) or ((row.gain.better or row.gain.worse) and against):
        return "depends"
    return "better" if row.gain.better else "worse" if row.gain.worse else "not significant"


def _comparison(
    source: Source, numbers: Mapping[str, int], cells: Mapping[str, Cell], kept: bool, blocks: Sequence[Block]
) -> AcrossComparison:
    resampled = any(block.name == source.name and block.predictions is not None for block in blocks)
    return AcrossComparison(
        name=source.name,
        data=source.data,
        backbone=source.backbone,
        test_set=1 + numbers[source.name],
        n_test=source.n_test,
        seeds=max(len(of) for of in source.accuracies.values()),
        images_resampled=resampled,
        cells=cells,
        left_out=None if kept else "it shares no variant beside the baseline with all the others",
    )


def _run_gains(blocks: Sequence[Block], name: str, baseline: str) -> list[float]:
    """The gain of each single run over the baseline's mean in its comparison, sorted."""
    return sorted(accuracy - block.mean(baseline) for block in blocks for accuracy in block.accuracies[name].values())


def _note_on_seeds(source: Source) -> str:
    """Which variants have fewer seeds than others, because a trial failed or a race stopped them; "" for none."""
    seeds = {name: len(of) for name, of in source.accuracies.items()}
    most = max(seeds.values())
    fewer = [f"{name} ({count} of {most})" for name, count in seeds.items() if count < most]
    return f"{source.name}: some variants have fewer seeds: {', '.join(fewer)}" if fewer else ""


def _notes_on_images(groups: Sequence[AcrossGroup], sources: Sequence[Source]) -> list[str]:
    """Which comparisons count as one test set, and for which predictions were not at hand."""
    notes = []
    for group in groups:
        for number in dict.fromkeys(one.test_set for one in group.aggregated):
            same = [one.name for one in group.aggregated if one.test_set == number]
            if len(same) > 1:
                shared = several.share_images([one for one in sources if one.name in same])
                why = "share test images" if shared else "have data of the same name"
                notes.append(f"{' and '.join(same)} {why}, so they count as one test set")
    if without := [one.name for group in groups for one in group.aggregated if not one.images_resampled]:
        notes.append(
            f"{', '.join(without)}: predictions of single images are not at hand; sampling variance is taken from the "
            "intervals that each comparison reports, and only seeds are resampled"
        )
    return notes
