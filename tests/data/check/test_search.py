"""The search for close hashes against comparing all with all, and the rows that a check keeps."""

from __future__ import annotations

import numpy as np
import pytest
from support import planted

from poolzoo.data.check import neighbors, rows, run
from poolzoo.data.check.look import ROW
from poolzoo.data.check.splits import IndexedImages
from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names


def hashes_with_neighbors(count: int, distances: range) -> np.ndarray:
    """Random hashes; behind each of the first comes one that differs in so many bits."""
    generator = np.random.default_rng(1)
    hashes = generator.integers(0, 2**64, count, dtype=np.uint64)
    for place, distance in enumerate(distances):
        flips = np.uint64(sum(1 << int(bit) for bit in generator.choice(64, distance, replace=False)))
        hashes[2 * place + 1] = hashes[2 * place] ^ flips
    return hashes


def test_only_close_hashes_are_found_and_nearly_all():
    hashes = hashes_with_neighbors(2000, range(13))
    found = {tuple(pair) for pair in neighbors.pairs(hashes).tolist()}
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    close = {(a, b) for a, b in np.argwhere(distance <= neighbors.RADIUS).tolist() if a < b}
    assert found <= close
    assert {pair for pair in close if distance[pair] <= 8} <= found
    assert len(close) == 13


def test_equal_hashes_cost_no_square():
    found = neighbors.pairs(np.full(3000, 7, np.uint64), tables=4)
    assert len(found) <= 3000 * neighbors.WINDOW * 4
    assert len(np.unique(found)) == 3000


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_hashes_are_searched_too(count):
    assert len(neighbors.pairs(np.zeros(count, np.uint64))) == (count == 2)


def rows_with_keys(*numbers: int) -> np.ndarray:
    made = np.zeros(len(numbers), ROW)
    made["key"] = np.array(numbers)[:, None]
    return made


def test_rows_are_found_again_by_their_keys(tmp_path):
    path = tmp_path / "checks/x.rows"
    with rows.kept(path, 5) as kept:
        assert kept.append(rows_with_keys(1, 2, 3)).tolist() == [0, 1, 2]
    with rows.kept(path, 5) as kept:
        assert kept.append(rows_with_keys(9)).tolist() == [3]
        assert kept.find(rows_with_keys(3, 4, 9, 1)["key"]).tolist() == [2, -1, 3, 0]


def test_two_checks_at_once_do_not_mix_their_rows(tmp_path):
    path = tmp_path / "x.rows"
    with rows.kept(path, 5) as first, rows.kept(path, 5) as second:
        first.append(rows_with_keys(1))
        second.append(rows_with_keys(2, 3))
        assert second.find(rows_with_keys(1, 2)["key"]).tolist() == [-1, 0]
    with rows.kept(path, 5) as again:
        assert again.all()["key"][:, 1].tolist() == [1]


def test_an_interrupted_check_that_keeps_nothing_promises_nothing(tmp_path):
    def begin(*keys: int) -> None:
        with rows.kept(tmp_path / "x.rows", 5) as found:
            found.append(rows_with_keys(*keys))
            raise KeyboardInterrupt

    def interrupted(*keys: int) -> tuple[object, ...]:
        with pytest.raises(KeyboardInterrupt) as stopped:
            begin(*keys)
        return stopped.value.args

    assert not interrupted()
    with rows.kept(tmp_path / "x.rows", 5):  # another check has the file
        assert not interrupted(1)
    assert interrupted(1)


class Interrupting(IndexedImages):
    """Raises what ctrl-C raises at one image."""

    def look(self, position: int) -> np.ndarray:
        if position == 30:
            raise KeyboardInterrupt
        return super().look(position)


def test_an_interrupted_check_goes_on_where_it_was(tmp_path):
    names = [f"{number}.jpg" for number in range(40)]
    planted.folder(tmp_path, {name: planted.photograph(number, (40, 40)) for number, name in enumerate(names)})
    index = ImageIndex(FileStorage(str(tmp_path)), Names.of(names), np.zeros(40, np.int32))
    with pytest.raises(KeyboardInterrupt, match="the same command continues it: what was found of 30 images is kept"):
        run.check("photos", {"train": Interrupting(index)}, ("ant",), tmp_path / "cache")
    found = run.check("photos", {"train": IndexedImages(index)}, ("ant",), tmp_path / "cache")
    assert 0 < found.looked <= 10
    assert found.splits["train"].images == 40
