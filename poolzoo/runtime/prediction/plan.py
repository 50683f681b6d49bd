"""What a directory of predictions holds and will hold: the bundle, the settings, and the list of images in parts.

The list is written once, before the first image is read. A part is a range of it, so a part means the same images
whoever predicts them and however often. The plan is the last file of the list: without it, the list is not complete.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from poolzoo._version import __version__
from poolzoo.artifacts import manifest
from poolzoo.common import files, json_reader, json_writer, locks, output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.text import printable
from poolzoo.data.walk import Tally
from poolzoo.runtime.prediction import file_lists
from poolzoo.runtime.prediction.predict import BATCH, choose_runtime

PLAN: Final = "predict.json"
LIST: Final = "images.list"  # the names, each with a NUL after it
INDEX: Final = "images.index"  # int64: where every 64th name begins, and the end
LOCK: Final = "lock"  # of earlier versions
ALTERED: Final = "restore it, or predict into another directory"
SCHEMA: Final = 2
UNCHECKED: Final = 1  # the schema of earlier versions, without checksums of the plan and the list
CHECKSUM: Final = "sha256"  # of the plan itself
AIM: Final = 1000  # parts, where they are neither too small nor too large
SMALLEST, LARGEST = 4 * BATCH, 128 * BATCH  # images of a part; a killed worker loses one part at most
ROOTS: Final = 16  # folders that a worker looks for before it starts


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be predicted.

    Attributes:
        bundle: The bundle's directory.
        images: Files, folders, lists, or `-`, as `file_lists.images_in` takes them.
        top: How many classes to name for an image.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        runtime: The runtime to use; None for the one that the bundle names.
    """

    bundle: Path
    images: Sequence[str]
    top: int = 5
    provider: str = "cpu"
    runtime: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The content of `predict.json`.

    Attributes:
        version: The version of poolzoo that made the list.
        bundle: The bundle's absolute path.
        bundle_sha256: The checksum of its manifest.
        arguments: What named the images.
        names_sha256: For each argument that is a list, the checksum of the names in it; "" for the others.
        root: The directory that relative names start from.
        relative: Whether there are relative names.
        folders: Directories that every worker must see.
        top, provider: See `Request`.
        runtime: The runtime that every worker uses.
        images: Number of images.
        part_size: Number of images in each part but the last, a multiple of the batch size.
        list_sha256: The checksum of the list and its index; "" where an earlier version made them.
    """

    version: str
    bundle: str
    bundle_sha256: str
    arguments: tuple[str, ...]
    names_sha256: tuple[str, ...]
    root: str
    relative: bool
    folders: tuple[str, ...]
    top: int
    provider: str
    runtime: str
    images: int
    part_size: int
    list_sha256: str = ""

    @property
    def parts(self) -> int:
        """Number of parts."""
        return math.ceil(self.images / self.part_size)

    def size_of(self, part: int) -> int:
        """Number of images of a part."""
        return min(self.part_size, self.images - part * self.part_size)

    def to_json(self) -> dict[str, object]:
        """Its attributes, with the schema of the file and the checksum of all this."""
        if not self.list_sha256:
            return {"schema": UNCHECKED, **asdict(self)}
        content = {"schema": SCHEMA, **asdict(self)}
        return {**content, CHECKSUM: _checksum(content)}

    @classmethod
    def load(cls, out: Path) -> Plan:
        """Reads the plan of a directory.

        Raises:
            UsageError: There is none.
            CheckFailed: It is damaged or was edited, or a later version wrote it.
        """
        if not files.has_file(out / PLAN):
            text = f"{out} holds no predictions: it has no {PLAN}"
            raise UsageError(text, "give the directory of an interrupted predict --out")
        given = json_reader.mapping(files.read_json(out / PLAN))
        if given.get("schema") not in (UNCHECKED, SCHEMA):
            raise CheckFailed(f"{out / PLAN} is of a later version of poolzoo", "pip install --upgrade poolzoo")
        content = {key: value for key, value in given.items() if key != CHECKSUM}
        if given["schema"] == SCHEMA and given.get(CHECKSUM) != _checksum(content):
            raise CheckFailed(f"{out / PLAN} was altered: it does not match its checksum", ALTERED)
        known = {field.name: given.get(field.name) for field in fields(cls)}
        if given["schema"] == UNCHECKED:
            known["list_sha256"] = ""
        for name in ("arguments", "names_sha256", "folders"):
            known[name] = tuple(json_reader.texts(known[name]))
        plan = cls(**known)  # type: ignore[arg-type]
        numbers = [json_reader.integer(known[name]) or 0 for name in ("images", "part_size", "top")]
        texts = [json_reader.text(known[name]) for name in ("version", "bundle", "root", "provider", "runtime")]
        if None in (*known.values(), *texts) or min(numbers) < 1 or plan.part_size % BATCH:
            raise CheckFailed(f"{out / PLAN} is damaged", "predict into another directory")
        return plan


def require_list(out: Path, plan: Plan) -> None:
    """Makes sure that the list of images is that of the plan.

    Raises:
        CheckFailed: It is not.
        OSError: It cannot be read.
    """
    if absent := [name for name in (LIST, INDEX) if not files.has_file(out / name)]:
        raise CheckFailed(f"{out / absent[0]} is missing", ALTERED)
    if plan.list_sha256 and _list_sha256(out) != plan.list_sha256:
        raise CheckFailed(f"{out / LIST} was altered: it does not match its checksum in {PLAN}", ALTERED)


def _checksum(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json_writer.dumps(dict(sorted(content.items()))).encode()).hexdigest()


def _list_sha256(out: Path) -> str:
    digest = hashlib.sha256()
    for name in (LIST, INDEX):
        digest.update(manifest.file_sha256(out / name).encode())
    return digest.hexdigest()


def open_plan(out: Path, request: Request) -> tuple[Plan, bool]:
    """The plan of a directory: that of an interrupted or finished command with the same request, else a new one.

    Returns:
        The plan, and whether it was there.

    Raises:
        UsageError: Something else is in the directory, or it was made with another bundle or other settings; or the
            request names no image.
        CheckFailed: The bundle or the plan is damaged.
        OSError: The directory cannot be written to.
    """
    manifest.check(request.bundle, "bundle")
    if not out.is_dir():
        with files.appearing(out) as folder:
            return _write(folder, request), False
    with locks.alone_in(out, "predictions"):
        if not files.has_file(out / PLAN):
            return _write_into(out, request), False
        plan = Plan.load(out)
        _require_same(out, plan, request)
        if plan.bundle != str(request.bundle.absolute()):  # the same bundle, which was moved
            plan = replace(plan, bundle=str(request.bundle.absolute()))
            files.write_json(out / PLAN, plan.to_json())
        return plan, True


def _write_into(out: Path, request: Request) -> Plan:
    """Writes the list and the plan into a directory that is empty, or holds a list that was interrupted."""
    locks.sweep(out)
    if {path.name for path in out.iterdir()} - {LIST, INDEX, LOCK}:
        raise UsageError(f"{out} exists already and holds no predictions", "choose another --out")
    try:
        return _write(out, request)
    except BaseException:
        for name in (LIST, INDEX, LOCK):
            (out / name).unlink(missing_ok=True)
        with suppress(OSError):
            out.rmdir()
        raise


def _require_same(out: Path, plan: Plan, request: Request) -> None:
    differences = []
    if plan.bundle_sha256 != bundle_sha256(request.bundle):
        differences.append(f"bundle {plan.bundle}, not {request.bundle}")
    if plan.top != request.top:
        differences.append(f"--top {plan.top}, not {request.top}")
    if plan.provider != request.provider:
        differences.append(f"--provider {plan.provider}, not {request.provider}")
    named = request.runtime
    if named is not None and plan.runtime != choose_runtime(request.bundle, named, request.provider):
        differences.append(f"--runtime {plan.runtime}, not {request.runtime}")
    if plan.root != os.getcwd() and plan.relative:
        differences.append(f"names relative to {plan.root}, not to {os.getcwd()}")
    if plan.arguments != tuple(map(printable, request.images)):
        differences.append(f"images of {' '.join(plan.arguments)}, not of {' '.join(request.images)}")
    else:
        pairs = zip(request.images, plan.names_sha256, strict=True)
        changed = [name for name, digest in pairs if digest and _names_sha256(name) != digest]
        differences += [f"another list {name}" for name in changed]
    if differences:
        raise UsageError(f"{out} was made with {'; '.join(differences)}", "choose another --out")


def _names_sha256(argument: str) -> str:
    digest = hashlib.sha256()
    for name in _normalized(argument, Tally()):
        digest.update(os.fsencode(name) + b"\0")
    return digest.hexdigest()


def bundle_sha256(bundle: Path) -> str:
    """The checksum of a bundle's manifest, which states those of all its files."""
    return manifest.file_sha256(bundle / manifest.MANIFEST)


