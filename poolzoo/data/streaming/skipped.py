"""Streamed training images that cannot be read: how many may be left out, and what comes in their place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from poolzoo.common import output
from poolzoo.common.text import one_line
from poolzoo.data import images, unreadable
from poolzoo.data.unreadable import Broken, BrokenImages

TRIES: Final = 1000  # images in a row that cannot be read before it is not a matter of single files


class Skipped:
    """The training images that cannot be read, as they come up.

    Args:
        skip: How many may be left out, as `--skip-broken` has it.
        total: How many images there are.
        known: Where they are listed; perhaps some are already.
    """

    def __init__(self, skip: unreadable.Skip, total: int, known: list[Broken] | None = None) -> None:
        self.allowed = unreadable.most(skip)
        self.total = total
        self.known = [] if known is None else known
        self._lock = threading.Lock()

    def add(self, found: Broken) -> None:
        """Takes notice of a broken image.

        Raises:
            BrokenImages: It is one too many.
        """
        with self._lock:
            if found[0] in (path for path, _ in self.known):
                return
            self.known.append(found)
            if len(self.known) > self.allowed:
                raise BrokenImages(self.known, self.total)
            if len(self.known) <= unreadable.SHOWN:
                output.say(f"cannot be read, another image takes its place: {found[0]}: {found[1]}")

    def read(self, place: int, count: int, read: Callable[[int], None], where: Callable[[int], Path]) -> int:
        """Reads an image, or in its place the next one that can be read; gives the place of that.

        Args:
            place: Of the image, among `count`.
            count: How many there are.
            read: Reads the image at a place.
            where: Gives that image for messages.

        Raises:
            BrokenImages: More cannot be read than may be left out.
        """
        for shown in range(place, place + min(TRIES, count)):
            try:
                read(shown % count)
                return shown % count
            except images.Unreadable as error:
                self.add((where(shown % count), one_line(images.reason(error))))
        raise BrokenImages(self.known, self.total)
