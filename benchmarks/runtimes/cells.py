"""One graph in one runtime: opened once, run in batches of several sizes, compared with torch."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnx

from benchmarks.runtimes.layers import BATCHES
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.plugin import loader
from poolzoo.plugin.catalog import Entry
from poolzoo.runtime import availability, runtimes
from poolzoo.runtime.limits import Limits
from poolzoo.runtime.portability import known_causes
from poolzoo.runtime.prepare import prepare
from poolzoo.runtime.process import RuntimeFailed, RuntimeProcess, WrongAnswer

LAYER_LIMIT, BUNDLE_LIMIT = 1e-4, 1e-3  # of the largest value that torch gives: a whole network rounds more often
LOWER_LIMIT: Final = 1 / 16  # where the graph is in lower precision, beside what that precision itself costs
SECONDS, MEMORY = 180.0, 4 << 30  # of opening, converting or a batch; of a session

ENDED: Final = re.compile(r"\b(ended with|closed its pipe|holds) ")  # in what the host says of it
LATE: Final = re.compile(r"\bdoes not answer within (?P<seconds>[\d.,]+) seconds? (?P<step>while .*)")

Status = Literal["agrees", "wrong", "refused", "crashed", "too slow"]


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What was found of a graph in a runtime.

    Attributes:
        graph: The name of the layer or bundle.
        runtime: The runtime's name.
        version: The runtime's version.
        key: A digest of all that the result depends on: graph, cases, the runtime's version and form.
        status: Whether it agrees; "crashed" where the process ended, "too slow" where it did not answer in time.
        off: The largest difference, as a fraction of the largest value that torch gives; None where there is none,
            or where it is not finite.
        detail: Why it does not agree, in the runtime's words.
        causes: Why, by the rules on what runtimes get wrong; empty where none applies.
        verify: The status that `poolzoo verify --runtime` gives the same bundle; "" where it was not asked, as for a
            layer.
        changes: What was changed of the graph for the runtime.
        speed: How many times as fast as ONNX Runtime it is, by batch size; None where it was not measured.
    """

    graph: str
    runtime: str
    version: str
    key: str
    status: Status
    off: float | None = None
    detail: str = ""
    causes: tuple[str, ...] = ()
    verify: str = ""
    changes: tuple[str, ...] = ()
    speed: Mapping[str, float] | None = None

    @classmethod
    def from_json(cls, given: Mapping[str, object]) -> CellResult:
        """The result that `to_json` gave."""
        fields = {name: given[name] for name in cls.__dataclass_fields__}
        return cls(**{**fields, "causes": tuple(given["causes"]), "changes": tuple(given["changes"])})

    def to_json(self) -> dict[str, object]:
        """A line of the journal; `trial` is its key there."""
        return {"trial": f"{self.graph} | {self.runtime}", **asdict(self)}


