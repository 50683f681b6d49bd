"""Runs a network in eval mode on many images, in batches that fit into memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from poolzoo.common import output
from poolzoo.data import blocks
from poolzoo.train import footprint
from poolzoo.train.device import DevicePolicy


def predict_logits(
    network: nn.Module,
    preprocess: nn.Module,
    images: np.ndarray,
    policy: DevicePolicy,
    batch_size: int | None = None,
    label: str = "evaluating",
    indices: np.ndarray | None = None,
) -> np.ndarray:
    """Computes the outputs of a network in eval mode; its training mode is restored.

    Args:
        network: Maps normalized images to logits.
        preprocess: Normalizes and resizes.
        images: `uint8[N, h, w, 3]`, in memory or mapped from a file.
        policy: The device.
        batch_size: Images a batch; None to derive it from the network's memory.
        label: Of the progress bar.
        indices: Of the images to use, `int64[n]`; None for all.

    Returns:
        `float32[n, …]`.
    """
    if batch_size is None:
        size = (images.shape[1], images.shape[2])
        measured = footprint.measure(network, preprocess, size=size, policy=policy)
        batch_size = footprint.eval_batch_size(measured, policy)
    rows = blocks.Rows(images)
    indices = np.arange(len(images)) if indices is None else indices
    was_training = network.training
    network.eval()
    parts = []
    with torch.inference_mode(), policy.context(), output.progress(label, len(indices)) as bar:
        for start in range(0, len(indices), batch_size):
            batch = torch.from_numpy(rows[indices[start : start + batch_size]]).to(policy.device)
            x = preprocess(batch).contiguous(memory_format=policy.memory_format)
            parts.append(network(x).float())
            bar.update(start + len(batch))
        logits = torch.cat(parts).cpu().numpy()
    network.train(was_training)
    return logits
