"""Predicts the classes of image files with a bundle. Needs no torch.

The file is long because it has both ways to predict: ONNX Runtime in this process, and any runtime in its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import numpy as np

from poolzoo.artifacts import manifest, reading
from poolzoo.common import output, resources
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.common.files import open_file
from poolzoo.common.text import one_line
from poolzoo.data import images, pillow_warnings
from poolzoo.data.sizes import Size
from poolzoo.metrics.decisions import Decision
from poolzoo.metrics.output_rules import ACCEPTED, PREDICTION_SET, OutputRules
from poolzoo.metrics.tasks import CLASSIFICATION, TASKS, Task
from poolzoo.plugin.grammar import suggest
from poolzoo.runtime import ort_session
from poolzoo.runtime.ort_session import ClassScore
from poolzoo.runtime.prediction.remarks import Remarks

if TYPE_CHECKING:
    from poolzoo.runtime.process import Answer

BATCH: Final = 64
PHOTOS: Final = 4  # that wait at their full size, where the graph takes them so
ORT: Final = ort_session.ORT  # which runs in this process
NOT_FINITE: Final = "the network gives NaN or infinity for it"  # the error of an image that can be read
LISTED: Final = 20  # labels of a bundle that a hint names
THREADS: Final = 4  # that read images while the graph runs; with photographs of 24 megapixels they take 1.2 GB


@dataclass(frozen=True)
class Picture:
    """The saliency picture of an image: its path, and the method that made it, "gradient" or "occlusion"."""

    path: str
    method: str


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for one image file, or why there is none.

    Attributes:
        file: The file's path as it was given.
        top: The most probable classes in descending order; empty where there is an error.
        labels: With several labels, those that reach their thresholds, in descending order of probability; else None.
        error: Why there is no prediction: the file cannot be read, or the outputs are not finite (`NOT_FINITE`).
        picture: The saliency picture, where one was drawn.
        accepted: Where the bundle abstains, whether it accepts the image; else None.
        set: Where it gives prediction sets, the classes in that of the image, in descending order of probability; else
            None.
    """

    file: str
    top: tuple[ClassScore, ...] = ()
    labels: tuple[ClassScore, ...] | None = None
    error: str | None = None
    picture: Picture | None = None
    accepted: bool | None = None
    set: tuple[ClassScore, ...] | None = None

    def to_json(self) -> dict[str, object]:
        """`{"file", "label", "score", "top"}` with `saliency` and `method` of a picture, or `{"file", "error"}`.

        With several labels, `labels` stands in place of `label` and `score`. `accepted` and `set` are there where the
        bundle has such rules.
        """
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        labels = self.labels
        named = self.top[0].to_json() if labels is None else {"labels": [one.to_json() for one in labels]}
        row = {"file": self.file, **named, "top": [one.to_json() for one in self.top]}
        if self.accepted is not None:
            row["accepted"] = self.accepted
        if self.set is not None:
            row["set"] = [one.to_json() for one in self.set]
        if self.picture is not None:
            row |= {"saliency": self.picture.path, "method": self.picture.method}
        return row


DrawPicture = Callable[[Path, np.ndarray, int, ClassScore], Picture]  # of a file, its pixels, its class and its score
MakeDrawer = Callable[[ort_session.OnnxModel], DrawPicture]
Run = Callable[[Sequence[np.ndarray]], np.ndarray]  # images, `uint8[H, W, 3]` each, to probabilities, `float[N, K]`


def predict(
    directory: Path,
    files: Sequence[str],
    *,
    top: int = 5,
    provider: str = "cpu",
    threads: int | None = None,
    pictures: MakeDrawer | None = None,
    explained: str | None = None,
    runtime: str | None = None,
    timeout: float | None = None,
) -> Generator[Prediction, None, None]:
    """Opens a bundle and predicts the classes of image files, a batch at a time.

    Args:
        directory: The bundle.
        files: The images' paths.
        top: How many classes to name for an image.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Threads to compute with; None for ONNX Runtime's own choice.
        pictures: Given the opened graph, returns a function that draws the picture of an image; None for no pictures.
        explained: The label whose saliency the pictures show; None for the most probable one of each image.
        runtime: The runtime to use; None for the one that the bundle names, or ONNX Runtime where that is not installed
            or `provider` asks for a GPU.
        timeout: Seconds that another runtime than ONNX Runtime may take to open the graph, and for each batch.

    Returns:
        A prediction for each file, in order, as soon as its batch is done.

    Raises:
        UsageError: There is no bundle, or no label to explain of that name.
        CheckFailed: The bundle is damaged.
        EnvironmentProblem: The runtime that was named is not installed.
    """
    predictor = Predictor(
        directory,
        top=top,
        provider=provider,
        threads=threads,
        pictures=pictures,
        explained=explained,
        runtime=choose_runtime(directory, runtime, provider),
        timeout=timeout,
        run_stored=runtime is not None,
    )
    return _reported(predictor, files)


