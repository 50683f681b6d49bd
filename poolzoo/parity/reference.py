"""What the network itself answers, in two precisions: the side of a comparison that no graph has a part in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import nn

from poolzoo.common import output
from poolzoo.common.errors import CheckFailed
from poolzoo.model.inference import batch_of

FLOOR_FACTOR: Final = 4.0  # a faithful graph lies at about a quarter of that, a faulty one hundreds of times above it
EDGE_FACTOR: Final = 16.0  # for edge images, of which each has a floor of its own, drawn three times only
RELATIVE: Final = 1e-6  # of the reach: the largest logit of the photographs, or the edge image's own if that is larger
LARGEST_FLOOR: Final = 1e-3  # of the reach; above it any graph would pass (healthy networks: below 1e-5)
# An edge image that moves by more is left out: on it the network is chaotic, and rounding alone decides what it says.
REFERENCE_IMAGES: Final = 256  # of the other images that are also computed in float64


class UnstableNetworkError(CheckFailed):
    """A network that rounding alone moves too far: any graph would agree with it."""


def edge_cases(size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Images at the edges of what can come in, by name: `uint8[H, W, 3]` each."""
    height, width = size
    board = np.indices((height, width)).sum(0) % 2 * 255
    flat = np.zeros((height, width, 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    red = flat.copy()
    red[..., 0] = 255
    dot = flat.copy()
    dot[height // 2, width // 2] = 255
    return {
        "black": flat,
        "white": flat + np.uint8(255),
        "gray": flat + np.uint8(128),
        "checkerboard": np.repeat(board[..., None], 3, -1).astype(np.uint8),
        "red": red,
        "one bright pixel": dot,
        "noise": noise,
    }


def _outputs(model: nn.Module, images: np.ndarray, dtype: torch.dtype, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The network's logits and probabilities in a precision, on the CPU: two `[N, classes]`."""
    parts = []
    with torch.inference_mode(), output.progress(label, len(images)) as bar:
        size = batch_of(model, images.shape[1:3])
        for start in range(0, len(images), size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + size]))
            parts.append([out.to(dtype) for out in model(batch)])
            bar.update(start + len(batch))
    logits, chances = (torch.cat(outs).numpy() for outs in zip(*parts, strict=True))
    return logits, chances


def reordered_sums(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> Iterator[np.ndarray]:
    """What a network or layer gives in float32 where sums run in other orders: one by one, and without oneDNN.

    Rounding noise is a draw. Over hundreds of photographs the largest of them is firm; for a single input at the edge,
    where a network may be ill-conditioned, other draws of it differ by a factor of ten.
    """
    yield np.concatenate([run(images[index : index + 1]) for index in range(len(images))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells about TF32, which stays as it was
        with torch.backends.mkldnn.flags(enabled=False):
            without = run(images)
    yield without


def _reference(
    model: nn.Module, images: np.ndarray, single: tuple[np.ndarray, np.ndarray]
) -> tuple[str, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The reference's precision, its logits and probabilities, and the noise floor of each image.

    A network that insists on float32 (a layer that casts) is its own reference, with floors of 1e-6 of its logits.
    """
    try:
        double = _outputs(model.double(), images, torch.float64, "torch, float64")
    except RuntimeError:
        single = single[0][: len(images)], single[1][: len(images)]
        return "float32", single, RELATIVE * by_row(single[0])
    finally:
        model.float()  # exact: every float32 is a float64; a copy would trust that modules can be copied
    return "float64", double, by_row(single[0][: len(images)] - double[0])


@dataclass(frozen=True)
class Reference:
    """What the network itself answers, and how firmly: the side of the comparison that no graph has a part in.

    Attributes:
        model: The network with its preprocessing.
        names: What each image is, for people.
        images: Edge images and then the others, `uint8[N, H, W, 3]`.
        edges: How many edge images there are.
        labels: Those of the others; None where they are synthetic.
        torch32: Logits and probabilities in float32, two `[N, classes]`.
        expected: The same in float64 as far as that was computed, in float32 for the rest.
        exact: For how many images it was.
        precision: "float64", or "float32" where the network insists on it.
        floor: The largest distance between the two precisions on the others.
        reach: The largest logit that each image is measured by, `[N]`.
        allowed: How far a faithful graph may be from `expected`, `[N]`.
    """

    model: nn.Module
    names: list[str]
    images: np.ndarray
    edges: int
    labels: np.ndarray | None
    torch32: tuple[np.ndarray, np.ndarray]
    expected: tuple[np.ndarray, np.ndarray]
    exact: int
    precision: str
    floor: float
    reach: np.ndarray
    allowed: np.ndarray

    @property
    def kind(self) -> str:
        return "synthetic" if self.labels is None else "test"

    @property
    def real(self) -> slice:
        """The images that are no edge images."""
        return slice(self.edges, None)

    @classmethod
    def of(cls, model: nn.Module, images: np.ndarray, labels: np.ndarray | None) -> Reference:
        """Runs the network on edge images and on images.

        Raises:
            CheckFailed: It gives NaN or infinity.
            UnstableNetworkError: Its own two precisions disagree: there is nothing to compare with.
        """
        edges = edge_cases(images.shape[1:3])
        kind = "synthetic" if labels is None else "test"
        names = [*edges, *(f"{kind} image {index}" for index in range(len(images)))]
        everything = np.concatenate([np.stack(list(edges.values())), images])
        exact = len(edges) + min(len(images), REFERENCE_IMAGES)

        torch32 = _outputs(model, everything, torch.float32, "torch, float32")
        precision, reference, floors = _reference(model, everything[:exact], torch32)
        for again in reordered_sums(lambda x: _outputs(model, x, torch.float32, "")[0], everything[: len(edges)]):
            floors[: len(edges)] = np.maximum(floors[: len(edges)], by_row(again - reference[0][: len(edges)]))
        broken = ~(np.isfinite(torch32[0]).all(1))
        broken[:exact] |= ~np.isfinite(reference[0]).all(1)
        if broken.any():
            name = names[int(broken.argmax())]
            raise CheckFailed(
                f"the network itself gives NaN or infinity on {name}",
                "train it again, or try another pooling or backbone",
            )
        # An edge image may be worse conditioned than photographs, or drive logits to where no photograph does; it is
        # judged by its own floor and reach, and loosens no other.
        common, usual = float(floors[len(edges) :].max()), largest(reference[0][len(edges) :])
        if common > LARGEST_FLOOR * usual:
            text = f"the network in float32 and in float64 differ by {common:.1e} where logits reach {usual:.1e}"
            raise UnstableNetworkError(
                f"{text}: there is nothing firm to compare with", "is a layer random in eval mode? train it again?"
            )
        reach = np.full(len(everything), usual)
        reach[: len(edges)] = np.maximum(usual, by_row(reference[0][: len(edges)]))
        noise = FLOOR_FACTOR * np.maximum(common, np.pad(floors, (0, len(everything) - exact)))
        noise[: len(edges)] = np.maximum(noise[: len(edges)], EDGE_FACTOR * floors[: len(edges)])
        chaotic = np.flatnonzero(floors[: len(edges)] > LARGEST_FLOOR * reach[: len(edges)])
        noise[chaotic] = 2 * reach[chaotic]  # it says nothing but NaN
        allowed = noise + RELATIVE * reach
        allowed[exact:] += common  # these are compared with float32, which has noise of its own
        logits, chances = (np.concatenate([a, b[exact:]]) for a, b in zip(reference, torch32, strict=True))
        expected = logits, chances
        return cls(
            model, names, everything, len(edges), labels, torch32, expected, exact, precision, common, reach, allowed
        )

    def rechecked(self, rows: np.ndarray) -> Reference:
        """The same, where the images of some rows are judged by noise of their own, as edge images are.

        The noise of sharp attention or of ratios has a long tail: one photograph of hundreds may be conditioned worse
        than all of those that were computed in float64.
        """
        images = self.images[rows]
        single = self.torch32[0][rows], self.torch32[1][rows]
        _, exact, floors = _reference(self.model, images, single)
        for again in reordered_sums(lambda x: _outputs(self.model, x, torch.float32, "")[0], images):
            floors = np.maximum(floors, by_row(again - exact[0]))
        reach = self.reach[rows]
        firm = floors <= LARGEST_FLOOR * reach
        expected, allowed = tuple(one.astype(np.float64) for one in self.expected), self.allowed.copy()
        for all_rows, new in zip(expected, exact, strict=True):
            all_rows[rows] = new
        own = np.where(firm, EDGE_FACTOR * floors + RELATIVE * reach, 0.0)
        allowed[rows] = np.maximum(allowed[rows], own)
        return replace(self, expected=expected, allowed=allowed)


def by_row(differences: np.ndarray) -> np.ndarray:
    """The largest magnitude of each row; infinite where anything is not a number."""
    return np.nan_to_num(np.abs(differences), nan=np.inf).max(1)


def largest(values: np.ndarray) -> float:
    """The largest magnitude; infinite where anything is not a number."""
    return float(np.nan_to_num(np.abs(values), nan=np.inf).max())
