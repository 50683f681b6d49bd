"""What the cache keeps: decoded images, single images, rows of features, rows of checks. Damaged, it is made anew."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from fuzz import odd
from fuzz.harness import Disagreement, Target
from fuzz.targets.arrays import promising
from fuzz.targets.runs import mutated_json
from poolzoo.data import disk, store
from poolzoo.data.check import rows as check_rows
from poolzoo.data.streaming import row_file
from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names

COUNT, SIZE = 4, (6, 5)


def damaged(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A valid input with damaged bytes."""
    return odd.damaged(rng, rng.choice(seeds), seeds)


def _mutated_array(rng: Random, seeds: Sequence[bytes]) -> bytes:
    content = rng.choice(seeds)
    return promising(rng, content) if rng.random() < 0.5 else odd.damaged(rng, content, seeds)


def targets(folder: Path) -> Iterator[Target]:
    photos = folder / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, *SIZE, 3), dtype=np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(photos / f"{number}.png")
    index = ImageIndex(
        FileStorage(str(photos)), Names.of(f"{n}.png" for n in range(COUNT)), np.arange(COUNT, dtype=np.int32)
    )
    wanted = store.Images(index, "train", None)
    shelf = disk.Shelf(folder / "images", 10**9)
    store.load(shelf, wanted)
    place = shelf.find(wanted.key)
    assert place is not None
    seeds = {path.name: path.read_bytes() for path in place.iterdir()}

    def decoded(name: str) -> Callable[[bytes], object]:
        def read(content: bytes) -> object:
            for other, before in seeds.items():
                place.mkdir(exist_ok=True)
                (place / other).write_bytes(content if other == name else before)
            found = store.load(shelf, wanted)
            if not np.array_equal(found.pixels, pixels) and name != "about.json":
                raise Disagreement("other pixels than the files have")
            return len(found.facts.digests), found.report.broken

        return read

    def features(content: bytes) -> object:
        (folder / "shelf/key").mkdir(parents=True, exist_ok=True)
        (folder / "shelf/key/rows.npy").write_bytes(content)
        found = disk.find_rows(disk.Shelf(folder / "shelf", 10**9), "key", "rows.npy", (4, 3), "float32")
        return None if found is None else found.sum()

    kept = row_file.RowFile(folder / "rows", COUNT, 10**6)
    for number, one in enumerate(pixels):
        kept.add(number, one, SIZE)
    kept.close()
    (table,) = (folder / "rows").glob("*.table")
    stored = table.with_suffix(".rows").read_bytes()

    def single(name: Path) -> Callable[[bytes], object]:
        before = {table: table.read_bytes(), table.with_suffix(".rows"): stored}

        def read(content: bytes) -> object:
            for path, other in before.items():
                path.write_bytes(content if path == name else other)
            found = row_file.RowFile(folder / "rows", COUNT, 10**6)
            count = 0
            for position in range(COUNT):
                if (one := found.find(position)) is not None:
                    try:
                        own = found.read(one)
                    except OSError:
                        continue
                    if not np.array_equal(own, pixels[position]):
                        raise Disagreement("other pixels than were kept")
                    count += 1
            found.close()
            return count

        return read

    def checked(content: bytes) -> object:
        (folder / "check.rows").write_bytes(content)
        with check_rows.kept(folder / "check.rows", COUNT) as found:
            return found.find(np.zeros((2, 2), np.uint64)), len(found)

    floats = io.BytesIO()
    np.save(floats, np.ones((4, 3), np.float32))
    yield Target("cache-about", [seeds["about.json"]], mutated_json, decoded("about.json"), 0.2)
    yield Target("cache-pixels", [seeds["pixels.npy"]], _mutated_array, decoded("pixels.npy"), 0.2)
    yield Target("cache-labels", [seeds["labels.npy"]], _mutated_array, decoded("labels.npy"), 0.1)
    yield Target("cache-features", [floats.getvalue()], _mutated_array, features, 0.5)
    yield Target("cache-table", [table.read_bytes()], damaged, single(table), 0.5)
    yield Target("cache-rows", [stored], damaged, single(table.with_suffix(".rows")), 0.5)
    yield Target("cache-check", [bytes(3 * check_rows.ROW.itemsize)], damaged, checked, 0.5)
