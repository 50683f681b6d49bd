"""The other files that an ONNX file asks a runtime to read. Needs neither onnx nor a runtime.

A tensor may lie in another file, at a path that the ONNX file states, and so may what a provider has compiled. Nothing
that poolzoo exports has either. In a bundle such a path is a stranger's: a runtime would read any file of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from poolzoo.common.errors import CheckFailed
from poolzoo.common.text import one_line
from poolzoo.runtime.onnx_file import ENTRY_KEY, ENTRY_VALUE, fields

# Where tensors and nodes lie in a message: its kind → the number of a field → the kind of message there (onnx.proto).
MESSAGES: Final = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},  # of what lies outside
}
LOCATION: Final = b"location"  # the key of such an entry that names the file
COMPILED: Final = b"EPContext"  # the operator that names a file for an execution provider
NODE_TYPE: Final = 4
SHOWN: Final = 200  # bytes of a name
DEEPEST: Final = 200  # messages in one another; protobuf itself reads 100


def require_none(path: Path) -> None:
    """Makes sure that opening an ONNX file reads no other file. A file that is missing is left to who opens it.

    Raises:
        CheckFailed: It refers to another file.
    """
    try:
        found = referenced_files(path)
    except OSError:
        return
    except (ValueError, IndexError) as error:
        raise CheckFailed(f"{path} is no ONNX file, or is damaged: {error}", "export the run again") from error
    if found:
        text = f"{path} reads another file, {one_line(found[0], SHOWN)!r}, which no graph of poolzoo does"
        raise CheckFailed(text, "do not use this bundle, or export the run again")


def referenced_files(path: Path) -> list[str]:
    """The names of the files that an ONNX file refers to, as it writes them; empty where it stands alone.

    Raises:
        ValueError, IndexError: It is no ONNX file, and holds a word that may be such a reference.
        OSError: It cannot be read.
    """
    content = path.read_bytes()
    if LOCATION not in content and COMPILED not in content:  # so it is with nearly all
        return []
    return [name.decode("utf-8", "backslashreplace") for name in _names("model", memoryview(content), 0)]


def _names(kind: str, message: memoryview, depth: int) -> Iterator[bytes]:
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    found = {}
    for number, value, _ in fields(message):
        if isinstance(value, int):
            continue
        if kind == "entry" or (kind == "node" and number == NODE_TYPE):
            found[number] = bytes(value)
        elif (inner := MESSAGES[kind].get(number)) is not None:
            yield from _names(inner, value, depth + 1)
    if kind == "entry" and found.get(ENTRY_KEY) == LOCATION:
        yield found.get(ENTRY_VALUE, b"")[:SHOWN]
    if kind == "node" and found.get(NODE_TYPE) == COMPILED:
        yield COMPILED
