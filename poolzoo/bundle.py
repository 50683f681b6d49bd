"""Runs and bundles as directories: written so that they appear whole, sealed by a manifest, checked. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

from poolzoo import jsontext
from poolzoo.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    import numpy as np

MANIFEST: Final = "manifest.json"
# What a manifest must list: an emptied one vouches for nothing.
REQUIRED: Final = {
    "run": ("config.json", "metrics.json", "model.safetensors", "run.toml", "samples.npz"),
    "bundle": ("config.json", "golden.npz", "model.onnx", "parity.json"),
}
SCHEMA: Final = 1  # of config.json and the directories' layout
SEALED: Final = 2  # the manifest's schema since it vouches for itself; older ones are read without a seal


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file to a temporary name beside its place and renames it, so that nobody sees half of it."""
    raw = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; NaN and infinities become null."""
    write_atomically(path, _dump(value))


def _dump(value: Any) -> str:
    return jsontext.dumps(value, indent=2) + "\n"


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        CheckFailed: It is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckFailed(f"{path} is missing", "the directory is incomplete; make it again") from None
    except ValueError as error:
        raise CheckFailed(f"{path} is damaged: {error}", "make the directory again") from error


def read_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The named arrays of a `.npz` file.

    Raises:
        CheckFailed: The file is missing, damaged, or lacks one of them.
    """
    return list(read_archive(path, names).values())


def read_archive(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file by name: the named ones, or all.

    Raises:
        CheckFailed: The file is missing, damaged, or lacks one of them.
    """
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in (stored.files if names is None else names)}
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        raise CheckFailed(f"{path} cannot be read: {error}", "make the directory again") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(directory: Path, kind: str) -> None:
    """Writes the manifest, last of all: the sha256 of every file, and of itself. Its presence means: complete."""
    files = {
        path.relative_to(directory).as_posix(): {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST and path.relative_to(directory).parts[0] != "checkpoint"
    }
    manifest = {"schema": SEALED, "kind": kind, "files": files}
    write_json(directory / MANIFEST, {**manifest, "seal": _seal_of(manifest)})


def _seal_of(manifest: dict[str, Any]) -> str:
    """The hash of a manifest's text, as it would be without its seal."""
    return hashlib.sha256(_dump({key: manifest[key] for key in manifest if key != "seal"}).encode()).hexdigest()


def altered(directory: Path) -> list[str]:
    """What differs from the manifest, in words; empty where the directory is as it was sealed."""
    try:
        manifest = read_json(directory / MANIFEST)
        listed = {str(name): str(entry["sha256"]) for name, entry in manifest["files"].items()}
        if manifest["schema"] != 1 or "seal" in manifest:
            text = (directory / MANIFEST).read_text(encoding="utf-8")
            if manifest["seal"] != _seal_of(manifest) or text != _dump(manifest):
                return [f"{MANIFEST} was altered"]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OSError, CheckFailed):
        return [f"{MANIFEST} is damaged"]
    required = REQUIRED.get(str(manifest.get("kind")), ())
    found = [f"{name} is not listed in {MANIFEST}" for name in required if name not in listed]
    root = directory.resolve()
    for name, digest in listed.items():
        found += _difference(directory / name, name, digest, root)
    return found


def _difference(path: Path, name: str, digest: str, root: Path) -> list[str]:
    try:
        if not path.resolve().is_relative_to(root):
            return [f"{name} points outside"]
        if not path.is_file():
            return [f"{name} is missing"]
        return [f"{name} was altered"] if _sha256(path) != digest else []
    except (OSError, ValueError, RuntimeError) as error:  # not readable; a name with a NUL in it; links in a circle
        return [f"{name} cannot be read: {error}"]


def check(directory: Path, kind: str) -> None:
    """Makes sure that a run or a bundle is there, complete, and as it was sealed.

    Args:
        directory: Where it should be.
        kind: "run" or "bundle".

    Raises:
        UsageError: There is no such directory, or it is something else.
        CheckFailed: It is incomplete, damaged or altered.
    """
    if not directory.is_dir():
        raise UsageError(f"{kind} {str(directory)!r} does not exist", f"give the directory of a {kind}")
    if not (directory / MANIFEST).is_file():
        if kind == "run" and (directory / "run.toml").is_file():
            raise CheckFailed(f"run {directory} is not complete", f"poolzoo finetune --resume {directory}")
        raise UsageError(f"{directory} is no {kind}: it has no {MANIFEST}", f"give the directory of a {kind}")
    if differences := altered(directory):
        raise CheckFailed(
            f"{kind} {directory} is damaged: {', '.join(differences[:5])}", "make it again, or restore the files"
        )
    found = read_json(directory / MANIFEST).get("kind")
    if found != kind:
        raise UsageError(f"{directory} is a {found}, not a {kind}", f"give the directory of a {kind}")


def kind(directory: Path) -> str | None:
    """What a directory says that it is, "run" or "bundle"; None where it says nothing."""
    try:
        manifest = read_json(directory / MANIFEST)
    except (CheckFailed, OSError):
        return None
    return str(manifest.get("kind")) if isinstance(manifest, dict) else None


def require_free(path: Path) -> None:
    """Makes sure that a directory can be made at `path` and that nothing is there.

    Raises:
        UsageError: Something is there.
        OSError: The place is not writable.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already", "choose another --out, or remove it first")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise UsageError(f"{parent} is a file, not a directory", "choose another --out")
    with tempfile.TemporaryFile(dir=parent):
        pass


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary directory that takes its place at `path` when the block ends well, and vanishes when it does not."""
    require_free(path)
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}-"))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        require_free(path)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:  # the innermost first; one that somebody else has filled since stays
            with suppress(OSError):
                folder.rmdir()
        raise


def slug(text: str) -> str:
    """A name as part of a directory's name."""
    return "".join("-" if character in "/:, \\" else character for character in text)
