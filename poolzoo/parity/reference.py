"""The reference of a comparison: the network's own outputs in two precisions, and a tolerance for each image."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import nn

from poolzoo.common import allocator, output
from poolzoo.common.errors import CheckFailed
from poolzoo.data.synthetic import edge_cases
from poolzoo.metrics.decisions import ONE_LABEL, Decision
from poolzoo.model.inference import batch_of
from poolzoo.parity.float64 import in_float64
from poolzoo.parity.shared_maps import SharedMaps
from poolzoo.runtime import tolerance

FLOOR_FACTOR: Final = 4.0  # a faithful graph lies at about a quarter of that, a faulty one hundreds of times above it
EDGE_FACTOR: Final = 16.0  # for edge cases: each has its own noise floor, from three samples only
RELATIVE: Final = 1e-6  # of the scale: the largest logit of the images, or of the edge case if that is larger
MAX_FLOOR: Final = 1e-3  # of the scale; above it any graph would pass (healthy networks: below 1e-5)
# An edge case with a larger floor is only checked for NaN: the network is chaotic there, and rounding alone decides.
# Input pixels of a batch in float64. torch unfolds the input of a convolution, which takes up to 300 bytes a pixel in
# common networks. glibc keeps 32 MB for the next layer, and has the system clear the pages of anything larger anew.
FLOAT64_PIXELS: Final = 4 * 128 * 128
FLOAT64_IMAGES: Final = 256  # that are also computed in float64, beside the edge cases


class UnstableNetworkError(CheckFailed):
    """A network whose outputs rounding alone changes so much that any graph would agree with it."""


def _outputs(
    model: nn.Module, images: np.ndarray, dtype: torch.dtype, label: str, shared: SharedMaps | None
) -> tuple[np.ndarray, np.ndarray]:
    """The network's logits and probabilities in a precision, on the CPU, `[N, classes]` each."""
    run = model if shared is None else partial(shared.outputs, model)
    parts = []
    with torch.inference_mode(), output.progress(label, len(images)) as bar:
        size = batch_of(model, images.shape[1:3])
        if dtype == torch.float64:  # each thread unfolds an image of its own
            fewer = batch_of(model, images.shape[1:3], FLOAT64_PIXELS)
            size = min(size, max(torch.get_num_threads(), fewer))
        for start in range(0, len(images), size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + size]))
            parts.append([out.to(dtype) for out in run(batch)])
            bar.update(start + len(batch))
    logits, probabilities = (torch.cat(outs).numpy() for outs in zip(*parts, strict=True))
    return logits, probabilities


