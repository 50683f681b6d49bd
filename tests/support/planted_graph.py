"""A network of three classes, and a graph of it that is wrong on chosen images: for tests of the parity check."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

COUNT = 40
WEIGHT = torch.tensor([[3.0, -1.0, 0.5], [-2.0, 2.0, 0.25], [0.5, 0.5, -3.0]])


class Network(nn.Module):
    """Logits of three classes from the first pixel, and their probabilities. The pixel tells images apart."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = images[:, 0, 0].to(self.weight.dtype) / 255 @ self.weight
        return logits, logits.softmax(1)


class Graph:
    """The network with another logit of some images, by number, where the batch is of one of some sizes."""

    provider = "CPUExecutionProvider"

    def __init__(self, change: dict[int, float], sizes: tuple[int, ...] = (), column: int = 0) -> None:
        self.change = change
        self.sizes = sizes
        self.column = column

    def run(self, images: np.ndarray, *, last: bool = False) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            logits, probabilities = (one.numpy() for one in Network()(torch.from_numpy(images)))
        if not self.sizes or len(images) in self.sizes:
            for row, number in enumerate(images[:, 1, 1, 0]):
                logits[row, self.column] += self.change.get(int(number), 0.0)
        return logits, probabilities


def images() -> tuple[np.ndarray, np.ndarray]:
    """Images that carry their number in a second pixel, from 1 on, and the labels that the network gives them."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
    pixels[:, 1, 1] = np.arange(1, COUNT + 1)[:, None]
    labels = (pixels[:, 0, 0] / 255 @ WEIGHT.numpy()).argmax(1)
    return pixels, labels
