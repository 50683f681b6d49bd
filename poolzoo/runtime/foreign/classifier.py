"""What an ONNX file from elsewhere takes and gives, as an image classifier. Needs onnx and ONNX Runtime, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError, reason
from poolzoo.data.sizes import Size, show
from poolzoo.runtime import ort_session
from poolzoo.runtime.foreign import onnx_source

SIDE: Final = 224  # of images, where neither the file nor anybody else says it
FLOATS: Final = ("float32", "float16", "float64")
SUM_TOLERANCE: Final = 1e-2  # of the probabilities of an image in float16
TRIAL: Final = 4  # images of a trial run
LOWER: Final = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "fp16"}
QUANTIZED: Final = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class FileInput:
    """The one input of a file.

    Attributes:
        name: Its name.
        dtype: "uint8", "float32", "float16" or "float64".
        layout: "NCHW" or "NHWC".
        channels: 1 or 3.
        height, width: Of the images that it is given.
        batch: The only batch size that it takes; None where it takes any.
    """

    name: str
    dtype: str
    layout: str
    channels: int
    height: int
    width: int
    batch: int | None

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Its shape, with "N" for any batch size."""
        sides: tuple[int | str, ...] = (self.channels, self.height, self.width)
        if self.layout == "NHWC":
            sides = (self.height, self.width, self.channels)
        return (self.batch or "N", *sides)

    def describe(self) -> str:
        """`input x float32[N, 3, 224, 224]`."""
        return f"input {self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class FileOutput:
    """An output `[N, K]` of a file: its name and type, K, and whether its rows are probabilities."""

    name: str
    dtype: str
    classes: int
    is_probabilities: bool

    def describe(self) -> str:
        """`output y, probabilities of 10 classes`."""
        kind = "probabilities" if self.is_probabilities else "logits"
        return f"output {self.name}, {kind} of {self.classes} classes"


@dataclass(frozen=True, eq=False)
class Classifier:
    """A file that takes images and gives a score for each of several classes.

    Attributes:
        path: The file.
        proto: Its graph with all weights.
        opset: Its opset.
        given: Its input.
        outputs: Its outputs `[N, K]`.
        precision: "fp32", "fp16" or "int8": of its weights.
    """

    path: Path
    proto: onnx.ModelProto
    opset: int
    given: FileInput
    outputs: tuple[FileOutput, ...]
    precision: str

    def output(self, name: str | None = None, classes: int | None = None) -> FileOutput:
        """The output that holds the scores.

        Args:
            name: Its name; None for the one that is clear.
            classes: How many classes the torch module has, which tells several outputs apart; None if unknown.

        Raises:
            UsageError: There is no such output, or several may be meant.
        """
        shown = ", ".join(f"{one.name} [N, {one.classes}]" for one in self.outputs)
        if name is not None:
            for one in self.outputs:
                if one.name == name:
                    return one
            raise UsageError(f"{self.path} has no output {name!r} of shape [N, classes]", f"it has {shown}")
        fitting = [one for one in self.outputs if classes in (None, one.classes)] or list(self.outputs)
        named = [one for one in fitting if "logit" in one.name.lower()]
        unscaled = [one for one in fitting if not one.is_probabilities]
        for found in (fitting, named, unscaled):
            if len(found) == 1:
                return found[0]
        raise UsageError(f"{self.path} has several outputs that may be meant", f"--output names one of {shown}")


def inspect(path: Path, size: Size | None = None) -> Classifier:
    """Reads a file and runs it on a few images, since what it states may be too little, or wrong.

    Args:
        path: The file.
        size: Height and width of images where the file takes any; None for 224 × 224.

    Raises:
        UsageError: It is no image classifier, or does not take images of this size.
        CheckFailed: It is damaged, or ONNX Runtime does not run it.
        EnvironmentProblem: It is too new for the installed packages.
    """
    proto = onnx_source.read(path)
    candidates = _inputs(path, proto, size)
    session = open_session(path, proto)
    given = _working(path, session, candidates)
    outputs = _all_batches(path, session, given)
    found = tuple(
        FileOutput(name, value.dtype.name, value.shape[1], are_probabilities(value))
        for name, value in outputs.items()
        if value.ndim == 2 and len(value) == (given.batch or TRIAL) and value.shape[1] > 1
    )
    if not found:
        shown = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in outputs.items())
        raise UsageError(
            f"{path} is no classifier: it gives {shown or 'no floats'}, and no float[N, classes]",
            "poolzoo checks files that give a score for each of two or more classes",
        )
    return Classifier(path, proto, onnx_source.opset_of(proto), given, found, _precision(proto))


