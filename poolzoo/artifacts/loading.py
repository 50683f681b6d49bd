"""A trained network from the directory of its run. Importing this imports no torch; calling it does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The trained network of a run, in eval mode, with its `config` (a dict) and its `preprocess`.

    `network(network.preprocess(images))` turns `uint8[N, h, w, 3]` into logits.
    """
    from poolzoo.artifacts.run import load_run

    run = load_run(path)
    network: Any = run.network
    network.config, network.preprocess = run.config, run.preprocess
    return network