def _write(out: Path, request: Request) -> Plan:
    """Lists the images, and writes the list, its index, and the plan."""
    tally, relative = Tally(), False
    digests: list[str] = []
    folders: dict[str, None] = {}
    with ExitStack() as stack:
        names = stack.enter_context((out / LIST).open("wb"))
        index = stack.enter_context((out / INDEX).open("wb"))
        count = 0
        for argument in request.images:
            digest, is_list = hashlib.sha256(), argument == "-" or file_lists.is_list(argument)
            for number, name in enumerate(_normalized(argument, tally)):
                if number == 0 and len(folders) < ROOTS:
                    folder = argument if os.path.isdir(argument) else os.path.dirname(name)
                    folders |= dict.fromkeys(
                        [printable(os.path.abspath(folder))] if os.path.isdir(folder or ".") else []
                    )
                relative = relative or not os.path.isabs(name)
                raw = os.fsencode(name) + b"\0"
                if is_list:
                    digest.update(raw)
                if count % BATCH == 0:
                    index.write(np.int64(names.tell()).astype("<i8").tobytes())
                names.write(raw)
                count += 1
            digests.append(digest.hexdigest() if is_list else "")
        index.write(np.int64(names.tell()).astype("<i8").tobytes())
        for file in (names, index):
            _to_disk(file)
    if (line := tally.line()) is not None:
        output.say(line)
    plan = Plan(
        version=__version__,
        bundle=str(request.bundle.absolute()),
        bundle_sha256=bundle_sha256(request.bundle),
        arguments=tuple(map(printable, request.images)),
        names_sha256=tuple(digests),
        root=os.getcwd(),
        relative=relative,
        folders=tuple(folders),
        top=request.top,
        provider=request.provider,
        runtime=choose_runtime(request.bundle, request.runtime, request.provider),
        images=count,
        part_size=part_size(count),
        list_sha256=_list_sha256(out),
    )
    files.write_json(out / PLAN, plan.to_json())
    return plan


