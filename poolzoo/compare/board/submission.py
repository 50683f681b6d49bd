"""What a third party sends, read as untrusted files: nothing of it is executed, followed or unpacked without a limit.

A submission is the directory of a comparison, or run directories. Files that poolzoo does not write are refused.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.artifacts.manifest import MANIFEST
from poolzoo.common import files, json_reader
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare.board import protocol
from poolzoo.compare.config import FILE as PLAN
from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.records import FILE as JOURNAL
from poolzoo.compare.writing import CSV, PAGE, RESULT
from poolzoo.data import identity
from poolzoo.data.identity import DataIdentity
from poolzoo.metrics.decisions import NO_CLASS
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_run_settings

OF_RUN: Final = (
    *("README.md", "config.json", "curves.png", identity.FILE, "env.json", MANIFEST, "metrics.json", "metrics.jsonl"),
    *("model.safetensors", "predictions.npz", "run.toml", "samples.npz", "test.npz", "validation.npz"),
)
OF_COMPARISON: Final = (PLAN, JOURNAL, RESULT, CSV, PAGE, identity.FILE, protocol.FILE)
NEEDED: Final = (identity.FILE, "env.json", "metrics.jsonl", "predictions.npz")  # beside what every run has
LEFT: Final = ("checkpoint/state.pt", identity.FILE)  # beside the heads of one backbone; a checkpoint is never opened
TEXT_BYTES: Final = 64 << 20  # the largest file of text that is read
WEIGHT_BYTES: Final = 4 << 30
ARRAY_BYTES: Final = 512 << 20  # the most that an archive of arrays may unpack to
MOST_CLASSES: Final = 1 << 31
SHOWN: Final = 3


@dataclass(frozen=True)
class SubmittedRun:
    """One run directory."""

    path: Path

    @property
    def name(self) -> str:
        """Its name for messages."""
        return f"{self.path.parent.name}/{self.path.name}"

    @cached_property
    def settings(self) -> Settings:
        """`run.toml`. Plugins that it names are not loaded."""
        return read_run_settings(self.path)

    @property
    def trial(self) -> Trial:
        """Which trial it is, by its settings."""
        own = self.settings
        return Trial(Variant(own.backbone, own.pool, own.local_pool), own.seed)

    @cached_property
    def config(self) -> Mapping[str, object]:
        """`config.json`."""
        return json_reader.mapping(files.read_json(self.path / "config.json"))

    @property
    def network(self) -> Mapping[str, object]:
        """What `config.json` says of the network."""
        return json_reader.mapping(self.config.get("poolzoo"))

    @cached_property
    def environment(self) -> Mapping[str, object]:
        """`env.json`."""
        return json_reader.mapping(files.read_json(self.path / "env.json"))

    @cached_property
    def metrics(self) -> Mapping[str, object]:
        """`metrics.json`."""
        return json_reader.mapping(files.read_json(self.path / "metrics.json"))

    @cached_property
    def data(self) -> DataIdentity:
        """The identity of its data.

        Raises:
            CheckFailed: It is missing or damaged.
        """
        found = DataIdentity.load(self.path / identity.FILE)
        if found is None:
            raise CheckFailed(f"{self.name} has no {identity.FILE}", "train it again with this version")
        return found

    @cached_property
    def predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """Predicted classes and labels of the test images, `int64[N]` each.

        Raises:
            CheckFailed: They are missing, damaged, or not of one class an image.
        """
        predicted, labels = files.read_arrays(self.path / "predictions.npz", ("predicted", "labels"))
        for array in (predicted, labels):
            is_class = array.ndim == 1 and array.shape == labels.shape and array.size > 0 and array.dtype.kind in "iu"
            if not is_class or array.max() > MOST_CLASSES or array.min() < NO_CLASS:
                raise CheckFailed(f"predictions.npz of {self.name} does not hold a class for each image")
        return predicted.astype(np.int64), labels.astype(np.int64)

    @property
    def correct(self) -> np.ndarray:
        """Which test images it has right, `bool[N]`."""
        predicted, labels = self.predictions
        return np.asarray(predicted == labels)

    def plugin(self, part: str) -> Mapping[str, object]:
        """Who provided a part of the network, `pool` or `local_pool`, as `config.json` says."""
        return json_reader.mapping(json_reader.mapping(self.network.get("plugins")).get(part))


@dataclass(frozen=True)
class Submission:
    """The directories that were named.

    Attributes:
        roots: They themselves.
        comparison: The one that is a comparison; None where all are runs.
        runs: All run directories in them, in order of their names.
    """

    roots: tuple[Path, ...]
    comparison: Path | None
    runs: tuple[SubmittedRun, ...]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Submission:
        """Finds the runs in the directories that were named.

        Raises:
            UsageError: One is neither a comparison nor a run, or a comparison is not alone.
        """
        for path in paths:
            if not path.is_dir():
                raise UsageError(
                    f"{path} {files.absence(path, 'directory')}", "give the directory of a comparison, or of runs"
                )
        comparisons = [path for path in paths if not (path / MANIFEST).is_file()]
        for path in comparisons:
            if not (path / PLAN).is_file():
                text = f"{path} is neither a comparison nor a run: it has no {PLAN} and no {MANIFEST}"
                raise UsageError(text, "give the directory of a comparison, or of runs")
        if comparisons and len(paths) > 1:
            raise UsageError("a comparison is checked alone", f"such as poolzoo report --check {comparisons[0]}")
        found = [folder for path in paths for folder in _folders(path) if (folder / MANIFEST).is_file()]
        runs = tuple(SubmittedRun(folder) for folder in sorted(found))
        return cls(tuple(paths), comparisons[0] if comparisons else None, runs)

    @cached_property
    def plan(self) -> Mapping[str, object]:
        """`plan.json`; empty for runs."""
        if self.comparison is None:
            return {}
        return json_reader.mapping(files.read_json(self.comparison / PLAN))

    @cached_property
    def references(self) -> tuple[str, ...]:
        """The protocols that its runs name, each once; one of "" for a run that names none."""
        return tuple(dict.fromkeys(run.settings.protocol or "" for run in self.runs))

    def file_problems(self) -> list[str]:
        """Links, special and executable files, files that poolzoo does not write, and files that are too large."""
        found: list[str] = []
        for root in self.roots:
            if root.is_symlink():
                found.append(f"{root} is a link")
            for path in _entries(root):
                found += [f"{path.relative_to(root)} {text}" for text in self._problem(root, path)]
        return found

    def _problem(self, root: Path, path: Path) -> list[str]:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return ["is a link"]
        if stat.S_ISDIR(mode):
            return []
        if not stat.S_ISREG(mode):
            return ["is no plain file"]
        if mode & 0o111:
            return ["is executable"]
        if not self._is_known(root, path):
            return ["is no file that poolzoo writes"]
        if path.suffix in (".json", ".jsonl", ".toml") and path.stat().st_size > TEXT_BYTES:
            return [f"is larger than {TEXT_BYTES >> 20} MB"]
        if path.suffix == ".safetensors" and path.stat().st_size > WEIGHT_BYTES:
            return [f"is larger than {WEIGHT_BYTES >> 30} GB"]
        if path.suffix == ".npz" and _unpacked(path) > ARRAY_BYTES:
            return [f"unpacks to more than {ARRAY_BYTES >> 20} MB"]
        return []

    def _is_known(self, root: Path, path: Path) -> bool:
        """Whether poolzoo writes a file of this name at this place."""
        parts = path.relative_to(root).parts
        if root != self.comparison:
            return "/".join(parts) in (*OF_RUN, *LEFT)
        if len(parts) == 1:
            return parts[0] in OF_COMPARISON
        if parts[0] != "trials" or len(parts) > 4:
            return False
        holder = path.parent
        if (holder / MANIFEST).is_file():
            return path.name in OF_RUN
        return "/".join(parts[2:]) in LEFT

    def manifest_problems(self) -> list[str]:
        """Files that differ from the checksums in their run's manifest, and files that it does not list."""
        found = []
        for run in self.runs:
            problems = manifest.differences(run.path)
            if not problems:
                content = json_reader.mapping(files.read_json(run.path / MANIFEST))
                present = {path.name for path in run.path.iterdir() if path.is_file()} - {MANIFEST}
                unlisted = sorted((present | set(NEEDED)) - set(json_reader.mapping(content.get("files"))))
                problems = [f"{name} is not listed in {MANIFEST}" for name in unlisted]
                problems += [] if content.get("kind") == "run" else [f"{MANIFEST} is not that of a run"]
            found += [f"{run.name}: {text}" for text in problems]
        return found


def _entries(root: Path) -> Iterator[Path]:
    """Everything below a directory; links are not followed."""
    for folder, folders, names in os.walk(root, followlinks=False):
        for name in sorted((*folders, *names)):
            yield Path(folder) / name


def _folders(root: Path) -> Iterator[Path]:
    """A directory and those below it, without links."""
    yield root
    for path in _entries(root):
        if path.is_dir() and not path.is_symlink():
            yield path


def _unpacked(path: Path) -> int:
    """The bytes that an archive unpacks to, as it says; zipfile reads no more than that. 0 where it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except Exception:  # what zipfile raises at a damaged one
        return 0  # whoever reads it says so


def listed(problems: Sequence[str]) -> str:
    """The first few problems, and how many more there are."""
    more = len(problems) - SHOWN
    return "; ".join(problems[:SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
