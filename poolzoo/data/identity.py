"""Which images and labels a run saw, kept with it: whether they are the same today, and what changed where not.

Of decoded images the pixels decide: a file that was touched, copied or renamed without a change of order is the same
data. Of streamed images names, sizes and times decide, since nobody has read them all. Names explain what changed.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import files
from poolzoo.common.errors import CheckFailed
from poolzoo.data.image_facts import DIGEST_BYTES, Facts
from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names
from poolzoo.plugin.spec import Split

FILE: Final = "data.npz"  # in the directory of a run or a comparison
DAMAGED_HINT: Final = "make the directory again"
_SHOWN: Final = 3  # examples of each kind of change


@dataclass(frozen=True)
class SplitIdentity:
    """The images of one split in their order.

    Attributes:
        digests: Of the pixels or of the files, `uint8[N, 8]`.
        labels: `int64[N]`, or `uint8[N, K]` for several labels.
        names: Of the files, below the split's folder; None where there are no files.
        of_files: Whether the digests are those of `file_digests`.
    """

    digests: np.ndarray
    labels: np.ndarray
    names: Sequence[str] | None = None
    of_files: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether it has a digest, a label and perhaps a name of each image, as a file of unknown origin may not."""
        digests, labels = self.digests, self.labels
        of_each = digests.ndim == 2 and labels.ndim in (1, 2) and len(labels) == len(digests)
        named = self.names is None or len(self.names) == len(digests)
        types = digests.dtype == np.uint8 and labels.dtype.kind in "iu" and digests.shape[-1:] == (DIGEST_BYTES,)
        return of_each and named and types

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SplitIdentity):
            return NotImplemented
        return np.array_equal(self.digests, other.digests) and np.array_equal(self.labels, other.labels)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class DataIdentity:
    """All that a run sees of its data: the splits by their names, and the names of the classes."""

    splits: Mapping[str, SplitIdentity]
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls, facts: Mapping[Split, Facts], labels: Mapping[Split, np.ndarray], classes: tuple[str, ...]
    ) -> DataIdentity:
        """The identity of splits, from the facts about their images and from their labels."""
        splits: dict[str, SplitIdentity] = {
            name: SplitIdentity(known.digests, labels[name], known.names, known.of_files)
            for name, known in facts.items()
        }
        return cls(splits, classes)

    @property
    def test(self) -> SplitIdentity:
        """The test images.

        Raises:
            CheckFailed: There are none.
        """
        if "test" not in self.splits:
            raise CheckFailed("the data has no test images", DAMAGED_HINT)
        return self.splits["test"]

    @property
    def digest(self) -> str:
        """A digest of all digests, labels and names of classes; names of files do not count."""
        whole = hashlib.sha256(repr((sorted(self.splits), self.classes)).encode())
        for name in sorted(self.splits):
            split = self.splits[name]
            whole.update(repr(split.digests.shape).encode())
            whole.update(np.ascontiguousarray(split.digests).data)
            whole.update(_stored(split.labels, "<i8").data)
        return whole.hexdigest()

    def changes(self, now: DataIdentity) -> list[str]:
        """What differs in `now`, one text a split, such as `test, 1 file fewer (bee/05.jpg)`; empty where nothing does.

        Splits that only one of the two has are left out, so that a part can be compared with the whole.
        """
        if self.classes != now.classes:
            return [_classes(self.classes, now.classes)]
        common = [name for name in self.splits if name in now.splits]
        found = {name: _differences(self.splits[name], now.splits[name]) for name in common}
        return [f"{name}, {text}" for name, text in found.items() if text]

    def save(self, path: Path) -> None:
        """Writes the identity as a `.npz` file, atomically."""
        arrays: dict[str, np.ndarray] = {"classes": _packed(self.classes)}
        for name, split in self.splits.items():
            arrays[f"{name}_digests"] = split.digests
            arrays[f"{name}_labels"] = _stored(split.labels, "i4")
            if split.names is not None:
                arrays[f"{name}_names"] = _packed(split.names)
            if split.of_files:
                arrays[f"{name}_stamps"] = np.ones(1, bool)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        files.write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> DataIdentity | None:
        """Reads what `save` wrote; None where there is no file, as in directories of earlier versions.

        Raises:
            CheckFailed: The file is damaged.
        """
        if not files.has_file(path):
            return None
        found = files.read_archive(path)
        splits = {}
        for key in found:
            name, _, what = key.rpartition("_")
            if what == "digests" and f"{name}_labels" in found:
                packed, of_files = found.get(f"{name}_names"), f"{name}_stamps" in found
                names = None if packed is None else _names(packed) if of_files else _unpacked(packed)
                labels = _stored(found[f"{name}_labels"], "i8")
                splits[name] = SplitIdentity(found[key], labels, names, of_files)
                if not splits[name].is_sound:
                    raise CheckFailed(f"{path} is damaged: what it has of {name} does not fit together", DAMAGED_HINT)
        return cls(splits, _unpacked(found.get("classes", _packed(()))))


def require_same(kept: DataIdentity | None, now: DataIdentity, hint: str) -> None:
    """Makes sure that data is what it was; where nothing was kept, nothing is known.

    Raises:
        CheckFailed: It is not; says what changed.
    """
    if changes := kept.changes(now) if kept is not None else []:
        raise CheckFailed(f"the data changed: {'; '.join(changes)}", hint)


