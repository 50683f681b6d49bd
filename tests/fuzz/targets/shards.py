"""Tar shards: damaged headers, sizes that promise too much, odd members and labels; and the indices that are kept."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from unittest import mock

from fuzz import odd, trees
from fuzz.harness import Disagreement, Target
from fuzz.targets.arrays import mutated_arrays
from poolzoo.datasets import shard_index, shards

MEMBERS = (
    ("a.jpg", b"\xff\xd8\xffimage"),
    ("a.cls", b"ant"),
    ("b.png", b"image"),
    ("b.json", b'{"label": "bee"}'),
    ("c.jpg", b"i"),
    ("c.txt", b"ant"),
)


def tar(members: Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as found:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            found.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def mutated_tar(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A tar with other members, or with headers whose checksums are right and whose fields are not."""
    content = rng.choice(seeds)
    kind = rng.random()
    if kind < 0.25:
        return odd.damaged(rng, content, seeds)
    if kind < 0.6:
        found = bytearray(content)
        at = 512 * rng.randrange(max(1, len(found) // 512))
        start, size = rng.choice(
            ((0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155))
        )
        piece = rng.choice(
            (
                b"",
                b"\xff" * size,
                b"7" * size,
                b"-1",
                b"\x80" + b"\xff" * (size - 1),
                b"../x.jpg",
                b"/x.jpg",
                rng.randbytes(size),
            )
        )
        found[at + start : at + start + size] = piece[:size].ljust(size, b"\0")
        header = found[at : at + 512]
        header[148:156] = b" " * 8
        found[at + 148 : at + 156] = b"%06o\0 " % sum(header)
        return bytes(found)
    members = list(MEMBERS)
    for _ in range(rng.choice((1, 2, 3))):
        place = rng.randrange(len(members))
        name, body = members[place]
        change = rng.randrange(4)
        if change == 0:
            members[place] = (odd.text(rng, name).replace("\0", "")[:300], body)
        elif change == 1:
            members[place] = (name, trees.json_text(rng, json.loads('{"label": ["ant", 1]}'))[:200_000])
        elif change == 2:
            members[place:place] = [members[place]]
        elif len(members) > 1:
            del members[place]
    try:
        return tar(members, rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)))
    except (ValueError, UnicodeError):
        return odd.damaged(rng, content, seeds)


def targets(folder: Path) -> Iterator[Target]:
    file = folder / "train-0.tar"

    def read(content: bytes) -> object:
        file.write_bytes(content)
        with mock.patch.dict("os.environ", POOLZOO_CACHE=str(folder / "cache")):
            found = shards.open_shards(str(file), multilabel=False)
        assert found.index is not None
        index = found.index("train", folder)
        for position in range(len(index)):
            with index.open(position) as opened:
                if opened.read() not in content:
                    raise Disagreement("bytes that are not in the file")
        return found.classes, len(index)

    shard, kept = folder / "kept.tar", folder / "kept"
    shard.write_bytes(tar(MEMBERS))
    shard_index.read(shard, kept)
    (file_of_index,) = kept.rglob("*.npz")

    def indexed(content: bytes) -> object:
        file_of_index.write_bytes(content)
        found = shard_index.read(shard, kept)
        return list(zip(found.names, found.offsets.tolist(), found.sizes.tolist(), found.labels, strict=True))

    yield Target("shard-index", [file_of_index.read_bytes()], mutated_arrays, indexed, 0.3)
    yield Target("shards", [tar(MEMBERS), tar(MEMBERS, tarfile.GNU_FORMAT)], mutated_tar, read)
