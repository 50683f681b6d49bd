"""All targets, by rooms: each module opens its targets in a scratch folder."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from fuzz.harness import Target

ROOMS: dict[str, tuple[str, ...]] = {  # each room with what must be installed
    "texts": (),
    "settings": (),
    "runs": (),
    "comparisons": (),
    "boards": (),
    "arrays": (),
    "graphs": (),
    "bundles": (),
    "images": (),
    "tables": (),
    "shards": ("webdataset",),
    "parquet": ("pyarrow",),
    "plugins": (),
    "caches": (),
    "predictions": (),
    "converted": (),
    "hub": ("datasets",),
}
# How many inputs a room gets, as a part of those that another one gets: where a single input takes long.
WEIGHTS: dict[str, float] = {"boards": 0.3, "plugins": 0.2, "converted": 0.3, "predictions": 0.5, "hub": 0.1}


def inputs_of(room: str, rooms: Sequence[str], inputs: int) -> int:
    """How many of the inputs of all rooms together are those of one, rounded up."""
    return 1 + int(inputs * WEIGHTS.get(room, 1.0) / sum(WEIGHTS.get(one, 1.0) for one in rooms))


def missing(room: str) -> list[str]:
    """The packages that a room needs and that are not installed."""
    return [name for name in ROOMS[room] if importlib.util.find_spec(name) is None]


def open_room(room: str, folder: Path) -> Iterator[Target]:
    """The targets of a room; what they read lies in `folder`, without what a process left there that an input ended."""
    place = folder / room
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    targets: Iterator[Target] = importlib.import_module(f".{room}", __name__).targets(place)
    return targets


def open_rooms(rooms: Sequence[str], folder: Path) -> Iterator[Target]:
    """The targets of the rooms whose packages are installed."""
    for room in rooms:
        if not missing(room):
            yield from open_room(room, folder)