def reordered_sums(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> Iterator[np.ndarray]:
    """Outputs of a network or layer in float32 with other orders of summation: one by one, and without oneDNN.

    Rounding noise is random. Over hundreds of images its maximum is stable. For a single extreme input, on which a
    network may be ill-conditioned, it differs by a factor of ten between samples.

    Args:
        run: Computes outputs, `[N, …]`.
        images: Its inputs, `[N, …]`.
    """
    yield np.concatenate([run(images[index : index + 1]) for index in range(len(images))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about TF32, whose setting does not change
        with torch.backends.mkldnn.flags(enabled=False):
            without = run(images)
    yield without


def _reference(
    model: nn.Module, images: np.ndarray, single: tuple[np.ndarray, np.ndarray], shared: SharedMaps | None
) -> tuple[str, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The reference's precision, its logits and probabilities, and the noise floor of each image.

    A network that requires float32 (a layer that casts) is its own reference, with floors of 1e-6 of its logits.
    """
    try:
        with in_float64(model):
            double = _outputs(model, images, torch.float64, "torch, float64", shared)
    except RuntimeError:
        single = single[0][: len(images)], single[1][: len(images)]
        return "float32", single, RELATIVE * max_abs_by_row(single[0])
    finally:
        allocator.release(generation=0)  # what glibc kept
    return "float64", double, tolerance.distances(_joined(single)[: len(images)], _joined(double)).max(1)


@dataclass(frozen=True)
class Reference:
    """The network's outputs, and how far a faithful graph may be from them.

    Attributes:
        model: The network with its preprocessing.
        names: A name for each image.
        images: Synthetic edge cases and then the regular images, `uint8[N, H, W, 3]`.
        edge_count: How many edge cases there are.
        labels: Labels of the regular images, of either task; None where these are synthetic.
        float32: Logits and probabilities in float32, `[N, classes]` each.
        expected: The same in float64 for the first `float64_count` images, in float32 for the rest.
        float64_count: How many images were computed in float64.
        precision: "float64", or "float32" where the network requires it.
        noise_floor: The largest distance between the two precisions on the regular images.
        scale: The largest logit that each image's tolerance is relative to, `[N]`.
        allowed: The tolerance of each image, `[N]`.
        decision: How logits become labels.
    """

    model: nn.Module
    names: list[str]
    images: np.ndarray
    edge_count: int
    labels: np.ndarray | None
    float32: tuple[np.ndarray, np.ndarray]
    expected: tuple[np.ndarray, np.ndarray]
    float64_count: int
    precision: str
    noise_floor: float
    scale: np.ndarray
    allowed: np.ndarray
    decision: Decision = ONE_LABEL

    @property
    def kind(self) -> str:
        """What the regular images are: "test" or "synthetic"."""
        return "synthetic" if self.labels is None else "test"

    @property
    def regular(self) -> slice:
        """The rows of the images that are no edge cases."""
        return slice(self.edge_count, None)

    @classmethod
    def compute(
        cls,
        model: nn.Module,
        images: np.ndarray,
        labels: np.ndarray | None,
        decision: Decision = ONE_LABEL,
        shared: SharedMaps | None = None,
    ) -> Reference:
        """Runs the network on the synthetic edge cases and on images.

        Args:
            model: The network with its preprocessing, in eval mode on the CPU.
            images: `uint8[N, H, W, 3]`.
            labels: Their labels, `int[N]`, or `uint8[N, K]` for several labels; None where the images are synthetic.
            decision: How logits become labels.
            shared: The maps of the network's backbone, if others share it.

        Raises:
            CheckFailed: The network gives NaN or infinity.
            UnstableNetworkError: Its two precisions disagree: there is nothing to compare with.
        """
        edges = edge_cases(images.shape[1:3])
        count = len(edges)
        kind = "synthetic" if labels is None else "test"
        names = [*edges, *(f"{kind} image {index}" for index in range(len(images)))]
        everything = np.concatenate([np.stack(list(edges.values())), images])
        exact = count + min(len(images), FLOAT64_IMAGES)

        float32 = _outputs(model, everything, torch.float32, "torch, float32", shared)
        precision, reference, floors = _reference(model, everything[:exact], float32, shared)

        def again_in_float32(x: np.ndarray) -> np.ndarray:
            return _joined(_outputs(model, x, torch.float32, "", shared))

        for again in reordered_sums(again_in_float32, everything[:count]):
            floors[:count] = np.maximum(floors[:count], tolerance.distances(again, _joined(reference)[:count]).max(1))
        broken = ~(np.isfinite(float32[0]).all(1))
        broken[:exact] |= ~np.isfinite(reference[0]).all(1)
        if broken.any():
            name = names[int(broken.argmax())]
            raise CheckFailed(
                f"the network itself gives NaN or infinity on {name}",
                "train it again, or try another pooling or backbone",
            )
        # An edge case may be worse conditioned than natural images, or give much larger logits. It has its own noise
        # floor and scale, and does not change those of the others.
        common, usual = float(floors[count:].max()), max_abs(reference[0][count:])
        if common > MAX_FLOOR * usual:
            text = f"the network in float32 and in float64 differ by {common:.1e} where logits reach {usual:.1e}"
            raise UnstableNetworkError(
                f"{text}: no graph can be compared with it", "is a layer random in eval mode? train it again?"
            )
        scale = np.full(len(everything), usual)
        scale[:count] = np.maximum(usual, max_abs_by_row(reference[0][:count]))
        noise = FLOOR_FACTOR * np.maximum(common, np.pad(floors, (0, len(everything) - exact)))
        noise[:count] = np.maximum(noise[:count], EDGE_FACTOR * floors[:count])
        chaotic = np.flatnonzero(floors[:count] > MAX_FLOOR * scale[:count])
        noise[chaotic] = 2 * scale[chaotic]  # only NaN and infinity fail there
        allowed = noise + RELATIVE * scale
        allowed[exact:] += common  # these are compared with float32, which has noise of its own
        logits, probabilities = (np.concatenate([a, b[exact:]]) for a, b in zip(reference, float32, strict=True))
        return cls(
            model=model,
            names=names,
            images=everything,
            edge_count=count,
            labels=labels,
            float32=float32,
            expected=(logits, probabilities),
            float64_count=exact,
            precision=precision,
            noise_floor=common,
            scale=scale,
            allowed=allowed,
            decision=decision,
        )

    def rechecked(self, rows: np.ndarray) -> Reference:
        """The same reference, where the images of some rows have noise floors of their own, as edge cases have.

        The noise of sharp attention or of ratios has a long tail: one image of hundreds may be conditioned worse than
        all of those that were computed in float64.
        """
        images = self.images[rows]
        single = self.float32[0][rows], self.float32[1][rows]
        _, exact, floors = _reference(self.model, images, single, None)
        for again in reordered_sums(lambda x: _joined(_outputs(self.model, x, torch.float32, "", None)), images):
            floors = np.maximum(floors, tolerance.distances(again, _joined(exact)).max(1))
        scale = self.scale[rows]
        stable = floors <= MAX_FLOOR * scale
        logits, probabilities = (one.astype(np.float64) for one in self.expected)
        logits[rows], probabilities[rows] = exact
        allowed = self.allowed.copy()
        own = np.where(stable, EDGE_FACTOR * floors + RELATIVE * scale, 0.0)
        allowed[rows] = np.maximum(allowed[rows], own)
        return replace(self, expected=(logits, probabilities), allowed=allowed)


def _joined(outputs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Logits and probabilities side by side, `[N, 2 · classes]`: one noise floor covers both.

    Probabilities differ by half as much as logits, but where a temperature is below 1/2 by more.
    """
    return np.concatenate(outputs, 1)


def max_abs_by_row(values: np.ndarray) -> np.ndarray:
    """The largest magnitude of each row, `[N]`; infinite where there is a NaN."""
    return np.asarray(tolerance.distances(values, np.zeros_like(values)).max(1))


def max_abs(values: np.ndarray) -> float:
    """The largest magnitude; infinite where there is a NaN."""
    return float(max_abs_by_row(values).max())
