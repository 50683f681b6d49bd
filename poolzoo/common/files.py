"""Files and directories written so that they appear whole, and JSON and arrays read with one line for what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolzoo.common import locks
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.opening import absence as absence
from poolzoo.common.opening import open_file as open_file
from poolzoo.common.opening import require_file as require_file
from poolzoo.common.opening import require_replaceable as require_replaceable

if TYPE_CHECKING:
    import numpy as np


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file to a temporary name beside its place and renames it, so that nobody sees half of it."""
    write_together({path: content.encode() if isinstance(content, str) else content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes files to temporary names beside their places, and then renames one after the other, in their order."""
    for path in contents:
        require_replaceable(path)
    with ExitStack() as stack:
        staged = {stack.enter_context(locks.unfinished(path)): path for path in contents}
        for temporary, path in staged.items():
            write_through(temporary, contents[path])
        for temporary, path in staged.items():
            os.replace(temporary, path)


def write_through(path: Path, content: bytes) -> None:
    """Writes a file and waits until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; NaN and infinities become null."""
    write_atomically(path, json_text(value))


def json_text(value: Any) -> str:
    from poolzoo.common import json_writer

    return json_writer.dumps(value, indent=2) + "\n"


def read_json(path: Path, make_object: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.
        make_object: Makes a value of the names and values of an object; None for `dict`.

    Raises:
        CheckFailed: It is missing or no JSON.
    """
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=make_object)
    except FileNotFoundError:
        raise CheckFailed(f"{path} is missing", "the directory is incomplete; make it again") from None
    except (ValueError, RecursionError) as error:
        raise CheckFailed(f"{path} is damaged: {error}", "make the directory again") from error


def read_json_lines(path: Path) -> list[Mapping[str, object]]:
    """The objects in a file of one JSON object a line.

    Raises:
        CheckFailed: The file is missing, or a line is no JSON object; it names the line.
    """
    from poolzoo.common import json_reader

    found: list[Mapping[str, object]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            value = json_reader.parse(line)
            if not isinstance(value, dict):
                raise ValueError("no object")
            found.append(value)
    except FileNotFoundError:
        raise CheckFailed(f"{path} is missing", "the directory is incomplete; make it again") from None
    except ValueError as error:
        raise CheckFailed(
            f"{path}, line {len(found) + 1:,}, is damaged: {error}", "make the directory again"
        ) from error
    return found


def read_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The named arrays of a `.npz` file.

    Raises:
        CheckFailed: The file is missing, damaged, or lacks one of them.
    """
    return list(read_archive(path, names).values())


def read_archive(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file by name: the named ones, or all.

    Raises:
        CheckFailed: The file is missing, damaged, or lacks one of them; or it unpacks to far more than it is.
    """
    from poolzoo.common import archive

    try:
        return archive.read(path, names)
    except FileNotFoundError:
        raise CheckFailed(f"{path} is missing", "the directory is incomplete; make it again") from None
    except (OSError, ValueError) as error:
        raise CheckFailed(f"{path} cannot be read: {error}", "make the directory again") from error


def has_file(path: Path) -> bool:
    """Whether there is a file; False where nothing at all has its name.

    Ask it where an absent file means something, such as that a run is not complete.

    Raises:
        CheckFailed: Something else has its name: a directory, a pipe, or a link that leads nowhere or in a circle.
    """
    if path.is_file():
        return True
    if not os.path.lexists(path):
        return False
    raise CheckFailed(f"{path} is no file", "remove it, or restore the file")


def require_free(path: Path) -> None:
    """Makes sure that a directory can be made at `path` and that nothing is there.

    Raises:
        UsageError: Something is there.
        OSError: The place is not writable.
    """
    if path.exists() or path.is_symlink():
        is_around = Path.cwd().is_relative_to(path.resolve())  # as "" is, of a variable that is not set
        raise UsageError(f"{path} exists already", f"choose another path{'' if is_around else ', or remove it first'}")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise UsageError(f"{parent} is a file, not a directory", "choose another --out")
    require_writable(parent)


def make_private(folder: Path) -> None:
    """Makes a directory that only its owner can enter, as what is kept of images may be private; one stays as it is.

    Raises:
        OSError: It cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def require_writable(folder: Path) -> None:
    """Makes sure that files can be made in a folder.

    Raises:
        OSError: They cannot.
    """
    import tempfile

    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:  # which names the temporary file
        raise type(error)(error.errno, error.strerror, str(folder)) from error


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary directory that takes its place at `path` when the block ends well, and vanishes when it does not.

    What a killed process left of an earlier attempt is removed.
    """
    require_free(path)
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    locks.sweep(path.absolute().parent)
    try:
        with locks.unfinished(path.absolute(), is_folder=True) as temporary:
            yield temporary
            for file in filter(Path.is_file, temporary.rglob("*")):
                _wait_for_disk(file)  # or a power cut may leave a whole directory of empty files
            os.chmod(temporary, _mode_of_new_folders(temporary))
            require_free(path)
            os.rename(temporary, path)
    except BaseException:
        for folder in made:  # the innermost first; one that somebody else has filled since stays
            with suppress(OSError):
                folder.rmdir()
        raise


def _wait_for_disk(path: Path) -> None:
    with path.open("rb") as file, suppress(OSError):  # some systems only do it for files that are open for writing
        os.fsync(file.fileno())


def _mode_of_new_folders(parent: Path) -> int:
    """The permissions that a new directory gets; the umask cannot be read without changing it for all threads."""
    probe = parent / ".probe"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o777
    probe.rmdir()
    return mode


def slug(text: str) -> str:
    """A name as part of a directory's name."""
    return "".join("-" if character in "/:, \\" else character for character in text)