def _reported(predictor: Predictor, files: Sequence[str]) -> Generator[Prediction, None, None]:
    with predictor:
        remarks = Remarks()
        yield from predictor.rows(files, remarks)
        remarks.report(len(files))


def choose_runtime(directory: Path, named: str | None, provider: str) -> str:
    """The name of the runtime to use: the one that is named, else the bundle's own, else ONNX Runtime.

    Args:
        directory: The bundle.
        named: What the user typed, if anything.
        provider: ONNX Runtime's, which is used where this asks for a GPU.

    Raises:
        UsageError: There is no such runtime.
        EnvironmentProblem: The runtime that is named is not installed.
        CheckFailed: The bundle is damaged.
    """
    manifest.check(directory, "bundle")
    if named is None and provider in ("cuda", "tensorrt"):
        return ORT
    config = reading.read_bundle_config(directory)
    name = named or config.get("export", {}).get("runtime", ORT)
    if name == ORT and named is None:
        return ORT
    from poolzoo.runtime.runtimes import find_recorded, identity_of, select

    try:
        entry = find_recorded(name) if named is None else select([name])[0]
    except (UsageError, EnvironmentProblem) as error:
        if named is not None:
            raise
        output.say(f"ONNX Runtime is used: the bundle names {name}, and {error.message}")
        return ORT
    return identity_of(entry)


def recorded_rules(directory: Path) -> OutputRules:
    """The rules of a bundle, from its `config.json`; bundles of earlier versions have none.

    Raises:
        CheckFailed: The file holds something else.
    """
    config = reading.read_bundle_config(directory)
    try:
        return OutputRules.from_json(cast(Mapping[str, object], config.get("export", {})))
    except ValueError as error:
        raise CheckFailed(f"{directory / 'config.json'} holds no {error}", "export it again") from error


def recorded_task(directory: Path) -> Task:
    """The task of a bundle, from its `config.json`; without one, as in earlier versions, an image has one label."""
    config = reading.read_bundle_config(directory)
    return TASKS.get(config.get("task", CLASSIFICATION), TASKS[CLASSIFICATION])


class Predictor:
    """An opened bundle that predicts the classes of image files. A context manager: at its end it is closed."""

    def __init__(
        self,
        directory: Path,
        *,
        top: int = 5,
        provider: str = "cpu",
        threads: int | None = None,
        pictures: MakeDrawer | None = None,
        explained: str | None = None,
        readers: int | None = None,
        runtime: str = ORT,
        timeout: float | None = None,
        run_stored: bool = False,
    ) -> None:
        """Opens a bundle; arguments and errors are those of `predict`.

        `readers` is the number of reading threads, `run_stored` that of `runtime.prepare`.
        """
        manifest.check(directory, "bundle")
        model = ort_session.open_model(directory / "model.onnx", provider, threads)
        self._model = model
        self._labels = model.labels
        self.decision = model.decision
        self.rules = recorded_rules(directory)
        self._top = top
        self._readers = readers or min(THREADS, 2 * resources.cpus())
        self._explained = None if explained is None else _place(explained, model.labels)
        self._draw = pictures(model) if pictures else None
        self._stack = ExitStack()
        self._run: Run = lambda pixels: model.run_list(pixels)[1]
        if runtime != ORT:
            other = _other_runtime(directory, runtime, model, threads, timeout, run_stored)
            self._run = self._stack.enter_context(other)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def rows(self, files: Sequence[str], remarks: Remarks) -> Generator[Prediction, None, None]:
        """A prediction for each file, in order, as soon as its batch is done.

        While a batch is in the network, the next one is read.

        Args:
            files: The images' paths.
            remarks: Collects what is noted of the files.
        """
        fit, pool = self._model.fit, ThreadPoolExecutor(self._readers)
        size, batch = (None, PHOTOS) if self._model.takes_photos else (self._model.size, BATCH)

        def start(at: int) -> list[Future[Read]]:
            return [pool.submit(_read, Path(file), size, fit) for file in files[at : at + batch]]

        with pillow_warnings.pillow():
            try:
                coming = start(0)
                for at in range(0, len(files), batch):
                    now, coming = coming, start(at + batch)  # the next batch is read while the graph runs
                    found = [future.result() for future in now]
                    pixels = [one for one, *_ in found if isinstance(one, np.ndarray)]
                    outputs = iter(self._run(pixels) if pixels else ())
                    for file, (one, notes, native) in zip(files[at : at + batch], found, strict=True):
                        remarks.misfits.add(Path(file), notes)
                        if isinstance(one, str):
                            yield Prediction(file=file, error=one)
                            continue
                        remarks.add_size(native, self._model.size)
                        yield self._prediction(file, one, next(outputs))
            finally:
                pool.shutdown(cancel_futures=True)

    def _prediction(self, file: str, pixels: np.ndarray, probabilities: np.ndarray) -> Prediction:
        if not np.isfinite(probabilities).all():  # there is no largest among them
            return Prediction(file=file, error=NOT_FINITE)
        best = ort_session.top_classes(self._labels, probabilities, self._top)
        labels = None
        if self.decision.thresholds is not None:
            labels = ort_session.labels_above(self._labels, probabilities, self.decision)
        given = self.rules.outputs(probabilities[None])
        accepted, members = given.get(ACCEPTED), given.get(PREDICTION_SET)
        picture = None
        if self._draw is not None:
            target = int(probabilities.argmax()) if self._explained is None else self._explained
            score = ClassScore(self._labels[target], float(probabilities[target]))
            picture = self._draw(Path(file), pixels, target, score)
        return Prediction(
            file=file,
            top=best,
            labels=labels,
            picture=picture,
            accepted=None if accepted is None else bool(accepted[0]),
            set=None if members is None else ort_session.classes_in(self._labels, probabilities, members[0]),
        )


