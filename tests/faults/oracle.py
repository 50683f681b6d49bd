"""Whether what lies on the disk is what an undisturbed command leaves there. Imports nothing of poolzoo.

Two undisturbed runs tell what is stable: files of equal bytes, and values of JSON that are equal. All that must be the
same after a fault. Times and memory are not looked at; of pages and pictures, only that they are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ENDS: Final = {".png": b"IEND\xaeB`\x82", ".html": b"</html>", ".md": b"\n", ".csv": b"\n", ".toml": b"\n"}
MEASURED: Final = re.compile(
    r"seconds|hours|_ms|ms$|per_s|peak|memory|started|ended|session|time|speed|sha256|seal|bytes|date"
)
TIMES: Final = re.compile(r"\d[\d.,]*(?= (ms|s|minutes?|h)\b)")  # in sentences
RANDOM: Final = re.compile(r"[0-9a-f]{16,}|(?<=part-)\w+(?=\.(rows|table))")  # keys of caches, and drawn names
LIBRARIES: Final = re.compile(r"torchinductor")  # caches of libraries in the directory for temporary files
LINES: Final = (".jsonl",)
UNLISTED: Final = ("checkpoint/", "runtimes.")  # what manifests leave out


def files_below(place: Path) -> dict[str, Path]:
    """The files below a directory by their relative names; a file by its own."""
    if place.is_file():
        return {place.name: place}
    return {str(path.relative_to(place)): path for path in sorted(place.rglob("*")) if path.is_file()}


def names(box: Path, places: Sequence[str]) -> set[str]:
    """The files and directories below some places, with what is random in their names left out, and their modes."""
    found: set[str] = set()
    for place in places:
        for path in [box / place, *sorted((box / place).rglob("*"))] if (box / place).exists() else []:
            if LIBRARIES.search(str(path)):
                continue
            kind = "/" if path.is_dir() else f" {path.stat().st_mode & 0o777:o}"
            found.add(RANDOM.sub("*", str(path.relative_to(box))) + kind)
    return found


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers, texts and booleans of a JSON value with their places, but what is measured, also in a text."""
    if isinstance(value, dict):
        for key, one in value.items():
            if not MEASURED.search(key):
                yield from leaves(one, f"{at}/{key}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from leaves(one, f"{at}/{number}")
    else:
        yield at, TIMES.sub("*", value) if isinstance(value, str) else value


def _json_of(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix in LINES else json.loads(text)


def damage(place: Path) -> list[str]:
    """What is half-written below a place, by looking at the files alone."""
    found = []
    for name, path in files_below(place).items():
        content = path.read_bytes()
        if path.suffix in (".json", *LINES):
            try:
                _json_of(path)
            except ValueError as error:
                found.append(f"{name} is no JSON: {error}")
        if (end := ENDS.get(path.suffix)) and not content.rstrip(b"\n").endswith(end.rstrip(b"\n")):
            found.append(f"{name} has no end")
    for manifest in _manifests(place):
        listed = {*json.loads(manifest.read_text())["files"], manifest.name}
        unlisted = [name for name in files_below(manifest.parent) if name not in listed]
        found += [f"{name} is not in {manifest}" for name in unlisted if not name.startswith(UNLISTED)]
    return found + false_manifests(place)


def false_manifests(place: Path) -> list[str]:
    """What the manifests below a place list and what is otherwise: a run or bundle with a manifest is whole."""
    return [text for path in _manifests(place) for text in _differences_of(path)]


def _manifests(place: Path) -> list[Path]:
    return [path for path in files_below(place).values() if path.name == "manifest.json"]


def _differences_of(manifest: Path) -> list[str]:
    listed = json.loads(manifest.read_text())["files"]
    there = files_below(manifest.parent)
    found = [f"{name} is listed and missing" for name in listed if name not in there]
    for name, about in listed.items():
        if name in there and hashlib.sha256(there[name].read_bytes()).hexdigest() != about["sha256"]:
            found.append(f"{name} is not what {manifest} lists")
    return found


@dataclass(frozen=True)
class Reference:
    """What is stable in a result, from two undisturbed runs of a command.

    Attributes:
        digests: Of files, by place and name.
        values: Of JSON files, by place and name.
        names: Of all files in the box.
    """

    digests: Mapping[str, str]
    values: Mapping[str, Mapping[str, Any]]
    names: frozenset[str]

    @classmethod
    def of(cls, boxes: Sequence[Path], made: Sequence[str], everywhere: Sequence[str]) -> Reference:
        """What two boxes have in common.

        Raises:
            AssertionError: The undisturbed results are damaged, or differ in what they have.
        """
        for box in boxes:
            for place in made:
                assert not (found := damage(box / place)), found
        first, second = (
            {f"{one}/{name}": path for one in made for name, path in files_below(box / one).items()} for box in boxes
        )
        assert {RANDOM.sub("*", name) for name in first} == {RANDOM.sub("*", name) for name in second}
        digests, values = {}, {}
        for name, path in first.items():
            if name not in second:
                continue
            if path.suffix in (".json", *LINES):
                own, other = (dict(leaves(_json_of(one))) for one in (path, second[name]))
                values[name] = {at: value for at, value in own.items() if at in other and other[at] == value}
            elif path.suffix not in ENDS and path.read_bytes() == second[name].read_bytes():
                digests[name] = _digest(path)
        return cls(digests, values, frozenset(names(boxes[0], everywhere) | names(boxes[1], everywhere)))

    def differences(self, box: Path, made: Sequence[str]) -> list[str]:
        """How the result in a box differs from the reference."""
        found = [f"{place}: {text}" for place in made for text in damage(box / place)]
        for name, digest in self.digests.items():
            if not (box / name).is_file():
                found.append(f"{name} is missing")
            elif _digest(box / name) != digest:
                found.append(f"{name} has other bytes")
        for name, known in self.values.items():
            if not (box / name).is_file():
                found.append(f"{name} is missing")
                continue
            if name.endswith("journal.jsonl"):
                continue  # its lines are in the order of events; what they say is in the other files
            own = dict(leaves(_json_of(box / name)))
            found += [
                f"{name}{at} is {own.get(at)!r}, not {value!r}" for at, value in known.items() if own.get(at) != value
            ]
        return found

    def strays(self, box: Path, made: Sequence[str], everywhere: Sequence[str]) -> list[str]:
        """Files and directories that an undisturbed command does not leave, and those of its result that are missing.

        Args:
            box: What is judged.
            made: Where the result is.
            everywhere: Where strays are looked for.
        """
        now = names(box, everywhere)
        missing = sorted(name for name in self.names - now if name.rstrip("/").split("/")[0].split(" ")[0] in made)
        return [f"stray {name}" for name in sorted(now - self.names)] + [f"no {name}" for name in missing]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def said_wrong(err: str) -> list[str]:
    """What stderr should not have: a traceback, more than one error, noise of the interpreter."""
    found = [
        f"stderr has {word!r}" for word in ("Traceback", "Exception ignored", "leaked", "Fatal Python") if word in err
    ]
    lines = err.splitlines()
    for word in ("error:", "hint:"):
        if (count := sum(line.startswith(word) for line in lines)) > 1:
            found.append(f"stderr has {count} lines with {word}")
    return found


def processes_of(session: int, marker: str) -> list[int]:
    """Processes that are left of a command: of its session, or with its plan in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            state, _, _, its = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:4]
            environment = Path("/proc", entry, "environ").read_bytes()
        except OSError:
            continue
        if state != "Z" and (int(its) == session or marker.encode() in environment):
            found.append(int(entry))
    return found
