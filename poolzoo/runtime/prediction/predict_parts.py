"""Predicts a list of images part by part into a directory that a later command can resume. Needs pyarrow, no torch."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from poolzoo.common import files, locks, output
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.common.text import printable
from poolzoo.runtime.prediction import attempts
from poolzoo.runtime.prediction import parts as prediction_parts
from poolzoo.runtime.prediction import plan as prediction_plan
from poolzoo.runtime.prediction.attempts import Attempt
from poolzoo.runtime.prediction.counts import Counts
from poolzoo.runtime.prediction.plan import Plan, Request
from poolzoo.runtime.prediction.predict import BATCH, Prediction, Predictor
from poolzoo.runtime.prediction.remarks import Remarks

SUMMARY: Final = "summary.json"
GIVEN_UP: Final = "the process that reads it ends"  # the error of an image that kills workers
LOG_EVERY: Final = 30.0  # seconds between two lines of progress where no bar is drawn


@dataclass(frozen=True)
class PartResult:
    """A finished part, its counts, and how many processes died at it before."""

    part: int
    counts: Counts
    deaths: int = 0


# Of the directory, its plan, the parts that are missing, and the number of threads: the results as they come.
Runner = Callable[[Path, Plan, Sequence[int], int | None], Generator[PartResult, None, None]]


@dataclass(frozen=True)
class Summary:
    """The content of `summary.json`, which is there when every part is.

    Attributes:
        path: The directory.
        plan: What was predicted.
        counts: Of all images.
    """

    path: Path
    plan: Plan
    counts: Counts

    def to_json(self) -> dict[str, object]:
        """`{"path", "bundle", "bundle_sha256", "parts", "images", "labels", "unreadable", "not_finite", …}`."""
        plan = self.plan
        facts = {"bundle": plan.bundle, "bundle_sha256": plan.bundle_sha256, "version": plan.version}
        return {"path": printable(str(self.path)), **facts, "parts": plan.parts, **self.counts.to_json()}


class PartPredictor:
    """A worker: it opens the bundle once, and predicts and writes one part after another."""

    def __init__(self, out: Path, plan: Plan, *, threads: int | None, readers: int | None = None) -> None:
        """Opens the bundle.

        Args:
            out: The directory of the predictions.
            plan: Its plan.
            threads: Threads to compute with; None for ONNX Runtime's own choice.
            readers: Threads that read images; None for as many as fit this machine.

        Raises:
            EnvironmentProblem: This machine does not see the directory, the images or the bundle, or has another
                bundle in its place.
            CheckFailed: The bundle is damaged.
        """
        _require_visible(out, plan)
        bundle = Path(plan.bundle)
        self._out = out
        self._plan = plan
        self._predictor = Predictor(
            bundle, top=plan.top, provider=plan.provider, threads=threads, readers=readers, runtime=plan.runtime
        )
        if prediction_plan.bundle_sha256(bundle) != plan.bundle_sha256:
            raise EnvironmentProblem(f"{bundle} is another bundle than before", "restore it, or choose another --out")

    def __enter__(self) -> PartPredictor:
        return self

    def __exit__(self, *error: object) -> None:
        self._predictor.__exit__(*error)

    def run(self, part: int) -> PartResult:
        """Predicts the images of a part and writes it.

        Raises:
            CheckFailed: The list is damaged, or images of the part have killed too many workers.
            OSError: The part cannot be written.
        """
        plan, attempt = self._plan, Attempt(self._out, part)
        names, counts = prediction_plan.files_of(self._out, plan, part), Counts()
        rows: list[Prediction] = []
        for start, size in attempt.steps(len(names), BATCH):
            for prediction in self._rows(names, start, size, attempt, counts.remarks):
                counts.add(part * plan.part_size + len(rows), prediction)
                rows.append(prediction)
        multilabel = self._predictor.decision.task.is_multilabel
        rules = self._predictor.rules
        prediction_parts.write(self._out, part, rows, counts, multilabel=multilabel, rules=rules)
        attempt.finish()
        return PartResult(part, counts, attempt.deaths)

    def _rows(
        self, names: Sequence[str], start: int, size: int, attempt: Attempt, remarks: Remarks
    ) -> Iterator[Prediction]:
        if size == 1 and attempt.is_given_up(start):
            yield Prediction(file=printable(names[start]), error=GIVEN_UP)
            return
        attempt.enter(start, min(size, 2 * BATCH))  # while a batch is in the network, the next one is read
        for at, row in enumerate(self._predictor.rows(names[start : start + size], remarks), 1):
            yield replace(row, file=printable(row.file))
            if at % BATCH == 0 and at < size:
                attempt.enter(start + at, min(size - at, 2 * BATCH))


def node_name() -> str:
    """The name of this machine."""
    return socket.gethostname()


def _require_visible(out: Path, plan: Plan) -> None:
    """Makes sure that this machine sees what the one that made the plan saw."""
    hint = "every node needs the images, the bundle and --out at the same paths, on a disk that all share"
    folders = [str(out / prediction_plan.PLAN), *plan.folders, *([plan.root] if plan.relative else []), plan.bundle]
    for folder in folders:
        if not os.path.exists(folder):
            raise EnvironmentProblem(f"node {node_name()} does not see {folder}", hint)


def run_local(out: Path, plan: Plan, parts: Sequence[int], threads: int | None) -> Generator[PartResult, None, None]:
    """Predicts parts in this process, in the directory that relative names start from."""
    place = contextlib.chdir(plan.root) if plan.relative else contextlib.nullcontext()
    with place, PartPredictor(out, plan, threads=threads) as worker:
        yield from map(worker.run, parts)


def start(out: Path, request: Request, runner: Runner = run_local, *, threads: int | None = None) -> Summary:
    """Predicts the images of a request into a directory; goes on with what is missing where it is there already.

    Args:
        out: The directory. It is new, or of the same request.
        request: The bundle, the images and the settings.
        runner: Where the parts are predicted.
        threads: Threads of a worker; None for the runner's own choice.

    Raises:
        UsageError: The directory holds something else, or another command is at work in it; no image is named.
        CheckFailed: The bundle is damaged.
        EnvironmentProblem: pyarrow is missing, or a node lacks something.
    """
    prediction_parts.require_parquet()
    plan, resumed = prediction_plan.open_plan(out, request)
    return _finish(out.absolute(), plan, runner, threads, resumed=resumed)


def resume(out: Path, runner: Runner = run_local, *, threads: int | None = None) -> Summary:
    """Goes on in a directory of predictions; arguments and errors are those of `start`."""
    plan = Plan.load(out)
    prediction_parts.require_parquet()
    return _finish(out.absolute(), plan, runner, threads, resumed=True)


def _finish(out: Path, plan: Plan, runner: Runner, threads: int | None, *, resumed: bool) -> Summary:
    with locks.alone_in(out, "predictions"):
        if resumed:
            prediction_plan.require_list(out, plan)
        prediction_parts.remove_unfinished(out)
        total, missing = Counts(), set(range(plan.parts))
        for part, counts in prediction_parts.done(out, plan):
            total.merge(counts)
            missing.discard(part)
        if resumed:
            text = f"{total.images:,} of {plan.images:,} images are done already"
            output.say(f"{text}; the list of images is that of the first start")
        if missing:
            (out / SUMMARY).unlink(missing_ok=True)
            try:
                _predict_missing(out, plan, missing, total, runner, threads)
            except BaseException:  # Ctrl-C, or a disk that is full: no image is to blame
                attempts.withdraw(out)
                raise
            total.remarks.report(plan.images)
        summary = Summary(out, plan, total)
        if not files.has_file(out / SUMMARY):
            files.write_json(out / SUMMARY, summary.to_json())
        return summary


def _predict_missing(
    out: Path, plan: Plan, missing: set[int], total: Counts, runner: Runner, threads: int | None
) -> None:
    """Predicts the missing parts, which are taken out of the set, and adds to the counts."""
    with (
        _progress(plan.images, total.images) as advance,
        closing(runner(out, plan, sorted(missing), threads)) as results,
    ):
        for result in results:
            if result.part not in missing:
                continue
            if result.deaths:
                died = "a worker" if result.deaths == 1 else f"{result.deaths} workers"
                output.warn(f"part {result.part}: {died} died, another one did it")
            total.merge(result.counts)
            missing.discard(result.part)
            advance(total.images)
    if missing:
        raise EnvironmentProblem(f"{len(missing)} parts are missing", f"poolzoo predict --resume {out} goes on")


@contextmanager
def _progress(total: int, done: int, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[int], None]]:
    """A bar, or a line every half minute: images, images a second, and the time left."""
    begin = last = clock()
    with output.progress("labeling images", total) as bar:

        def advance(images: int) -> None:
            nonlocal last
            now = clock()
            rate = (images - done) / max(now - begin, 1e-9)
            bar.update(images, f"{rate:,.0f} images/s")
            if now - last >= LOG_EVERY and not output.shows_progress():
                last = now
                left = (total - images) / rate
                time_left = f"{left / 60:,.0f} min" if left >= 120 else f"{left:.0f} s"
                output.say(f"{images:,} of {total:,} images, {rate:,.0f} images/s, {time_left} left")

        yield advance