def key(folder: Path, cases: Path, entry: Entry) -> str:
    """A digest of all that a result depends on. Names of nodes and notes of the exporter are no part of it."""
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        node.name = ""
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    runtime = runtimes.runtime_of(entry)
    with np.load(cases) as arrays:
        expected = b"".join(arrays[name].tobytes() for name in ("logits", "noise") if name in arrays)
    parts = (
        model.SerializeToString(deterministic=True),
        expected,
        availability.find(runtime).version.encode(),
        repr(runtime.form).encode(),
        _code(runtime.open),
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _code(function: object) -> bytes:
    """The file that a string names a function of, and those beside it whose names begin alike: its rewrites."""
    from importlib.util import find_spec

    found = find_spec(function.partition(":")[0]) if isinstance(function, str) else None
    if found is None or not found.origin:
        return repr(function).encode()
    file = Path(found.origin)
    return b"".join(one.read_bytes() for one in [file, *sorted(file.parent.glob(f"{file.stem}_*.py"))])


class Warm:
    """A runtime's process that opens one graph after another: most of a small cell's time is the start of a process.

    Whatever does not agree in a process that has opened other graphs is tried again in a new one.
    """

    def __init__(self, runtime: str, seconds: float = SECONDS) -> None:
        self.entry = loader.catalog().runtime(runtime)
        self.seconds = seconds
        self.opened = 0
        self._process: RuntimeProcess | None = None

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    @property
    def process(self) -> RuntimeProcess:
        """The process; a new one where there is none."""
        if self._process is None:
            limits = Limits(seconds=self.seconds, memory=MEMORY)
            self._process = RuntimeProcess(self.entry, threads=1, limits=limits)
            self.opened = 0
        return self._process

    def drop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.close()
            self._process = None


def run(graph: str, folder: Path, cases: Path, warm: Warm, *, whole: bool, measure_speed: bool) -> CellResult:
    """Runs a cell.

    Args:
        graph: Its name.
        folder: The bundle, or a layer's directory.
        cases: `images` and torch's `logits`.
        warm: The runtime.
        whole: Whether it is a bundle, which `poolzoo verify` judges too, unless it agrees and is not timed.
        measure_speed: Whether to time a bundle.
    """
    limit = _limit(cases, whole)
    found = _run_once(graph, folder, cases, warm, limit)
    if found.status != "agrees":
        again = warm.opened > 1 and found.status != "too slow"
        warm.drop()
        if again:
            found = _run_once(graph, folder, cases, warm, limit)
            warm.drop()
    agrees = found.status == "agrees"
    if not whole or found.status == "too slow" or (agrees and not measure_speed):
        return found
    verified, speed = _verify(folder, found.runtime, warm.seconds, measure_speed and agrees)
    return replace(found, verify=verified, speed=speed)


def _run_once(graph: str, folder: Path, cases: Path, warm: Warm, limit: float) -> CellResult:
    with np.load(cases) as arrays:
        images, expected = arrays["images"], arrays["logits"]
    changes: tuple[str, ...] = ()
    off: float | None = None
    try:
        with tempfile.TemporaryDirectory() as work:
            prepared = prepare(folder, warm.entry, Path(work) / "prepared", process=warm.process)
            changes = prepared.changes
            warm.opened += 1
            warm.process.open(prepared.directory)
            found, start = [], 0
            for size in BATCHES:
                found.append(warm.process.run(images[start : start + size]).logits)
                start += size
        off = _distance(np.concatenate(found), expected)
        status: Status = "agrees" if off is not None and off <= limit else "wrong"
        detail = "" if status == "agrees" else _words(np.concatenate(found), expected, limit)
    except WrongAnswer as error:
        status, detail = "wrong", error.message
    except (RuntimeFailed, EnvironmentProblem) as error:
        status, detail = ("crashed" if ENDED.search(error.message) else "refused"), error.message
        if late := LATE.search(error.message):
            status, detail = "too slow", f"> {late['seconds']} s {late['step']}"
    return CellResult(
        graph=graph,
        runtime=warm.entry.item.name,
        version=availability.find(runtimes.runtime_of(warm.entry)).version,
        key=key(folder, cases, warm.entry),
        status=status,
        off=off,
        detail=detail,
        causes=()
        if status == "agrees"
        else known_causes(
            folder / "model.onnx", runtimes.identity_of(warm.entry), runtimes.runtime_of(warm.entry).form
        ),
        changes=changes,
    )


def _verify(folder: Path, runtime: str, seconds: float, measure_speed: bool) -> tuple[str, dict[str, float] | None]:
    """What `poolzoo verify --runtime` says of a bundle, and the speed."""
    (found,) = runtimes.check_runtimes(
        folder, [runtime], threads=1, timeout=seconds, measure_speed=measure_speed
    ).results
    if not measure_speed:
        return found.status, None
    rows = {str(row.batch): row.measurement.speedup for row in found.speed}
    return found.status, {size: round(ratio["median"], 3) for size, ratio in rows.items() if ratio}


def _limit(cases: Path, whole: bool) -> float:
    """How far off a cell may be, relative to the largest value."""
    with np.load(cases) as arrays:
        if "noise" in arrays:
            return LOWER_LIMIT + float(arrays["noise"])
    return BUNDLE_LIMIT if whole else LAYER_LIMIT


def _distance(found: np.ndarray, expected: np.ndarray) -> float | None:
    """The largest difference relative to the largest value expected; None where an output is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return None
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())


def _words(found: np.ndarray, expected: np.ndarray, limit: float) -> str:
    if found.shape != expected.shape:
        return f"gives shape {list(found.shape)} instead of {list(expected.shape)}"
    off = np.abs(found.astype(np.float64) - expected)
    if not np.isfinite(off).all():
        return f"{int((~np.isfinite(off)).sum())} of {off.size} values are NaN or infinite"
    starts = np.cumsum((0, *BATCHES))
    largest = float(np.abs(expected).max())
    wrong = [size for at, size in enumerate(BATCHES) if (off[starts[at] : starts[at + 1]] > limit * largest).any()]
    return f"off by {off.max() / largest:.2g} of the largest value, in batches of {_sizes(wrong)}"


def _sizes(wrong: list[int]) -> str:
    return ", ".join(str(size) for size in sorted(set(wrong))) + ("" if len(wrong) == len(BATCHES) else " alone")
