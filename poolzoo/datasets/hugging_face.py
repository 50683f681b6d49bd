"""`hf:NAME` and `parquet:PATH`: data sets that the Hugging Face library `datasets` reads, from the Hub or from files.

`datasets` turns what it reads into Arrow files, which it keeps and maps into memory. An image is decoded from its bytes
there when it is needed.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, PoolzooError, UsageError
from poolzoo.common.text import one_line
from poolzoo.data.source import cache_dir
from poolzoo.datasets import places
from poolzoo.datasets.arrow_rows import ArrowSplits
from poolzoo.datasets.split_names import split_of, split_of_file
from poolzoo.plugin.spec import Dataset

HUB: Final = "https://huggingface.co"
SHOWN: Final = 5  # splits that a message names
PARQUET_HINT: Final = "such as parquet:data, a folder of Parquet files whose names tell the split: train-0000.parquet"


def open_parquet(place: str, *, splits: Sequence[str] = ("train", "test", "val"), multilabel: bool = False) -> Dataset:
    """The data set in Parquet files. They are turned into Arrow files in the cache, once.

    Args:
        place: A file, a pattern with `*`, or a folder of `.parquet` files at any depth.
        splits: Those that are needed; the first that there is gives the names of the classes.
        multilabel: Whether a row may have several labels.

    Raises:
        UsageError: A file is missing, or a column, or a split has no rows.
        CheckFailed: A file is damaged.
    """
    files = _parquet_files(place)
    by_split: dict[str, list[str]] = {}
    for path in files:
        by_split.setdefault(split_of_file(path), []).append(str(path.absolute()))
    wanted = {split: by_split[split] for split in by_split if split in splits} or by_split
    hub = _library()
    for split, paths in wanted.items():
        if not sum(_rows_of_parquet(one) for one in paths):
            raise UsageError(f"{paths[0]} holds no rows of split {split}", "leave it out: datasets cannot load it")
    kept = _arrow_folder([path for paths in wanted.values() for path in paths])
    read = _failing_in_one_line(place, lambda: hub.load_dataset("parquet", data_files=wanted, cache_dir=kept))
    root = os.path.commonpath([path.absolute().parent for path in files])
    rows = ArrowSplits(f"parquet:{place}", root, read, multilabel=multilabel, files=wanted)
    return rows.dataset("parquet", splits, tuple(by_split))


def open_hub(place: str, *, splits: Sequence[str] = ("train", "test", "val"), multilabel: bool = False) -> Dataset:
    """The data set that the Hub has under a name, or that a local folder holds.

    Args:
        place: A name on the Hub, such as `food101` or `owner/name`, with `:CONFIG` behind it where it has several; or a
            folder that `load_dataset` reads or that `save_to_disk` wrote.
        splits: Those that are needed; the first that there is gives the names of the classes.
        multilabel: Whether a row may have several labels.

    Raises:
        UsageError: There is no such data set, or it has no images with labels, or a split has no rows.
        EnvironmentProblem: The Hub cannot be reached.
        CheckFailed: What is there is damaged.
    """
    path = Path(place).expanduser()
    if path.is_file():
        raise UsageError(f"{path} is a file and no folder", "for a Parquet file: parquet:FILE")
    hub = _library(needs_network=not path.is_dir())
    is_saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    if path.is_dir():
        if is_saved:
            _require_rows(path)
        kept = "" if is_saved else _arrow_folder(_data_files(path))
        read = _failing_in_one_line(
            place,
            lambda: hub.load_from_disk(str(path)) if is_saved else hub.load_dataset(str(path), cache_dir=kept),
        )
    else:
        if place.startswith((".", "/", "~")):
            places.require_folder(path, "give a folder, or a name on the Hub such as hf:food101")
        name, _, config = place.partition(":")
        read = _failing_in_one_line(place, lambda: hub.load_dataset(name, config or None))
    if not hasattr(read, "keys"):  # one split, as `save_to_disk` wrote it
        read = {str(read.split or "train"): read}
    by_split: dict[str, object] = {}
    for name, part in read.items():
        if (split := split_of(name)) is not None and split not in by_split:
            by_split[split] = part
    if not by_split:
        names = ", ".join(list(read)[:SHOWN])
        raise UsageError(f"hf:{place} has no split train, validation or test, but {names}", "take other data")
    wanted = {split: by_split[split] for split in by_split if split in splits} or by_split
    root = str(path.absolute()) if path.is_dir() else place
    files = dict.fromkeys(wanted, _data_files(path)) if path.is_dir() and not is_saved else {}
    rows = ArrowSplits(f"hf:{place}", root, wanted, multilabel=multilabel, files=files)
    return rows.dataset("hf", splits, tuple(by_split))


def _require_rows(saved: Path) -> None:
    """Names a split without rows: `save_to_disk` writes it without a table, which `load_from_disk` cannot load."""
    for state in sorted([*saved.glob("state.json"), *saved.glob("*/state.json")]):
        about = None
        with suppress(CheckFailed, OSError):  # `datasets` says what is wrong with a damaged one
            about = files.read_json(state)
        if isinstance(about, dict) and about.get("_data_files") == []:
            raise UsageError(f"{state.parent} holds no rows", "save the data set without it: datasets cannot load it")


def _arrow_folder(paths: Sequence[str]) -> str:
    """Where `datasets` keeps what it makes of files; alone it takes a rewritten one of the same time for the old."""
    digest = hashlib.sha256()
    for path in paths:
        about = os.stat(path)
        digest.update(os.fsencode(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\n"))
    place = cache_dir() / "arrow" / digest.hexdigest()[:32]
    with suppress(OSError):  # whoever writes there says why not
        files.make_private(place.parent)
    return str(place)


def _data_files(folder: Path) -> list[str]:
    """The files of a folder that hold data: neither hidden ones nor its page."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() != ".md"]
    return [str(path) for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts)]


