"""Where the processes that worked on a part have died, so that an image that kills them becomes a row with an error.

A process writes down which images it works on before it starts. Who finds such a note knows that its writer died
there. Images among which two have died are tried one by one; an image at which two more have died is given up.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from poolzoo.common import files, json_reader, json_writer
from poolzoo.common.errors import CheckFailed

ATTEMPTS: Final = "attempts"
DEATHS: Final = 2  # at the same place, before it counts as the reason
MOST: Final = 16  # images of one part that are given up; more of them mean that something else is wrong


class Attempt:
    """One attempt at a part.

    Attributes:
        deaths: How many processes died at this part before.
    """

    def __init__(self, out: Path, part: int) -> None:
        """Reads where earlier processes died.

        Raises:
            CheckFailed: Too many images of this part have killed the process.
        """
        self._path = out / ATTEMPTS / f"{part:06}.json"
        self._deaths: Counter[tuple[int, int]] = Counter()
        if files.has_file(self._path):
            try:
                given = json_reader.mapping(json_reader.parse(self._path.read_bytes()))
            except ValueError:
                given = {}
            for item in json_reader.items(given.get("deaths")):
                start, size, count = _numbers(item, 3)
                self._deaths[start, size] = count
            if "now" in given:
                start, size = _numbers(given["now"], 2)
                self._deaths[start, size] += 1
        self.deaths = self._deaths.total()
        if sum(size == 1 and count >= DEATHS for (_, size), count in self._deaths.items()) > MOST:
            text = f"more than {MOST} images of part {part} end the process that reads them"
            raise CheckFailed(text, "see the memory of the workers and Ray's logs")

    def steps(self, images: int, batch: int) -> Iterator[tuple[int, int]]:
        """Ranges of `images` images, `(start, size)`: batches in which processes died come image by image."""
        covered = Counter[int]()
        for (start, size), count in self._deaths.items():
            for at in range(start // batch, -(-min(start + size, images) // batch)):
                covered[at] += count
        start = 0
        for at in sorted(block * batch for block, count in covered.items() if count >= DEATHS):
            if at > start:
                yield start, at - start
            yield from ((one, 1) for one in range(at, min(at + batch, images)))
            start = at + batch
        if start < images:
            yield start, images - start

    def is_given_up(self, image: int) -> bool:
        """Whether an image that is tried alone has killed the process too often."""
        return self._deaths[image, 1] >= DEATHS

    def enter(self, start: int, size: int) -> None:
        """Notes which images are worked on now."""
        self._path.parent.mkdir(exist_ok=True)
        deaths = [[*place, count] for place, count in self._deaths.items()]
        _write(self._path, {"now": [start, size], "deaths": deaths})

    def finish(self) -> None:
        """Forgets it all: the part is done."""
        self._path.unlink(missing_ok=True)


def withdraw(out: Path) -> None:
    """Takes back the notes of processes that were stopped: they did not die of an image."""
    for path in (out / ATTEMPTS).glob("*.json"):
        with suppress(OSError, ValueError):
            given = json_reader.mapping(json_reader.parse(path.read_bytes()))
            if given.get("deaths"):
                _write(path, {"deaths": given["deaths"]})
            else:
                path.unlink()


def _numbers(value: object, count: int) -> list[int]:
    """So many whole numbers, 0 or above; zeros where there are none."""
    found = [json_reader.integer(one) for one in json_reader.items(value)]
    known = [one for one in found if one is not None and one >= 0]
    return known if len(known) == len(found) == count else [0] * count


def _write(path: Path, note: Mapping[str, object]) -> None:
    """Replaces a note, without waiting for the disk: a power cut is no death."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json_writer.dumps(note), encoding="utf-8")
    os.replace(fresh, path)
