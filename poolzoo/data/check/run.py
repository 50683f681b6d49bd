"""A whole check: the splits are read, their copies found, and what is wrong is gathered."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from poolzoo.common import files
from poolzoo.data.check import copies, oddities, rows, scan
from poolzoo.data.check.findings import TRAIN, CheckReport, ImageRef, Kind, Odd, Pair, Sizes, SplitFacts, Unreadable
from poolzoo.data.check.look import VERSION
from poolzoo.data.check.splits import Images
from poolzoo.data.labels import counts

ORDER = (TRAIN, "val", "test")  # an image of an earlier split is the first of a pair
SHOWN = 12  # odd images of a kind that are named


def check(
    source: str, splits: Mapping[str, Images], classes: Sequence[str], cache_dir: Path, *, near: bool = True
) -> CheckReport:
    """Looks at every image of a data set, and gives what is wrong.

    Args:
        source: What names it; what was found is kept under this name.
        splits: Its images.
        classes: The names of its labels.
        cache_dir: Where what was found is kept.
        near: Whether near-duplicates are looked for beside exact ones.

    Raises:
        EnvironmentProblem: What was found cannot be written anywhere.
    """
    splits = {name: splits[name] for name in sorted(splits, key=ORDER.index)}
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    path = cache_dir / "checks" / f"{files.slug(source)[-40:]}-{digest}-v{VERSION}.rows"
    with rows.kept(path, sum(map(len, splits.values()))) as kept:
        scanned = scan.scan(splits, kept)
        return _Gathering(source, splits, tuple(classes), scanned, kept.all(), near).report()


class _Gathering:
    """The images that can be read, numbered over all splits, and what is known of them."""

    def __init__(
        self,
        source: str,
        splits: Mapping[str, Images],
        classes: tuple[str, ...],
        scanned: scan.Scan,
        table: np.ndarray,
        near: bool,
    ) -> None:
        self.source = source
        self.images = splits
        self.classes = classes
        self.scanned = scanned
        self.table = table
        self.near = near
        self.names = list(splits)
        readable = [np.flatnonzero(numbers >= 0) for numbers in scanned.numbers.values()]
        self.position = np.concatenate(readable)
        self.split = np.repeat(np.arange(len(readable)), [len(found) for found in readable])
        self.row = np.concatenate([scanned.numbers[name][at] for name, at in zip(splits, readable, strict=True)])

    def report(self) -> CheckReport:
        found = copies.find(self.table, self.row, self.near)
        within, across = self._exact(found.content)
        more = self._near(found)
        within, across = within + more[0], _best(across + more[1])
        within.sort(key=_rank)
        across.sort(key=lambda pair: (ORDER.index(pair.second.split), *_rank(pair)))
        return CheckReport(
            source=self.source,
            splits={name: self._facts(place, within) for place, name in enumerate(self.names)},
            leaks=tuple(across),
            labels=tuple(pair for pair in (*across, *within) if pair.first.label != pair.second.label),
            copies=tuple(within),
            unreadable=tuple(
                Unreadable(self._reference(name, position), reason)
                for name in self.names
                for position, reason in self.scanned.broken[name]
            ),
            near=self.near,
            looked=self.scanned.looked,
        )

    def _exact(self, content: np.ndarray) -> tuple[list[Pair], list[Pair]]:
        """Pairs of the same bytes, within a split and across two: each image with the first one."""
        within, across = [], []
        for members in _groups(content):
            firsts = self._first_of_each_split(members)
            for member in members.tolist():
                first = firsts[int(self.split[member])]
                if member != first:
                    within.append(self._pair(first, member, "exact", 1.0))
                if self.split[member] != self.split[members[0]]:
                    across.append(self._pair(int(members[0]), member, "exact", 1.0))
        return within, across

    def _near(self, found: copies.Copies) -> tuple[list[Pair], list[Pair]]:
        """Pairs that look alike, within a split and across two."""
        within, across = [], []
        members = _Members(found.content)
        for (one, other), similarity, mirrored in zip(
            found.pairs.tolist(), found.similarity.tolist(), found.mirrored.tolist(), strict=True
        ):
            kind: Kind = "mirrored" if mirrored else "near"
            left, right = members.of(one), members.of(other)
            lefts, rights = self._first_of_each_split(left), self._first_of_each_split(right)
            for split, first in lefts.items():
                if split in rights:
                    earlier, later = sorted((first, rights[split]))
                    within.append(self._pair(earlier, later, kind, similarity))
            for firsts, others in ((lefts, right), (rights, left)):
                first = firsts[min(firsts)]
                for other in others.tolist():
                    if self.split[other] > self.split[first]:
                        across.append(self._pair(first, other, kind, similarity))
        return within, across

    def _first_of_each_split(self, members: np.ndarray) -> dict[int, int]:
        firsts: dict[int, int] = {}
        for member in members.tolist():
            firsts.setdefault(int(self.split[member]), member)
        return firsts

    def _pair(self, first: int, second: int, kind: Kind, similarity: float) -> Pair:
        one, other = (self._reference(self.names[self.split[at]], int(self.position[at])) for at in (first, second))
        return Pair(one, other, kind, round(similarity, 4))

    def _reference(self, split: str, position: int) -> ImageRef:
        images = self.images[split]
        label = images.labels[position]
        places = np.flatnonzero(label).tolist() if images.labels.ndim == 2 else [int(label)]
        return ImageRef(split, images.name(position), ", ".join(map(self._class, places)), position)

    def _class(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)

    def _facts(self, place: int, within: Iterable[Pair]) -> SplitFacts:
        name = self.names[place]
        labels = self.images[name].labels
        chosen = np.flatnonzero(self.split == place)
        rows = self.row[chosen]
        mean, square = (self.table[field][rows].astype(np.float64) for field in ("mean", "square"))
        channels = mean.mean(0) if len(rows) else np.zeros(0)
        std = np.sqrt(np.maximum(square.mean(0) - channels**2, 0)) if len(rows) else channels
        return SplitFacts(
            images=len(labels),
            classes=self._counts(labels),
            copies=_superfluous([pair for pair in within if pair.first.split == name]),
            sizes=_sizes(self.table["size"][rows]) if len(rows) else None,
            mean=tuple(round(value / 255, 4) for value in channels.tolist()),
            std=tuple(round(value / 255, 4) for value in std.tolist()),
            odd=tuple(self._odd(name, chosen)),
        )

    def _counts(self, labels: np.ndarray) -> dict[str, int]:
        found = counts(labels, len(self.classes)).tolist()
        return {self._class(label): count for label, count in enumerate(found)}

    def _odd(self, name: str, chosen: np.ndarray) -> Iterable[Odd]:
        bits = self.table["odd"][self.row[chosen]]
        for bit, what in oddities.WORDS.items():
            if len(found := np.flatnonzero(bits & bit)):
                first = [self._reference(name, int(self.position[at])) for at in chosen[found[:SHOWN]]]
                yield Odd(what, len(found), tuple(first))


class _Members:
    """The images of each content."""

    def __init__(self, content: np.ndarray) -> None:
        self.order = np.argsort(content, kind="stable")
        self.content = content[self.order]

    def of(self, content: int) -> np.ndarray:
        low, high = np.searchsorted(self.content, [content, content + 1])
        return self.order[low:high]


def _groups(content: np.ndarray) -> Iterable[np.ndarray]:
    """The images of each content that several have, in order."""
    members = _Members(content)
    several = np.flatnonzero(np.bincount(content) > 1)
    return map(members.of, several.tolist())


def _rank(pair: Pair) -> tuple[bool, float, str]:
    """Exact pairs first, then those most alike."""
    return pair.kind != "exact", -pair.similarity, pair.second.name


def _best(pairs: Iterable[Pair]) -> list[Pair]:
    """Of each image and each split that it is in too, the pair that is most alike."""
    best: dict[tuple[str, int, str], Pair] = {}
    for pair in sorted(pairs, key=_rank):
        best.setdefault((pair.second.split, pair.second.position, pair.first.split), pair)
    return list(best.values())


def _superfluous(pairs: Sequence[Pair]) -> int:
    """How many images could go so that none is a copy of another: of each group all but one."""
    places: dict[int, int] = defaultdict(lambda: len(places))
    edges = np.array([(places[pair.first.position], places[pair.second.position]) for pair in pairs]).reshape(-1, 2)
    if not len(edges):
        return 0
    graph = sparse.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(places), len(places)))
    groups, _ = csgraph.connected_components(graph, directed=False)
    return len(places) - int(groups)


def _sizes(sizes: np.ndarray) -> Sizes:
    pixels = sizes.astype(np.int64).prod(1)
    ratio = sizes[:, 1] / sizes[:, 0]
    pair = [tuple(map(int, values)) for values in (sizes[pixels.argmin()], np.median(sizes, 0), sizes[pixels.argmax()])]
    return Sizes(
        smallest=pair[0],  # type: ignore[arg-type]
        median=pair[1],  # type: ignore[arg-type]
        largest=pair[2],  # type: ignore[arg-type]
        narrowest=round(float(ratio.min()), 3),
        widest=round(float(ratio.max()), 3),
        distinct=len(np.unique(sizes, axis=0)),
    )
