"""A network for inference: preprocessing, softmax or sigmoid inside, in the form that torch's exporter takes best."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.model.exporter_shortcuts import shortcuts

if TYPE_CHECKING:
    from poolzoo.metrics.calibration import Calibration
    from poolzoo.model.network import Preprocess


BATCH: Final = 64  # images at once …
PIXELS: Final = BATCH * 64 * 64  # … or fewer, so that a batch has at most so many pixels of network input
OPSET: Final = 18
FUSING: Final = ("fuse", "reparameterize", "switch_to_deploy")  # methods that timm's reparameterize_model calls


class InferenceModel(nn.Module):
    """Preprocessing and network in one, to logits and probabilities, `float[N, classes]`.

    Takes images as they are stored, `uint8[N, h, w, 3]`, or already scaled, `float[N, 3, h, w]` in 0–1. Logits are the
    network's own; probabilities are those of calibrated logits.
    """

    factors: Tensor | None
    offsets: Tensor | None

    def __init__(
        self,
        preprocess: Preprocess,
        network: nn.Module,
        *,
        multilabel: bool = False,
        calibration: Calibration | None = None,
    ) -> None:
        """Puts them together.

        Args:
            preprocess: Turns stored images into the network's input.
            network: Gives logits.
            multilabel: Whether probabilities are a sigmoid of each logit, and not their softmax.
            calibration: What logits go through before; None for nothing.
        """
        super().__init__()
        self.multilabel = multilabel
        self.calibration = calibration
        self.preprocess = preprocess
        self.network = network
        for name in ("factors", "offsets"):
            value = None if calibration is None else getattr(calibration, name)
            self.register_buffer(name, None if value is None else torch.from_numpy(value))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        stored = images.dtype == torch.uint8
        return self.of_logits(self.network(self.preprocess(images) if stored else self.preprocess.normalize(images)))

    def of_logits(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The network's logits and the probabilities that belong to them."""
        calibrated = self._calibrated(logits)
        return logits, calibrated.sigmoid() if self.multilabel else calibrated.softmax(1)

    def _calibrated(self, logits: Tensor) -> Tensor:
        """What `Calibration.apply` computes."""
        if self.calibration is None or self.factors is None:
            return logits
        scaled = logits * self.factors
        numbers = self.calibration.hyperbola(logits.shape[1])
        if numbers is not None:
            gain, shift, corner = numbers
            y = scaled.softmax(1) * gain - shift
            return (y + (y * y + corner).sqrt()).log()
        return scaled if self.offsets is None else scaled + self.offsets


@contextmanager
def plain_operators(model: nn.Module) -> Iterator[None]:
    """Within it, the model is made of operators that torch's exporter takes as they are with a dynamic batch.

    Of fused attention in timm's layers it makes a dozen operators on shapes for each layer: here they are matrix
    products and a softmax. Of average pooling to 1 × 1 in a channels-last network it makes a mean and a Gather with
    computed indices: here it is the mean.
    """
    fused = [module for module in model.modules() if _is_timm(module) and getattr(module, "fused_attn", False) is True]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]  # a plain attribute that `forward` reads
    adaptive = F.adaptive_avg_pool2d

    def averaged(x: Tensor, output_size: Any) -> Tensor:
        if output_size in (1, (1, 1), [1, 1]):
            return x.mean((-2, -1), keepdim=True)
        return adaptive(x, output_size)

    F.adaptive_avg_pool2d = averaged  # type: ignore[assignment]
    try:
        yield
    finally:
        F.adaptive_avg_pool2d = adaptive
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]


def _is_timm(module: nn.Module) -> bool:
    return type(module).__module__.startswith("timm.")


def reparameterized(model: nn.Module) -> nn.Module:
    """The model, or where timm's layers in it can be fused for inference, a copy in which they are."""
    if not any(hasattr(module, name) for module in filter(_is_timm, model.modules()) for name in FUSING):
        return model
    from timm.utils.model import reparameterize_model

    with torch.no_grad():
        fused: nn.Module = reparameterize_model(copy.deepcopy(model).eval())
        return fused.eval()


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Within it, torch's exporter writes nothing about its own internals to either stream, and does no idle work."""
    names = ("torch.onnx", "onnxscript", "torch.export", "torch.fx", "torch._dynamo")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        sink = io.StringIO()
        with redirect_stdout(sink), redirect_stderr(sink), warnings.catch_warnings(), shortcuts():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def batch_of(model: nn.Module, size: tuple[int, int], pixels: int = PIXELS) -> int:
    """The batch size of inference: smaller for larger images, so that memory does not grow with their size.

    Args:
        model: The network with its preprocessing, which may resize them.
        size: Height and width of the images.
        pixels: How many pixels of network input a batch may have.
    """
    height, width = getattr(getattr(model, "preprocess", None), "resize", None) or size
    return max(1, min(BATCH, pixels // (height * width)))
