"""The manifest of a run or bundle: the sha256 of every file and of itself, written last, checked later. No torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from poolzoo.artifacts import reading
from poolzoo.common import files, locks
from poolzoo.common.errors import CheckFailed, UsageError, reason

if TYPE_CHECKING:
    from poolzoo.artifacts.schema import Manifest, ManifestEntry

MANIFEST: Final = "manifest.json"
REPLACING: Final = "replacing.json"  # there while files of a complete directory are replaced: the names of the new ones
_NEW: Final = ".new"
# What a manifest must list: an empty one proves nothing.
REQUIRED: Final = {
    "run": ("config.json", "metrics.json", "model.safetensors", "run.toml", "samples.npz"),
    "bundle": ("config.json", "golden.npz", "model.onnx", "parity.json"),
}
SCHEMA: Final = 1  # of config.json and the directories' layout
MANIFEST_SCHEMA: Final = 2  # of the manifest: from 2 on it holds a checksum of itself, under the key `seal`


def file_sha256(path: Path) -> str:
    """The sha256 of a file as hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, kind: str) -> None:
    """Writes `manifest.json`, the last file of a directory: its presence means that the directory is complete.

    Args:
        directory: A run or bundle.
        kind: "run" or "bundle".

    Raises:
        OSError: A file cannot be read or written.
    """
    entries: dict[str, ManifestEntry] = {
        path.relative_to(directory).as_posix(): {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and path.name != MANIFEST
        and not locks.is_unfinished(path)
        and path.relative_to(directory).parts[0] != "checkpoint"
    }
    manifest: Manifest = {"schema": MANIFEST_SCHEMA, "kind": kind, "files": entries}
    files.write_json(directory / MANIFEST, {**manifest, "seal": self_checksum(manifest)})


def replace_files(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Replaces or adds files of a complete run, and its manifest: all of them or none, whatever ends the process.

    Args:
        directory: The run.
        contents: By name.

    Raises:
        CheckFailed: The manifest is missing or damaged.
        OSError: A file cannot be written.
    """
    manifest = reading.read_manifest(directory / MANIFEST)
    entries: dict[str, ManifestEntry] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
    }
    renewed = {
        "schema": MANIFEST_SCHEMA,
        "kind": manifest["kind"],
        "files": dict(sorted({**manifest["files"], **entries}.items())),
    }
    text = files.json_text({**renewed, "seal": self_checksum(renewed)})
    with locks.alone_in(directory, manifest["kind"]):
        locks.sweep(directory)
        staged = {f"{name}{_NEW}": content for name, content in {**contents, MANIFEST: text.encode()}.items()}
        try:
            for name, content in staged.items():
                files.write_through(directory / name, content)
            files.write_json(directory / REPLACING, sorted(staged))  # from here on it is done, whatever happens
        except BaseException:
            if not files.has_file(directory / REPLACING):
                for name in staged:
                    (directory / name).unlink(missing_ok=True)
            raise
        finish_replacing(directory)


def finish_replacing(directory: Path) -> None:
    """Ends what a process that was killed in `replace_files` has begun, before anybody reads the directory.

    Raises:
        CheckFailed: It cannot be ended, as on a disk that is only readable.
    """
    if not files.has_file(directory / REPLACING):
        return
    try:
        for name in files.read_json(directory / REPLACING):
            if Path(name).name == name.removesuffix(_NEW) + _NEW:
                with suppress(FileNotFoundError):  # done before, or by another process
                    os.replace(directory / name, directory / name.removesuffix(_NEW))
        (directory / REPLACING).unlink(missing_ok=True)
    except (OSError, TypeError, ValueError, AttributeError) as error:
        text = f"{directory} was being changed when a command was stopped, and that cannot be ended: {reason(error)}"
        raise CheckFailed(text, "make it writable, and try again") from error


def self_checksum(manifest: Mapping[str, object]) -> str:
    """The sha256 of a manifest's text without its own checksum."""
    rest = {key: value for key, value in manifest.items() if key != "seal"}
    return hashlib.sha256(files.json_text(rest).encode()).hexdigest()


def differences(directory: Path) -> list[str]:
    """What differs from the manifest, in words; empty where every file has its checksum."""
    try:
        manifest: Manifest = files.read_json(directory / MANIFEST)
        listed = {str(name): str(entry["sha256"]) for name, entry in manifest["files"].items()}
        if manifest["schema"] != 1 or "seal" in manifest:
            text = (directory / MANIFEST).read_text(encoding="utf-8")
            if manifest["seal"] != self_checksum(manifest) or text != files.json_text(manifest):
                return [f"{MANIFEST} was altered"]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OSError, CheckFailed):
        return [f"{MANIFEST} is damaged"]
    required = REQUIRED.get(str(manifest.get("kind")), ())
    found = [f"{name} is not listed in {MANIFEST}" for name in required if name not in listed]
    root = directory.resolve()
    for name, digest in listed.items():
        found += _difference(directory / name, name, digest, root)
    return found + [f"{name} points outside" for name in _links_out(directory, root) if name not in listed]


def _links_out(directory: Path, root: Path) -> Iterator[str]:
    """The links below a directory that lead out of it, or cannot be followed; no link is entered."""
    for folder, folders, names in os.walk(directory):
        for path in (Path(folder, name) for name in sorted(folders + names)):
            with suppress(OSError, RuntimeError):  # it is gone; links in a circle
                if not path.is_symlink() or path.resolve().is_relative_to(root):
                    continue
            yield path.relative_to(directory).as_posix()


def _difference(path: Path, name: str, digest: str, root: Path) -> list[str]:
    try:
        if not path.resolve().is_relative_to(root):
            return [f"{name} points outside"]
        if not path.is_file():
            return [f"{name} {'is no file' if os.path.lexists(path) else 'is missing'}"]
        return [f"{name} was altered"] if file_sha256(path) != digest else []
    except (OSError, ValueError, RuntimeError) as error:  # not readable; a name with a NUL in it; links in a circle
        return [f"{name} cannot be read: {error}"]


def check(directory: Path, kind: str) -> None:
    """Requires a complete run or bundle whose files all have the checksums of its manifest.

    Args:
        directory: Where it should be.
        kind: "run" or "bundle".

    Raises:
        UsageError: There is no such directory, or it is something else.
        CheckFailed: It is incomplete, damaged or altered.
    """
    if not directory.is_dir():
        raise UsageError(
            f"{kind} {str(directory)!r} {files.absence(directory, 'directory')}", f"give the directory of a {kind}"
        )
    if not files.has_file(directory / MANIFEST):
        if kind == "run" and files.has_file(directory / "run.toml"):
            raise CheckFailed(f"run {directory} is not complete", f"poolzoo finetune --resume {directory}")
        raise UsageError(f"{directory} is no {kind}: it has no {MANIFEST}", f"give the directory of a {kind}")
    if kind == "run":
        finish_replacing(directory)
    if found := differences(directory):
        raise CheckFailed(
            f"{kind} {directory} is damaged: {', '.join(found[:5])}", "make it again, or restore the files"
        )
    require_kind(directory, kind)


def require_kind(directory: Path, kind: str) -> None:
    """Requires a manifest that states `kind`.

    Raises:
        UsageError: It states something else.
        CheckFailed: It cannot be read.
    """
    actual = reading.read_manifest(directory / MANIFEST)["kind"]
    if actual != kind:
        raise UsageError(f"{directory} is a {actual}, not a {kind}", f"give the directory of a {kind}")


def kind(directory: Path) -> str | None:
    """The kind that a directory's manifest states, "run" or "bundle"; None where there is no readable manifest."""
    try:
        manifest = files.read_json(directory / MANIFEST)
    except (CheckFailed, OSError):
        return None
    return str(manifest.get("kind")) if isinstance(manifest, dict) else None
