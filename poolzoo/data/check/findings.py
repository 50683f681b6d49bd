"""The result of a check as types: what is wrong with a data set, with the images concerned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal

Kind = Literal["exact", "near", "mirrored"]
TRAIN: Final = "train"
FEW: Final = 5  # images, below which a class is named


@dataclass(frozen=True)
class ImageRef:
    """One image: its split, its place for people, the name of its class (several are joined by commas)."""

    split: str
    name: str
    label: str
    position: int


@dataclass(frozen=True)
class Pair:
    """Two images that show the same picture; of two splits, `first` is the one to train on.

    Attributes:
        first: One.
        second: The other.
        kind: Of the same bytes, nearly the same, or nearly the mirror image.
        similarity: Correlation of the thumbnails, up to 1.
    """

    first: ImageRef
    second: ImageRef
    kind: Kind
    similarity: float


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read, and why."""

    image: ImageRef
    reason: str


@dataclass(frozen=True)
class Odd:
    """Images that are unusual in one way: what they are in words, how many, and the first ones."""

    what: str
    count: int
    first: tuple[ImageRef, ...]


@dataclass(frozen=True)
class Sizes:
    """Heights and widths in pixels, and width : height.

    Attributes:
        smallest: (height, width) of the image of the fewest pixels.
        median: Of the heights and of the widths.
        largest: (height, width) of the image of the most pixels.
        narrowest: The least width : height.
        widest: The most.
        distinct: How many different sizes there are.
    """

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    narrowest: float
    widest: float
    distinct: int


@dataclass(frozen=True)
class SplitFacts:
    """About one split.

    Attributes:
        images: How many there are.
        classes: Images of each class, by its name, in the order of the labels.
        copies: How many images could go, since another one in the split shows the same.
        sizes: Of those that can be read; None where none can.
        mean: Of R, G and B on the 0–1 scale, each image counted alike.
        std: Their standard deviations over all pixels.
        odd: What is unusual.
    """

    images: int
    classes: Mapping[str, int]
    copies: int
    sizes: Sizes | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    odd: tuple[Odd, ...]

    @property
    def few(self) -> list[str]:
        """The classes of fewer than `FEW` images."""
        return [name for name, count in self.classes.items() if count < FEW]

    @property
    def imbalance(self) -> float:
        """The largest class in terms of the smallest one that has an image; 1 without any."""
        counts = [count for count in self.classes.values() if count]
        return max(counts) / min(counts) if counts else 1.0


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        source: What was checked.
        splits: About each split.
        leaks: Pairs across two splits.
        labels: Pairs, of all below, whose images have different labels.
        copies: Pairs within a split.
        unreadable: Images that cannot be read.
        near: Whether near-duplicates were looked for.
        looked: How many images were opened; the others were known from an earlier check.
    """

    source: str
    splits: Mapping[str, SplitFacts]
    leaks: tuple[Pair, ...]
    labels: tuple[Pair, ...]
    copies: tuple[Pair, ...]
    unreadable: tuple[Unreadable, ...]
    near: bool
    looked: int

    def leaks_into(self, split: str) -> list[Pair]:
        """Images of a split that are among the training images too."""
        return [pair for pair in self.leaks if pair.first.split == TRAIN and pair.second.split == split]

    @property
    def passed(self) -> bool:
        """Whether no image to train on is in another split."""
        return not any(pair.first.split == TRAIN for pair in self.leaks)

    def to_json(self) -> dict[str, object]:
        """All of it as JSON."""
        whole = asdict(self)
        whole["passed"] = self.passed
        for name, facts in self.splits.items():
            whole["splits"][name] |= {"imbalance": facts.imbalance, "few": facts.few}
        return whole
