"""The classifier on a pooled vector: one linear layer, or one with a hidden layer before it."""

from __future__ import annotations

from typing import Final

from torch import nn

from poolzoo.common.errors import UsageError

MAX_WIDTH: Final = 1_000_000  # of the hidden layer


def build_classifier(head: str, in_features: int, num_classes: int) -> nn.Module:
    """The classifier on a pooled vector: `float[N, in_features] → float[N, num_classes]`.

    Raises:
        UsageError: `head` is neither `linear` nor `mlp:WIDTH`.
    """
    kind, _, hidden = head.partition(":")
    if kind == "linear" and not hidden:
        return nn.Linear(in_features, num_classes)
    if kind == "mlp" and hidden.isdecimal() and len(hidden) < 20 and 0 < int(hidden) <= MAX_WIDTH:
        return nn.Sequential(nn.Linear(in_features, int(hidden)), nn.ReLU(), nn.Linear(int(hidden), num_classes))
    hint = f"such as --head mlp:1024; WIDTH is at most {MAX_WIDTH:,}"
    raise UsageError(f"--head {head!r} is neither linear nor mlp:WIDTH", hint)
