"""Loads the trained network of a run. Importing this module imports no torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The trained network of a run, in eval mode, with the attributes `config` (a dict) and `preprocess`.

    `network(network.preprocess(images))` turns `uint8[N, h, w, 3]` into logits, `float32[N, classes]`.

    Raises:
        UsageError: There is no such run, or a plugin that it needs is missing.
        CheckFailed: The run is incomplete, damaged or altered.
    """
    from poolzoo.artifacts.run import load_run

    run = load_run(path)
    network: Any = run.network  # mypy knows no attributes of a module but tensors and modules
    network.config = run.config
    network.preprocess = run.preprocess
    return run.network
