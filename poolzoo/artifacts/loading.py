"""Loads the trained network of a run. Importing this module imports no torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The trained network of a run, in eval mode, with the attributes `config`, `preprocess` and `decision`.

    `network(network.preprocess(images))` gives the logits of images, `uint8[N, h, w, 3] → float[N, classes]`.
    `network.decision.probabilities(logits.numpy())` gives the calibrated probabilities of the exported graph.

    Args:
        path: The run's directory.

    Raises:
        UsageError: There is no such run, or a plugin that it needs is missing.
        CheckFailed: The run is incomplete or was altered.
    """
    from poolzoo.artifacts.run import load_run

    run = load_run(path)
    network: Any = run.network
    network.config = run.config
    network.preprocess = run.preprocess
    network.decision = run.decision
    return run.network