def _stored(labels: np.ndarray, dtype: str) -> np.ndarray:
    """Classes `int[N]` as a type of integers; several labels `uint8[N, K]` as they are."""
    return labels.astype(dtype) if labels.ndim == 1 else np.ascontiguousarray(labels)


def scope(index: ImageIndex, split: str) -> str:
    """Within what the names of images are unique: the split, or "" for files, where the place of all suffices."""
    return "" if isinstance(index.storage, FileStorage) else split


def file_digests(index: ImageIndex) -> np.ndarray:
    """Digests of the names, sizes and times of encoded images, `uint8[N, 8]`; none of them is opened."""
    whole = bytearray()
    for position, name in enumerate(index.names):
        try:
            size, time = index.stamp(position)
        except OSError:  # gone since it was listed; who reads it says so
            size, time = -1, -1
        text = b"%d %d " % (size, time) + os.fsencode(name)
        whole += hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()
    return np.frombuffer(whole, np.uint8).reshape(-1, DIGEST_BYTES)


def _packed(texts: Sequence[str]) -> np.ndarray:
    """Texts as one array of bytes: numpy's own arrays of text are as wide as the longest."""
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogateescape"), np.uint8)


def _unpacked(packed: np.ndarray) -> tuple[str, ...]:
    text = packed.astype(np.uint8).tobytes().decode("utf-8", "surrogateescape")
    return tuple(text.split("\0")) if text else ()


def _names(packed: np.ndarray) -> Names:
    """The same, in one buffer."""
    last = [len(packed)] if len(packed) else []
    breaks = np.concatenate([np.flatnonzero(packed == 0), np.array(last, np.int64)])
    return Names(packed[packed != 0].tobytes(), breaks - np.arange(len(breaks)))


def _classes(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    gone, new = ([name for name in one if name not in other] for one, other in ((before, now), (now, before)))
    if len(gone) == len(new) > 0:
        pairs = [f"{old} → {name}" for old, name in zip(gone, new, strict=True)]
        return f"{_count(len(gone), 'class')} renamed ({_examples(pairs)})"
    phrases = [_phrase(gone, "class", "fewer"), _phrase(new, "class", "more")]
    return ", ".join(text for text in phrases if text) or "the classes are in another order"


def _differences(before: SplitIdentity, now: SplitIdentity) -> str:
    """What differs between two versions of a split, in words; empty where nothing does."""
    if before.of_files != now.of_files:  # digests of two kinds; names and labels are left to compare
        before, now = (replace(one, digests=np.zeros_like(one.digests), of_files=False) for one in (before, now))
        if before.names is not None and now.names is not None and list(before.names) != list(now.names):
            return _named(before, now)
    if before == now:
        return ""
    if before.names is None or now.names is None:
        return _numbered(before, now)
    return _named(before, now)


def _named(before: SplitIdentity, now: SplitIdentity) -> str:
    """The same for images with names."""
    old, new = _by_name(before), _by_name(now)
    changed = [name for name in old if name in new and old[name][0] != new[name][0]]
    relabeled = [name for name in old if name in new and old[name][0] == new[name][0] and old[name] != new[name]]
    gone = [name for name in old if name not in new]
    added = [name for name in new if name not in old]
    places: dict[bytes, list[str]] = {}
    for name in added:
        places.setdefault(new[name][0], []).append(name)
    moved = []
    for name in gone:
        if places.get(old[name][0]):
            moved.append((name, places[old[name][0]].pop(0)))
    left, came = {name for name, _ in moved}, {name for _, name in moved}
    phrases = (
        _phrase([name for name in gone if name not in left], "file", "fewer"),
        _phrase([name for name in added if name not in came], "file", "more"),
        _phrase(changed, "file", "changed"),
        _phrase([f"{name} → {place}" for name, place in moved], "file", "renamed"),
        _phrase(relabeled, "file", "with another label"),
    )
    return ", ".join(text for text in phrases if text) or "the same files in another order"


def _by_name(split: SplitIdentity) -> dict[str, tuple[bytes, object]]:
    assert split.names is not None
    rows = zip(split.names, split.digests, split.labels.tolist(), strict=True)
    return {name: (digest.tobytes(), label) for name, digest, label in rows}


def _numbered(before: SplitIdentity, now: SplitIdentity) -> str:
    """The same for images without names, which are called by their places."""
    count, difference = min(len(before.labels), len(now.labels)), len(now.labels) - len(before.labels)
    pixels = (before.digests[:count] != now.digests[:count]).any(1)
    other = before.labels[:count] != now.labels[:count]
    labels = (other if other.ndim == 1 else other.any(1)) & ~pixels
    phrases = (
        f"{_count(abs(difference), 'image')} {'more' if difference > 0 else 'fewer'}" if difference else "",
        _phrase([f"number {index}" for index in np.flatnonzero(pixels)], "image", "changed"),
        _phrase([f"number {index}" for index in np.flatnonzero(labels)], "image", "with another label"),
    )
    return ", ".join(text for text in phrases if text)


def _phrase(names: list[str], noun: str, what: str) -> str:
    return f"{_count(len(names), noun)} {what} ({_examples(names)})" if names else ""


def _count(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def _examples(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