def _parquet_files(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        found = sorted(path.rglob("*.parquet"))
        if not found:
            raise UsageError(f"folder {path} holds no .parquet file", PARQUET_HINT)
        return found
    if glob.has_magic(str(path)) and not path.exists():
        found = [Path(one) for one in sorted(glob.glob(str(path), recursive=True))]
        if not found:
            raise UsageError(f"no file is like {path}", PARQUET_HINT)
        return found
    places.require_file(path, PARQUET_HINT)
    return [path]


def _rows_of_parquet(path: str) -> int:
    """How many rows a file has, from its end; `datasets` does not name the file that is damaged."""
    import pyarrow
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if getattr(error, "errno", None) is not None:  # it may not be read, or is gone
            raise
        raise CheckFailed(
            f"{path} is no Parquet file, or damaged: {one_line(str(error), 200)}", "write it again"
        ) from error


def _library(*, needs_network: bool = False) -> Any:
    """`datasets`, without its progress bars and its messages; without a network it does not retry for a minute."""
    if needs_network and not _is_online():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when it is imported
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    return datasets


def _is_online() -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # the proxy looks names up
    try:
        socket.getaddrinfo(urlsplit(os.environ.get("HF_ENDPOINT") or HUB).hostname, 443)
    except OSError:
        return False
    return True


def _failing_in_one_line(place: str, read: Callable[[], Any]) -> Any:
    """What `datasets` reads; its many errors become those of poolzoo.

    Raises:
        UsageError, EnvironmentProblem, CheckFailed: It failed.
    """
    import datasets

    output.detail(f"datasets reads {place}")
    try:
        return read()
    except (PoolzooError, MemoryError):
        raise
    except ConnectionError as error:
        raise EnvironmentProblem(
            f"hf:{place} cannot be reached on the Hub: {one_line(str(error), 200)}",
            f"download it where there is a network (hf download --repo-type dataset {place} --local-dir DIR), "
            "then --data hf:DIR",
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UsageError(
            f"the Hub has no data set {place!r}, or it needs a login", "see huggingface.co/datasets"
        ) from error
    except OSError as error:
        if error.errno is not None:  # a full disk, a missing permission
            raise
        raise CheckFailed(
            f"{place} cannot be read: {one_line(str(error), 300)}", "see what the folder holds"
        ) from error
    except Exception as error:
        cause = error.__cause__ or error
        text = f"{place} cannot be read: {type(cause).__name__}: {one_line(str(cause), 300)}"
        raise CheckFailed(text, "see whether datasets.load_dataset reads it") from error
