"""Near-duplicates that `poolzoo data check` finds among photographs: planted ones, real ones, and how fast.

python -m benchmarks.data.copies --data folder:PATH [--images 400] [--scale 1000000] [--sheet sheet.png]

Recall: copies of photographs are made in each of twelve ways and mixed with all photographs of the folder; a copy that
is found beside its original counts. Precision: pairs that nobody planted are real duplicates or false; a false pair
would join two classes as often as chance has it, so their labels tell how many are false at most. `--sheet` draws them.
Scale: random hashes with planted neighbors, of which the search for close hashes alone is timed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.data.changes import CHANGES
from poolzoo.data.check import copies, look, neighbors, open_source
from poolzoo.data.check.splits import IndexedImages


def main() -> None:
    """Prints recall by kind of copy, precision by labels, and the time of a search among many hashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH of photographs")
    parser.add_argument("--images", type=int, default=400, help="photographs of which copies are made")
    parser.add_argument("--scale", type=int, default=1_000_000, help="hashes that are searched")
    parser.add_argument("--sheet", type=Path, help="picture of the pairs that nobody planted, the least alike first")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    photographs(given.data, given.images, given.seed, given.sheet)
    scale(given.scale, given.seed)


def photographs(data: str, count: int, seed: int, sheet: Path | None) -> None:
    """Looks at all photographs and at copies of some of them."""
    splits = open_source.open_splits(data).splits
    generator = np.random.default_rng(seed)
    started = time.process_time()
    rows, labels, pictures = [], [], []
    for images in splits.values():
        assert isinstance(images, IndexedImages)
        for position in range(len(images)):
            rows.append(images.look(position))
            labels.append(images.labels[position])
            pictures.append((images, position))
    total = len(rows)
    each = 1e3 * (time.process_time() - started) / total
    print(f"{total:,} photographs looked at: {each:.2f} ms of processor time each")
    originals = generator.choice(total, min(count, total), replace=False)
    planted: dict[tuple[int, int], str] = {}
    for original in originals.tolist():
        images, position = pictures[original]
        pixels = Image.fromarray(images.pixels(position, 4096))
        for name, change in CHANGES.items():
            planted[original, len(rows)] = name
            rows.append(look.look_at_pixels(np.asarray(change(pixels))))
    table = np.array(rows, look.ROW)
    started = time.process_time()
    found = copies.find(table, np.arange(len(table)), near=True)
    seconds = time.process_time() - started
    first = np.unique(found.content, return_index=True)[1]
    pairs = {(int(first[a]), int(first[b])) for a, b in found.pairs.tolist()}
    pairs = {(min(pair), max(pair)) for pair in pairs}
    print(f"{len(table):,} images searched in {seconds:.1f} s of processor time\n")
    print(f"{'copy':16} recall of {len(originals)}")
    for name in CHANGES:
        mine = [pair for pair, kind in planted.items() if kind == name]
        same = sum(found.content[a] == found.content[b] or (a, b) in pairs for a, b in mine)
        print(f"{name:16} {same / len(mine):.3f}")
    real = [index for index, (a, b) in enumerate(found.pairs.tolist()) if max(first[a], first[b]) < total]
    ends = first[found.pairs[real]]
    differing = int((np.array(labels)[ends[:, 0]] != np.array(labels)[ends[:, 1]]).sum())
    counts = np.bincount(np.array(labels))
    by_chance = 1 - ((counts / counts.sum()) ** 2).sum()
    print(f"\n{len(real):,} pairs that nobody planted; {differing} of them join two classes")
    print(f"a false pair joins two classes with a chance of about {by_chance:.2f}")
    if sheet is not None:
        order = np.argsort(found.similarity[real])
        draw(sheet, [(pictures[a], pictures[b]) for a, b in ends[order].tolist()])


def draw(path: Path, pairs: list[tuple[tuple[IndexedImages, int], tuple[IndexedImages, int]]]) -> None:
    """Draws pairs side by side, in rows of twelve."""
    side, across = 48, 12
    down = -(-min(len(pairs), 360) // across)
    sheet = Image.new("RGB", (across * (2 * side + 8), down * (side + 4)), "white")
    for number, pair in enumerate(pairs[:360]):
        for place, (images, position) in enumerate(pair):
            picture = Image.fromarray(images.pixels(position, side)).resize((side, side))
            sheet.paste(picture, (number % across * (2 * side + 8) + place * side, number // across * (side + 4)))
    sheet.save(path)


def scale(count: int, seed: int) -> None:
    """Searches many random hashes, a thousand of which have a planted neighbor at each distance."""
    generator = np.random.default_rng(seed)
    hashes = generator.integers(0, 2**64, count, dtype=np.uint64)
    distances = (2, 4, 6, 8, 10, 12)
    each = min(1000, count // (2 * len(distances)))
    for place, distance in enumerate(distances):
        for one in range(each):
            bits = generator.choice(64, distance, replace=False)
            source, copy = 2 * (place * each + one), 2 * (place * each + one) + 1
            hashes[copy] = hashes[source] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64))
    started = time.process_time()
    found = {tuple(pair) for pair in neighbors.pairs(hashes).tolist()}
    seconds = time.process_time() - started
    print(f"\n{count:,} hashes searched in {seconds:.1f} s of processor time; recall by bits that differ:")
    for place, distance in enumerate(distances):
        known = [(2 * (place * each + one), 2 * (place * each + one) + 1) for one in range(each)]
        print(f"{distance:4} {sum(pair in found for pair in known) / max(len(known), 1):.3f}")


if __name__ == "__main__":
    main()