def _place(label: str, labels: Sequence[str]) -> int:
    """The place of a label.

    Raises:
        UsageError: There is no such label.
    """
    if label not in labels:
        hint = suggest(label, labels) or f"its labels are: {', '.join(labels[:LISTED])}"
        raise UsageError(f"the bundle has no label {label!r}", hint)
    return list(labels).index(label)


@contextmanager
def _other_runtime(
    directory: Path,
    name: str,
    model: ort_session.OnnxModel,
    threads: int | None,
    timeout: float | None,
    run_stored: bool,
) -> Iterator[Run]:
    """Within it, a session of another runtime in a process of its own."""
    from poolzoo.runtime import cases, gate
    from poolzoo.runtime.environment import physical_cores
    from poolzoo.runtime.limits import Limits
    from poolzoo.runtime.process import WrongAnswer
    from poolzoo.runtime.runtimes import find_recorded, open_runtime

    entry = find_recorded(name)
    count, limits = threads or physical_cores(), Limits.default(timeout)
    with open_runtime(directory, entry, threads=count, limits=limits, run_stored=run_stored) as (process, _, _):
        try:
            gate.require_golden(
                process.run, cases.golden_cases(directory), lower=cases.is_lower(model), decision=model.decision
            )
        except ValueError as error:
            raise WrongAnswer(name, f"is wrong for this bundle: {error}") from error

        def run(pixels: Sequence[np.ndarray]) -> np.ndarray:
            parts = [image[None] for image in pixels] if model.takes_photos else [np.stack(pixels)]
            return np.concatenate([_believed(name, process.run(part), model.decision) for part in parts])

        yield run
    if process.close_problem:
        output.warn(f"runtime {name}: {process.close_problem}", "the labels are not affected")


def _believed(name: str, answer: Answer, decision: Decision) -> np.ndarray:
    """The probabilities of an answer, NaN where its logits are not finite.

    Raises:
        WrongAnswer: They are not the softmax, or with several labels the sigmoid, of the logits.
    """
    from poolzoo.runtime import gate
    from poolzoo.runtime.process import WrongAnswer

    finite = np.isfinite(answer.logits).all(1)
    if finite.any():
        off = gate.probability_distance(decision, answer.logits[finite], answer.probabilities[finite])
        if not off <= gate.SOFTMAX_LOWER:
            function = gate.probability_function(decision)
            raise WrongAnswer(name, f"gives probabilities that are {off:.1e} off the {function} of its logits")
    return np.where(finite[:, None], answer.probabilities, np.nan)


# The pixels of an image, `uint8[H, W, 3]`, or why there are none; what the reader notes of their scale; its size.
Read = tuple[np.ndarray | str, list[tuple[str, str]], Size | None]


def _read(file: Path, size: Size | None, fit: images.Fit) -> Read:
    notes: list[tuple[str, str]] = []
    try:
        with open_file(file, pipe=True) as opened:
            whole: BinaryIO = opened if opened.seekable() else BytesIO(opened.read())  # a pipe is read once
            pixels, native = images.read_with_size(whole, size, fit, lambda kind, values: notes.append((kind, values)))
            return pixels, notes, native
    except Exception as error:  # a damaged file makes Pillow raise anything: KeyError, struct.error, MemoryError …
        return one_line(images.reason(error)), [], None
