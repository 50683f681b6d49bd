"""Each side's way from JPEGs to labels: its export of a network, and the code that users run around it."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx.utils
import onnxruntime
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.export.cases import Case
from poolzoo.data import images
from poolzoo.export.export import export
from poolzoo.model import inference
from poolzoo.runtime import ort_session

OURS, EAGER, OPTIMUM, DECODING = "ours", "torch eager", "optimum-onnx", "decoding alone"
PART = "ours, the network's part"  # of the graph, which the peers' graphs hold alone
# timm's exporter with its defaults and with its options: arguments of `timm_file`.
TIMM: Final = {
    "timm": {"dynamo": False, "reparam": False},
    "timm --dynamo": {"dynamo": True, "reparam": False},
    "timm --reparam": {"dynamo": False, "reparam": True},
    "timm --dynamo --reparam": {"dynamo": True, "reparam": True},
}
SCRIPT: Final = Path(__file__).with_name("optimum_onnx.py")


class NoExportError(Exception):
    """A peer cannot export a network; the text says why."""


@dataclass(frozen=True)
class Runtime:
    """A way from JPEGs to labels, in three steps.

    Attributes:
        prepare: From JPEGs to what the graph or network is given.
        run: From there to what it gives.
        choose: From there to each image's class and its probability.
    """

    prepare: Callable[[Sequence[bytes]], Any]
    run: Callable[[Any], Any]
    choose: Callable[[Any], tuple[np.ndarray, np.ndarray]]

    def label(self, jpegs: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        return self.choose(self.run(self.prepare(jpegs)))


# --- Exports -------------------------------------------------------------------------------------------------------


def our_file(case: Case, folder: Path) -> Path:
    """The graph of the bundle that `poolzoo export` writes."""
    export(case.source(), folder / "bundle", provider="cpu", measure_speed=False)
    return folder / "bundle" / "model.onnx"


def timm_file(case: Case, folder: Path, *, dynamo: bool, reparam: bool) -> Path:
    """What timm's `onnx_export.py` writes.

    Raises:
        NoExportError: It cannot, or there is nothing to reparameterize.
    """
    import timm
    from timm.utils import reparameterize_model
    from timm.utils.onnx import onnx_export

    network = case.network
    if case.timm is not None:
        network = timm.create_model(case.timm, num_classes=case.classes, exportable=True)
        network.load_state_dict(case.network.state_dict())
    if reparam:
        before = len(list(network.modules()))
        network = reparameterize_model(network.eval())
        if len(list(network.modules())) == before:
            raise NoExportError("nothing to reparameterize")
    file = folder / "model.onnx"
    try:
        with inference.quiet_exporter():
            onnx_export(network, str(file), input_size=(3, *case.image_size), batch_size=1, use_dynamo=dynamo)
    except Exception as error:
        raise NoExportError(first_line(error)) from error
    return file


def optimum_file(case: Case, folder: Path, python: Path | None) -> tuple[Path, dict[str, str]]:
    """What optimum-onnx writes, and the versions in its environment.

    Raises:
        NoExportError: It is not installed, or it cannot.
    """
    from safetensors.torch import save_file

    if python is None or not python.exists():
        raise NoExportError("not installed")
    if case.timm is None:
        raise NoExportError("takes networks of timm or transformers, and this is neither")
    asked = {"name": case.timm, "classes": case.classes, "size": case.image_size}
    (folder / "network.json").write_text(json.dumps(asked), encoding="utf-8")
    save_file({key: value.clone() for key, value in case.network.state_dict().items()}, folder / "model.safetensors")
    done = subprocess.run([str(python), str(SCRIPT), str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise NoExportError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return folder / "model.onnx", json.loads(done.stdout.strip().splitlines()[-1])


def first_line(error: Exception) -> str:
    """What was raised, or what that was raised for."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}".splitlines()[0]


# --- From JPEGs to labels ------------------------------------------------------------------------------------------


def our_model(file: Path, threads: int) -> ort_session.OnnxModel:
    """Our graph, opened as poolzoo opens it: the threads of its pool sleep when there is nothing to do."""
    return ort_session.open_model(file, "cpu", threads)


def ours(model: ort_session.OnnxModel) -> Runtime:
    """The pixels that poolzoo's reader gives go in as they are, probabilities come out."""
    size, how = model.size, model.fit

    def to_pixels(jpegs: Sequence[bytes]) -> np.ndarray:
        return np.stack([images.read(io.BytesIO(jpeg), size, how) for jpeg in jpegs])

    def choose(outputs: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return _best(outputs[1])

    return Runtime(to_pixels, model.run, choose)


def our_part(file: Path, threads: int) -> onnxruntime.InferenceSession:
    """Our graph from the first convolution's input on to the logits, opened likewise: what a peer's graph computes."""
    proto = onnx.load(file)
    start = next(node for node in proto.graph.node if node.op_type == "Conv").input[0]
    for node in proto.graph.node:
        if node.op_type == "Shape":  # of the batch, which the floats have too
            node.input[0] = start if node.input[0] == "images" else node.input[0]
    part = onnx.utils.Extractor(proto).extract_model([start], ["logits"])
    return ort_session.open_session(part.SerializeToString(), ort_session.PROVIDERS["cpu"], threads)


def plain_session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    """A peer's graph with ONNX Runtime's default options, but for the number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def peer(session: onnxruntime.InferenceSession, case: Case) -> Runtime:
    """torchvision's transforms make floats, the graph logits, and numpy probabilities."""
    tensors, name = _tensors(case), session.get_inputs()[0].name

    def run(x: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(None, {name: x})[0]
        return logits

    def choose(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grown = np.exp(logits - logits.max(1, keepdims=True))
        return _best(grown / grown.sum(1, keepdims=True))

    return Runtime(lambda jpegs: tensors(jpegs).numpy(), run, choose)


def eager(case: Case) -> Runtime:
    """The same with the network in torch."""

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = case.network(x)
        return logits

    def choose(logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        chances, indices = logits.softmax(1).max(1)
        return indices.numpy(), chances.numpy()

    return Runtime(_tensors(case), run, choose)


def decoded(jpegs: Sequence[bytes]) -> list[np.ndarray]:
    """What every way has in common: Pillow's work."""
    return [np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs]


def _tensors(case: Case) -> Callable[[Sequence[bytes]], torch.Tensor]:
    """Pillow, timm's transform for evaluation (torchvision's ToTensor and Normalize), and our way of upscaling.

    Pillow's way rounds to whole numbers, which would change some labels; a batch of small floats is cheaper as well.
    """
    from timm.data import create_transform

    mean, std = case.preprocess.statistics
    transform = create_transform((3, *case.data_size), interpolation="bilinear", crop_pct=1.0, mean=mean, std=std)

    def tensors(jpegs: Sequence[bytes]) -> torch.Tensor:
        x = torch.stack([transform(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs])
        return x if case.image_size == case.data_size else F.interpolate(x, case.image_size, mode="bilinear")

    return tensors


def _best(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return probabilities.argmax(1), probabilities.max(1)