def open_session(path: Path, proto: onnx.ModelProto, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Opens a graph in ONNX Runtime on the CPU, from memory: it reads no other file.

    Raises:
        CheckFailed: ONNX Runtime refuses it.
        EnvironmentProblem: It is too new.
    """
    try:
        return ort_session.open_session(proto.SerializeToString(), ort_session.PROVIDERS["cpu"], threads)
    except EnvironmentProblem as error:
        raise EnvironmentProblem(error.message.replace("the graph", str(path), 1), error.hint) from error
    except CheckFailed as error:
        text = error.message.replace("the graph", str(path), 1)
        raise CheckFailed(text, "is it whole, and for ONNX Runtime?") from error


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether every row of scores, `[N, K]`, sums to one without a negative number."""
    with np.errstate(invalid="ignore"):
        sums = scores.astype(np.float64).sum(1)
        return bool((scores >= 0).all() and (np.abs(sums - 1) <= SUM_TOLERANCE).all())


def run_in_pieces(session: onnxruntime.InferenceSession, x: np.ndarray, batch: int | None) -> list[np.ndarray]:
    """The outputs of a graph for `[N, …]`; one that takes a fixed batch gets pieces, the last one filled up."""
    name = session.get_inputs()[0].name
    if batch is None:
        return list(session.run(None, {name: x}))
    pieces = []
    for start in range(0, len(x), batch):
        rows = start + np.arange(batch) % min(batch, len(x) - start)
        pieces.append([one[: len(x) - start] for one in session.run(None, {name: x[rows]})])
    return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]


def _inputs(path: Path, proto: onnx.ModelProto, size: Size | None) -> list[FileInput]:
    """The readings of the input, the likeliest first: where channels may be first or last, there are two."""
    values = list(proto.graph.input)
    if len(values) != 1:
        names = ", ".join(value.name for value in values) or "none"
        raise UsageError(f"{path} takes {len(values)} inputs ({names})", "poolzoo checks files that take images alone")
    (value,) = values
    tensor = value.type.tensor_type
    dtype = _dtype(tensor.elem_type)
    known = tensor.HasField("shape")
    sides = [side.dim_value if side.dim_value > 0 else None for side in tensor.shape.dim] if known else [None] * 4
    shown = f"{dtype}[{', '.join(str(side or '?') for side in sides)}]"
    if dtype not in (*FLOATS, "uint8") or len(sides) != 4:
        text = f"{path} takes no images: its input {value.name} is {shown}"
        raise UsageError(text, "poolzoo checks files that take uint8 or float images, [N, C, H, W] or [N, H, W, C]")
    found = []
    for layout, at in (("NCHW", (1, 2, 3)), ("NHWC", (3, 1, 2))):
        channels, *stated = (sides[index] for index in at)
        if channels in (1, 3, None):
            found.append((layout, channels or 3, stated, channels is not None))
    if any(certain for *_, certain in found):
        found = [one for one in found if one[-1]]
    if not found:
        raise UsageError(f"{path} takes {shown}, and images have one channel or three", "give it RGB or gray images")
    readings = []
    for layout, channels, stated, _ in found:
        height, width = (side or asked for side, asked in zip(stated, size or _square(stated), strict=True))
        if size not in (None, (height, width)):
            text = f"{path} takes images {show((height, width))} and not {show(size or ())}"
            raise UsageError(text, "leave --image-size out")
        readings.append(FileInput(value.name, dtype, layout, channels, height, width, sides[0]))
    return readings


def _square(stated: Sequence[int | None]) -> Size:
    """A size for sides of which some are stated."""
    side = next((one for one in stated if one), SIDE)
    return side, side


def _dtype(element: int) -> str:
    try:
        return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element)).name)
    except (KeyError, TypeError):
        return "no tensor"


def _trial(session: onnxruntime.InferenceSession, given: FileInput, count: int) -> dict[str, np.ndarray]:
    """Its float outputs for noise and a black image."""
    shape = (count, *(side for side in given.shape[1:] if isinstance(side, int)))
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.float64)
    noise[-1] = 0
    x = noise.astype(np.uint8) if given.dtype == "uint8" else (noise / 255).astype(given.dtype)
    values: list[Any] = session.run(None, {given.name: x})
    names = [one.name for one in session.get_outputs()]
    pairs = zip(names, values, strict=True)
    return {name: value for name, value in pairs if isinstance(value, np.ndarray) and value.dtype.name in FLOATS}


def _working(path: Path, session: onnxruntime.InferenceSession, candidates: Sequence[FileInput]) -> FileInput:
    """The first reading of the input with which the graph runs.

    Raises:
        CheckFailed: It runs with none.
    """
    problems = []
    for given in candidates:
        try:
            _trial(session, given, given.batch or 1)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            problems.append(error)
        else:
            return given
    text = f"{path} cannot be run on images {show(candidates[0].size)}: {reason(problems[0], 200)}"
    raise CheckFailed(text, "--image-size states the size of its images")


def _all_batches(path: Path, session: onnxruntime.InferenceSession, given: FileInput) -> dict[str, np.ndarray]:
    """The outputs for a few images; where the file states no fixed batch, several sizes of it must run.

    Raises:
        CheckFailed: One does not.
    """
    found: dict[str, np.ndarray] = {}
    for count in (2, TRIAL) if given.batch is None else (given.batch,):
        try:
            found = _trial(session, given, count)
        except Exception as error:
            text = f"{path} states no fixed batch, and fails at a batch of {count}: {reason(error, 200)}"
            raise CheckFailed(text, "export it with a dynamic batch, or state the fixed one") from error
    return found


def _precision(proto: onnx.ModelProto) -> str:
    """The precision of the weights."""
    if any(node.op_type in QUANTIZED for node in proto.graph.node):
        return "int8"
    kinds = {one.data_type for one in proto.graph.initializer}
    return next((LOWER[kind] for kind in kinds if kind in LOWER), "fp32")
