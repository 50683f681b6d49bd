"""Reads finished comparisons, and says which of them share test images and which vary the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from scipy.special import ndtri

from poolzoo.common import files, json_reader
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare import config, statistics, table, writing
from poolzoo.compare.across.resampling import Predictions
from poolzoo.compare.grid import NONE, Variant
from poolzoo.data.identity import FILE, DataIdentity
from poolzoo.report.across_results import Cell
from poolzoo.report.results import ComparisonResult, SeedResult, VariantResult

ALPHA: Final = 0.05  # of a comparison that does not say its level
NOTHING: Final = "nothing"
AXES: Final = {"pool": "global poolings", "local_pool": "local poolings"}


@dataclass(frozen=True)
class Source:
    """One comparison in one backbone, as it was read.

    Attributes:
        name: Its directory or key, with the backbone where it has several.
        folder: Its directory; None where it is part of a file.
        result: The whole comparison.
        rows: The variants of this backbone that were trained, by name.
    """

    name: str
    folder: Path | None
    result: ComparisonResult
    backbone: str
    rows: Mapping[str, VariantResult]

    @property
    def varies(self) -> str:
        """What differs between its variants, such as `global poolings`."""
        axes = [title for key, title in AXES.items() if len({getattr(row, key) for row in self.rows.values()}) > 1]
        return " and ".join(axes) or NOTHING

    @property
    def data(self) -> str:
        return self.result.data.name or "unnamed data"

    @property
    def n_test(self) -> int:
        """Number of test images; 1 where it is not known, so that half an error is too much rather than too little."""
        return max(1, self.result.data.n_test or 1)

    @property
    def accuracies(self) -> dict[str, dict[int, float]]:
        """By variant and seed."""
        found: dict[str, dict[int, float]] = {}
        for name, row in self.rows.items():
            known = [(run.seed, run.accuracy) for run in row.per_seed]
            found[name] = {seed: accuracy for seed, accuracy in known if seed is not None and accuracy is not None}
            found[name] = dict(sorted(found[name].items()))
        return found

    @cached_property
    def identity(self) -> DataIdentity | None:
        """Which images were tested; None where nothing says so."""
        places = [self.folder] if self.folder else []
        places += [place for row in self.rows.values() for run in row.per_seed if (place := self._run(run))]
        return next((found for place in places if (found := DataIdentity.load(place / FILE))), None)

    @cached_property
    def predictions(self) -> Predictions | None:
        """Which images each run has right; None where a run directory is missing.

        Raises:
            CheckFailed: A run does not have the accuracy that the comparison reports.
        """
        right: dict[str, dict[int, np.ndarray]] = {name: {} for name in self.rows}
        for name, row in self.rows.items():
            for run in row.per_seed:
                place = self._run(run)
                if place is None or run.seed is None:
                    return None
                right[name][run.seed] = table.correct(place)
                if run.accuracy is None or abs(right[name][run.seed].mean() - run.accuracy) > 1e-6:
                    text = f"{place} has another accuracy than {self.name} reports"
                    raise CheckFailed(text, "the run has changed since; compare again")
        sizes = {len(one) for of in right.values() for one in of.values()}
        return Predictions(right, self._images(sizes.pop())) if len(sizes) == 1 else None

    def _run(self, run: SeedResult) -> Path | None:
        """The directory of a run, also where the comparison was moved; None where there is none with predictions."""
        if run.run is None:
            return None
        recorded = Path(run.run)
        parts = recorded.parts
        places = [recorded]
        if self.folder is not None and "trials" in parts:
            last = len(parts) - 1 - parts[::-1].index("trials")
            places.insert(0, self.folder.joinpath(*parts[last:]))
        return next((place for place in places if (place / "predictions.npz").is_file()), None)

    def _images(self, count: int) -> np.ndarray:
        """A number for each test image, the same in every comparison where its pixels are known."""
        split = self.identity.splits.get("test") if self.identity else None
        if split is None or len(split.digests) != count:
            return np.arange(count, dtype=np.uint64)
        return np.ascontiguousarray(split.digests).view(np.uint64).ravel()

    @property
    def identified(self) -> bool:
        """Whether its test images are known by their pixels or files, so that they are found in other comparisons."""
        split = self.identity.splits.get("test") if self.identity else None
        return split is not None and self.predictions is not None and len(split.digests) == len(self.predictions.images)

    @property
    def errors(self) -> dict[str, float]:
        """The standard error of each gain over the file's own baseline that its interval implies.

        The interval is simultaneous over the m variants with a test: its half width is at least the normal quantile at
        `1 − alpha / 2m` standard errors, so that the error is rather too large than too small.
        """
        deltas = {name: row.delta for name, row in self.rows.items() if row.delta and row.delta.p is not None}
        quantile = float(-ndtri((self.result.alpha or ALPHA) / len(deltas) / 2)) if deltas else 1.0
        return {
            name: max(delta.high - delta.mean, delta.mean - delta.low) / quantile
            for name, delta in deltas.items()
            if delta.mean is not None and delta.low is not None and delta.high is not None
        }

    def find(self, text: str) -> str | None:
        """The variant that a name, a pooling or a local pooling means; None where there is none."""
        variants = [Variant(self.backbone, str(row.pool), row.local_pool) for row in self.rows.values()]
        for names in ("name", "pool", "local_pool"):
            for one in variants:
                if (getattr(one, names) or (NONE if names == "local_pool" else "")) == text:
                    return one.name
        return None

    def cells(self, baseline: str, alpha: float) -> dict[str, Cell]:
        """Every variant's gain, and whether it is significant in this comparison.

        Raises:
            UsageError: Its baseline is another one, and its runs are not at hand for new tests.
        """
        if baseline == self.result.baseline:
            tests = {name: row.delta for name, row in self.rows.items()}
        elif self.predictions is None:
            text = f"{self.name} has intervals over {self.result.baseline}, not over {baseline}"
            raise UsageError(text, f"give --baseline {self.result.baseline}, or the directories with the runs")
        else:
            tested = statistics.compare(self.predictions.right, baseline, alpha)
            tests = {name: one.delta for name, one in tested.variants.items()}
        means = {name: float(np.mean(list(of.values()))) for name, of in self.accuracies.items()}
        found = {}
        for name, mean in means.items():
            delta, gain = tests.get(name), mean - means[baseline]
            significant = delta is not None and delta.p_adjusted is not None and delta.p_adjusted < alpha
            found[name] = Cell(gain=gain, better=significant and gain > 0, worse=significant and gain < 0)
        return found


def is_comparison(path: Path) -> bool:
    """Whether a path is a comparison or a file of some, rather than a run."""
    return path.is_file() or any((path / name).is_file() for name in (writing.RESULT, config.FILE))


def read(paths: Sequence[Path]) -> list[Source]:
    """The comparisons in directories of `compare` and `report`, and in JSON files of one or many.

    Raises:
        UsageError: One is not finished, or is there twice.
        CheckFailed: One is damaged, or lacks the accuracies of single seeds.
    """
    found: list[Source] = []
    seen: dict[object, str] = {}
    for path in paths:
        for name, content, folder in _contents(path):
            result = ComparisonResult.from_json(content)
            digest = (
                result.started,
                *((row.pool, row.local_pool, row.backbone, _seeds(row)) for row in result.results),
            )
            if digest in seen:
                raise UsageError(f"{name} and {seen[digest]} are the same comparison", "name each once")
            label = f"{path}: {name}" if name in seen.values() else name
            seen[digest] = label
            found += _sources(label, folder, result)
    return found


def _seeds(row: VariantResult) -> tuple[float | None, ...]:
    return tuple(run.accuracy for run in row.per_seed)


def _contents(path: Path) -> list[tuple[str, Mapping[str, object], Path | None]]:
    """The comparisons at a path: name, content, and directory."""
    if path.is_dir():
        if not files.has_file(path / writing.RESULT):
            raise UsageError(f"{path} is not finished", f"poolzoo compare --resume {path}")
        file, folder = path / writing.RESULT, path
    else:
        file, folder = path, None
    try:
        content = files.read_json(file)
    except CheckFailed as error:
        raise CheckFailed(error.message, error.hint if folder else "give directories of poolzoo compare") from error
    if isinstance(content, Mapping) and "results" in content:
        inside = folder or (path.parent if path.name == writing.RESULT else None)
        return [(str(folder or path), content, inside)]
    if (
        isinstance(content, Mapping)
        and content
        and all("results" in json_reader.mapping(one) for one in content.values())
    ):
        return [(str(name), json_reader.mapping(one), None) for name, one in content.items()]
    raise CheckFailed(f"{file} holds no comparison", "give directories of poolzoo compare")


def _sources(name: str, folder: Path | None, result: ComparisonResult) -> list[Source]:
    """One for each backbone of a comparison."""
    backbones = list(dict.fromkeys(str(row.backbone) for row in result.results))
    found = []
    for backbone in backbones:
        rows = {}
        for row in result.results:
            if str(row.backbone) == backbone and row.done and row.pool is not None:
                if not row.per_seed or any(run.accuracy is None or run.seed is None for run in row.per_seed):
                    text = f"{name} lacks the accuracies of single seeds"
                    raise CheckFailed(text, "give the directory that poolzoo compare wrote")
                if odd := [run.accuracy for run in row.per_seed if not 0 <= (run.accuracy or 0.0) <= 1]:
                    raise CheckFailed(f"{name} has an accuracy of {odd[0]:g}", "accuracies are 0 to 1")
                rows[Variant(backbone, row.pool, row.local_pool).name] = row
        label = f"{name} · {backbone}" if len(backbones) > 1 else name
        found.append(Source(label, folder, result, backbone, rows))
    if not any(one.rows for one in found):
        raise CheckFailed(f"{name} has no finished variant", "leave it out")
    return found


def number_test_sets(sources: Sequence[Source]) -> list[int]:
    """A number for each source; those whose data have the same name or share test images have the same one."""
    numbers = list(range(len(sources)))
    images = [_digests(source) for source in sources]
    for later, source in enumerate(sources):
        for earlier in range(later):
            shared = not images[earlier].isdisjoint(images[later])
            if shared or source.data == sources[earlier].data:
                old, new = numbers[later], numbers[earlier]
                numbers = [new if number == old else number for number in numbers]
    order = list(dict.fromkeys(numbers))
    return [order.index(number) for number in numbers]


def share_images(sources: Sequence[Source]) -> bool:
    """Whether each source is known to have a test image in common with another one."""
    images = [_digests(source) for source in sources]
    return all(any(not one.isdisjoint(other) for other in images if other is not one) for one in images)


def _digests(source: Source) -> set[int]:
    split = source.identity.splits.get("test") if source.identity else None
    return set() if split is None else set(np.ascontiguousarray(split.digests).view(np.uint64).ravel().tolist())


def with_common_variants(sources: Sequence[Source], baseline: str) -> list[Source]:
    """The sources that share a variant beside the baseline; where not all do, as few as possible are left out."""
    kept = list(sources)
    while len(kept) > 1 and len(common_variants(kept, baseline)) == 0:
        rest = [[one for one in kept if one is not left] for left in kept]
        sizes = [(len(common_variants(some, baseline)), -len(left.rows)) for some, left in zip(rest, kept, strict=True)]
        kept = rest[sizes.index(max(sizes))]
    return kept


def common_variants(sources: Sequence[Source], baseline: str) -> list[str]:
    """The variants beside the baseline that every source has, in the order of the first."""
    return [name for name in sources[0].rows if name != baseline and all(name in one.rows for one in sources)]
