"""What prediction notes of the image files that it reads: values beyond their type's scale, sides that are cropped."""

from __future__ import annotations

from poolzoo.common import json_reader, output
from poolzoo.data import sizes
from poolzoo.data.decode import Misfits
from poolzoo.data.sizes import Size


class Remarks:
    """Counts files with values beyond their scale, and files of another aspect ratio than the network's.

    Attributes:
        misfits: Deep images whose values do not fit the scale of their type.
        cropped: Number of files of which a part is cropped.
        largest_cut: The largest fraction of a side that is cropped, 0–1.
        size: Height and width of the network's images; None before the first file.
    """

    def __init__(self) -> None:
        self.misfits = Misfits()
        self.cropped = 0
        self.largest_cut = 0.0
        self.size: Size | None = None

    def add_size(self, native: Size | None, size: Size) -> None:
        """Counts a file of size `native` for a network of size `size`."""
        self.size = size
        fraction = sizes.cut(native, size)[1] if native is not None else 0.0
        if fraction >= sizes.MIN_CUT:
            self.cropped += 1
            self.largest_cut = max(self.largest_cut, fraction)

    def merge(self, other: Remarks) -> None:
        """Adds what was noted of other files."""
        self.misfits.counts.update(other.misfits.counts)
        self.misfits.examples = {**other.misfits.examples, **self.misfits.examples}
        self.cropped += other.cropped
        self.largest_cut = max(self.largest_cut, other.largest_cut)
        self.size = self.size or other.size

    def report(self, total: int) -> None:
        """Says it, of `total` images."""
        self.misfits.warn(total, "images")
        if self.cropped and self.size:
            text = f"{self.cropped:,} of {total:,} images are not of the aspect {sizes.show(self.size)}"
            output.say(f"{text}: up to {100 * self.largest_cut:.0f} % of a side is cut off")

    def to_json(self) -> dict[str, object]:
        """`{"misfits", "cropped", "largest_cut", "size"}`."""
        cut = {"cropped": self.cropped, "largest_cut": self.largest_cut, "size": self.size}
        return {"misfits": self.misfits.to_json(), **cut}

    @classmethod
    def from_json(cls, value: object) -> Remarks:
        """Reads what `to_json` gave."""
        found, given = cls(), json_reader.mapping(value)
        misfits = {kind: json_reader.items(pair) for kind, pair in json_reader.mapping(given.get("misfits")).items()}
        found.misfits = Misfits({kind: pair for kind, pair in misfits.items() if len(pair) == 2})
        found.cropped = json_reader.integer(given.get("cropped")) or 0
        found.largest_cut = json_reader.number(given.get("largest_cut")) or 0.0
        sides = [json_reader.integer(side) or 0 for side in json_reader.items(given.get("size"))]
        found.size = (sides[0], sides[1]) if len(sides) == 2 else None
        return found
