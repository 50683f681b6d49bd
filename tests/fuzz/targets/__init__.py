"""All targets, by rooms: each module opens its targets in a scratch folder."""

from __future__ import annotations

import importlib
import importlib.util
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
}


def missing(room: str) -> list[str]:
    """The packages that a room needs and that are not installed."""
    return [name for name in ROOMS[room] if importlib.util.find_spec(name) is None]


def open_room(room: str, folder: Path) -> Iterator[Target]:
    """The targets of a room; what they read lies in `folder`."""
    place = folder / room
    place.mkdir(parents=True, exist_ok=True)
    targets: Iterator[Target] = importlib.import_module(f".{room}", __name__).targets(place)
    return targets


def open_rooms(rooms: Sequence[str], folder: Path) -> Iterator[Target]:
    """The targets of the rooms whose packages are installed."""
    for room in rooms:
        if not missing(room):
            yield from open_room(room, folder)