def _normalized(argument: str, tally: Tally) -> Iterator[str]:
    """The names as `Path` writes them, like the rows of `predict` without `--out`; no name of a file has a NUL."""
    return (str(Path(name)).replace("\0", "\\0") for name in file_lists.images_in(argument, tally))


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def part_size(images: int) -> int:
    """How many images are a part: about a thousand parts, within limits."""
    batches = math.ceil(images / AIM / BATCH)
    return min(max(batches * BATCH, SMALLEST), LARGEST)


def files_of(out: Path, plan: Plan, part: int) -> list[str]:
    """The names of the images of a part, in order.

    Raises:
        CheckFailed: The list is damaged.
        OSError: The list cannot be read.
    """
    first, size = part * plan.part_size // BATCH, plan.size_of(part)
    packed = _bytes_of(out / INDEX, 8 * first, 8 * (first + math.ceil(size / BATCH) + 1))
    places = [place for (place,) in struct.iter_unpack("<q", packed[: len(packed) // 8 * 8])]
    raw = _bytes_of(out / LIST, places[0], places[-1]) if places else b""
    names = [os.fsdecode(name) for name in raw.split(b"\0")[:-1]]
    if len(names) != size:
        raise CheckFailed(f"{out / LIST} is damaged", "predict into another directory")
    return names


def _bytes_of(path: Path, start: int, end: int) -> bytes:
    """A part of a file, as far as the file has it: memory is taken for no more, whatever is asked for."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start, end = (min(max(0, place), size) for place in (start, end))
        file.seek(start)
        return file.read(max(0, end - start))
