"""Runs and bundles as directories: written so that they appear whole, sealed by a manifest, checked. Needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poolzoo.common import files
from poolzoo.common.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    pass

MANIFEST: Final = "manifest.json"
# What a manifest must list: an emptied one vouches for nothing.
REQUIRED: Final = {
    "run": ("config.json", "metrics.json", "model.safetensors", "run.toml", "samples.npz"),
    "bundle": ("config.json", "golden.npz", "model.onnx", "parity.json"),
}
SCHEMA: Final = 1  # of config.json and the directories' layout
SEALED: Final = 2  # the manifest's schema since it vouches for itself; older ones are read without a seal


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(directory: Path, kind: str) -> None:
    """Writes the manifest, last of all: the sha256 of every file, and of itself. Its presence means: complete."""
    entries = {
        path.relative_to(directory).as_posix(): {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST and path.relative_to(directory).parts[0] != "checkpoint"
    }
    manifest = {"schema": SEALED, "kind": kind, "files": entries}
    files.write_json(directory / MANIFEST, {**manifest, "seal": _seal_of(manifest)})


def _seal_of(manifest: dict[str, Any]) -> str:
    """The hash of a manifest's text, as it would be without its seal."""
    return hashlib.sha256(
        files.json_text({key: manifest[key] for key in manifest if key != "seal"}).encode()
    ).hexdigest()


def altered(directory: Path) -> list[str]:
    """What differs from the manifest, in words; empty where the directory is as it was sealed."""
    try:
        manifest = files.read_json(directory / MANIFEST)
        listed = {str(name): str(entry["sha256"]) for name, entry in manifest["files"].items()}
        if manifest["schema"] != 1 or "seal" in manifest:
            text = (directory / MANIFEST).read_text(encoding="utf-8")
            if manifest["seal"] != _seal_of(manifest) or text != files.json_text(manifest):
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
    found = files.read_json(directory / MANIFEST).get("kind")
    if found != kind:
        raise UsageError(f"{directory} is a {found}, not a {kind}", f"give the directory of a {kind}")


def kind(directory: Path) -> str | None:
    """What a directory says that it is, "run" or "bundle"; None where it says nothing."""
    try:
        manifest = files.read_json(directory / MANIFEST)
    except (CheckFailed, OSError):
        return None
    return str(manifest.get("kind")) if isinstance(manifest, dict) else None
