"""Arrays and weights: `.npz` and `.npy` files, safetensors, and checkpoints of torch."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import torch
from safetensors.torch import save

from fuzz import odd, trees
from fuzz.harness import Disagreement, Target
from fuzz.targets.runs import EARLIER, restoring
from poolzoo.artifacts import samples
from poolzoo.common import files
from poolzoo.compare import table
from poolzoo.compare.board.submission import SubmittedRun
from poolzoo.data.identity import DataIdentity
from poolzoo.model.state_dict import read_state_dict
from poolzoo.train.checkpoint import Checkpoint, RunIdentity

SHAPES = ((), (0,), (1,), (2,), (2, 0), (0, 3), (1, 1, 1, 1), (3, 2, 2, 1), (2,) * 20, (10**12,), (-1,), (2**62, 4))
TYPES = (
    "<f4",
    "<f8",
    "<f2",
    "|b1",
    "|u1",
    "<i8",
    "<u8",
    ">i4",
    "<c8",
    "<U3",
    "|S0",
    "|V0",
    "|V8",
    "|O",
    "<M8[s]",
    "[('a', '<i4')]",
)


def archive(arrays: dict[str, np.ndarray]) -> bytes:
    """A `.npz` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@cache
def _arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as found:
        return dict(found)


def mutated_arrays(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """An archive with other arrays, headers that promise what is not there, or damaged bytes; a seed is a `.npz`."""
    content = rng.choice(seeds)
    kind = rng.random()
    if kind < 0.2:
        return odd.damaged(rng, content, seeds)
    arrays = {f"{name}.npy": _packed(array) for name, array in _arrays(content).items()}
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(list(arrays))
        if kind < 0.6:
            arrays[name] = _packed(_other(rng, _arrays(content).get(name.removesuffix(".npy"), np.zeros(3))))
        elif kind < 0.8:
            arrays[name] = promising(rng, arrays[name])
        elif kind < 0.85:
            del arrays[name]
            arrays = arrays or {"a.npy": b""}
        elif kind < 0.9:
            arrays[rng.choice(("x.npy", "../x.npy", "/x.npy", "x", "", "é.npy", "classes.npy", "a" * 300))] = arrays[
                name
            ]
        else:
            arrays[name] = odd.damaged(rng, arrays[name])
    return _zipped(rng, arrays)


def _packed(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _other(rng: Random, array: np.ndarray) -> np.ndarray:
    """An array of another type or shape, or with other values."""
    kind = rng.randrange(9)
    if kind == 0:
        return array.astype(rng.choice(("f2", "f4", "f8", "i1", "i8", "u8", "?", "c8", "U4")))
    if kind == 1:
        return array.reshape(-1)[: rng.randrange(array.size + 1)]
    if kind == 2:
        return array[None] if rng.random() < 0.5 else array[..., None]
    if kind == 3:
        return np.repeat(array, 2, 0) if array.ndim else array
    if kind == 4:
        fill = rng.choice((np.nan, np.inf, -np.inf, 1e38, -1, 0, 2**31, -(2**40)))
        return (
            np.full(array.shape, fill, "f8") if rng.random() < 0.5 else np.full(array.shape, 0 if fill != fill else 7)
        )
    if kind == 5:
        return np.zeros(rng.choice(SHAPES[:9]), array.dtype)
    if kind == 6:
        return np.array([{"a": 1}], object)
    if kind == 7:
        return np.zeros(2, [("a", "i4"), ("b", "f8")])
    changed = np.array(array)
    if changed.size and changed.dtype.kind in "iuf":
        changed.reshape(-1)[rng.randrange(changed.size)] = rng.choice((0, 1, 7, 100, 127))
    return changed


def promising(rng: Random, content: bytes) -> bytes:
    """An array file whose header tells another shape or type than its bytes have."""
    header = {"descr": rng.choice(TYPES), "fortran_order": rng.choice((True, False)), "shape": rng.choice(SHAPES)}
    if rng.random() < 0.3:
        header[rng.choice(list(header))] = rng.choice((None, "x", -1, (1.5,), ("a",), [], {}, "9" * 300, (True,)))
    if rng.random() < 0.1:
        header["more"] = 1
    text = (
        repr(header)
        if rng.random() < 0.9
        else rng.choice(("(" * 300, "[" * 5000, "{}", "", "__import__('os')", "1" * 5000))
    )
    encoded = text.encode() + b"\n"
    version = rng.choice((1, 1, 1, 2, 3, 9))
    length = struct.pack("<H" if version == 1 else "<I", len(encoded) if rng.random() < 0.9 else 60000)
    return b"\x93NUMPY" + bytes([version, 0]) + length + encoded + content[128:]


def _zipped(rng: Random, arrays: dict[str, bytes]) -> bytes:
    ways = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice(ways)) as found:
        for name, content in arrays.items():
            found.writestr(name or "n", content)
            if rng.random() < 0.02:
                found.writestr(name or "n", content)
    content = buffer.getvalue()
    if rng.random() < 0.05:
        return _encrypted(content)
    if rng.random() < 0.03:
        return content.replace(b"PK\x01\x02\x14\x03\x14\0\0\0" + content[10:12], b"PK\x01\x02\x14\x03\x14\0\0\0\x63\0")
    return content


def _encrypted(content: bytes) -> bytes:
    """The same archive, whose directory says that its files are encrypted."""
    found = bytearray(content)
    at = found.find(b"PK\x01\x02")
    while at >= 0:
        found[at + 8] |= 1
        at = found.find(b"PK\x01\x02", at + 4)
    return bytes(found)


def mutated_tensors(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A safetensors file with another header, length or damaged bytes."""
    content = rng.choice(seeds)
    if rng.random() < 0.3:
        return odd.damaged(rng, content, seeds)
    length = int.from_bytes(content[:8], "little")
    header = trees.json_text(rng, json.loads(content[8 : 8 + length]))
    told = (
        len(header)
        if rng.random() < 0.9
        else rng.choice((0, 1, len(header) - 1, len(header) + 9, 2**32, 2**63, 2**64 - 1))
    )
    return told.to_bytes(8, "little") + header + content[8 + length :]


def targets(folder: Path) -> Iterator[Target]:
    place = folder / "run"
    shutil.copytree(EARLIER / "run", place)
    seeds = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    generator = np.random.default_rng(0)
    logits = {"logits": generator.normal(size=(6, 3)).astype("f4"), "labels": np.array([0, 1, 2, 0, 1, 2], "i4")}
    several = {"logits": logits["logits"], "labels": np.eye(3, dtype="u1").repeat(2, 0)}
    validation = [archive(logits), archive(several)]

    def all_arrays(content: bytes) -> object:
        (folder / "a.npz").write_bytes(content)
        found = files.read_archive(folder / "a.npz")
        with np.load(io.BytesIO(content)) as other:
            for name, array in found.items():
                if not np.array_equal(array, other[name], equal_nan=array.dtype.kind == "f"):
                    raise Disagreement(f"numpy reads another array {name}")
        return found

    def in_run(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def reading(content: bytes) -> object:
            (place / name).write_bytes(content)
            return read(place)

        return reading

    def identity(where: Path) -> object:
        known = DataIdentity.load(where / "data.npz")
        valid = DataIdentity.load(EARLIER / "run/data.npz")
        if known is None or valid is None:
            raise Disagreement("it is not there")
        return known.digest, valid.changes(known), known.changes(valid), known.changes(known)

    def submitted(where: Path) -> object:
        return SubmittedRun(where).correct.mean()

    def decided(where: Path) -> object:
        found = samples.load_validation(where)
        return None if found is None else (found.logits.argmax(1), found.labels)

    yield Target("archive", [*validation, seeds["data.npz"]], mutated_arrays, all_arrays)
    yield Target(
        "samples",
        [seeds["samples.npz"]],
        mutated_arrays,
        in_run("samples.npz", lambda where: samples.load_samples(where / "samples.npz")),
        0.3,
    )
    yield Target("validation", validation, mutated_arrays, in_run("validation.npz", decided))
    yield Target("test-logits", validation, mutated_arrays, in_run("test.npz", samples.load_test), 0.5)
    yield Target(
        "predictions",
        [seeds["predictions.npz"]],
        mutated_arrays,
        in_run("predictions.npz", lambda where: (table.correct(where).mean(), table.data_of(where))),
    )
    yield Target(
        "submitted-correct", [seeds["predictions.npz"]], mutated_arrays, in_run("predictions.npz", submitted), 0.5
    )
    yield Target("data-identity", [seeds["data.npz"]], mutated_arrays, in_run("data.npz", identity), 0.5)
    small = save({"a": torch.ones(2, 3), "module.b": torch.zeros(4, dtype=torch.float16)}, {"format": "pt"})
    yield Target("safetensors", [small], mutated_tensors, _weights(folder / "w.safetensors"))
    whole = restoring(place, "model.safetensors", "run", _load)
    yield Target("run-weights", [seeds["model.safetensors"]], mutated_tensors, whole, 0.03)
    yield Target("pth", [_saved({"a": torch.ones(2), "b": torch.zeros(3)})], _damaged, _weights(folder / "w.pth"), 0.3)
    yield from _checkpoints(folder)


def _damaged(rng: Random, seeds: Sequence[bytes]) -> bytes:
    return odd.damaged(rng, rng.choice(seeds), seeds)


def _load(where: Path) -> object:
    from poolzoo.artifacts.run import load_run

    return load_run(where).classes


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _weights(path: Path) -> Callable[[bytes], object]:
    def read(content: bytes) -> object:
        path.write_bytes(content)
        found = read_state_dict(path)
        if not all(isinstance(value, torch.Tensor) and isinstance(key, str) for key, value in found.items()):
            raise Disagreement("something else than tensors by their names")
        return {key: tuple(value.shape) for key, value in found.items()}

    return read


def _checkpoints(folder: Path) -> Iterator[Target]:
    place = folder / "interrupted"
    shutil.copytree(EARLIER / "interrupted", place)
    file = place / "checkpoint/state.pt"
    state = {
        "version": 2,
        "settings": {"seed": 0},
        "data": "d",
        "inputs": {},
        "epoch": 1,
        "network": {"a": torch.ones(2)},
    }
    seeds = [file.read_bytes(), _saved(state)]
    odd_states = [
        _saved({**state, key: value})
        for key in ("version", "settings", "data", "inputs")
        for value in (None, 3, "x", [], {1: 2}, torch.ones(2), {"seed": torch.ones(3)}, {"seed": float("nan")})
    ]
    odd_states += [_saved(value) for value in (None, 3, [], {}, torch.ones(1), {"version": 2})]
    identity = RunIdentity({"seed": 0}, "d", inputs={"weights": "w"})

    def read(content: bytes) -> object:
        file.write_bytes(content)
        return Checkpoint(place, identity).read(torch.device("cpu"))

    def mutate(rng: Random, known: Sequence[bytes]) -> bytes:
        return rng.choice(odd_states) if rng.random() < 0.3 else odd.damaged(rng, rng.choice(known), known)

    yield Target("checkpoint", [seeds[1], seeds[0]], mutate, read, 0.2)
