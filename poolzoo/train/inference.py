"""Runs a network in eval mode on many images, in batches that fit into memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from poolzoo.common import output
from poolzoo.data.blocks import ImageArray
from poolzoo.data.streaming.images import batches
from poolzoo.train import footprint
from poolzoo.train.device import DevicePolicy


def predict_logits(
    network: nn.Module,
    preprocess: nn.Module,
    images: ImageArray,
    policy: DevicePolicy,
    batch_size: int | None = None,
    label: str = "evaluating",
    indices: np.ndarray | None = None,
    *,
    mirrored: bool = False,
) -> np.ndarray:
    """Computes the outputs of a network in eval mode; its training mode is restored.

    Args:
        network: Maps normalized images to logits.
        preprocess: Normalizes and resizes.
        images: `uint8[N, h, w, 3]`, in memory, mapped from a file, or decoded when asked.
        policy: The device.
        batch_size: Images a batch; None to derive it from the network's memory.
        label: Of the progress bar.
        indices: Of the images to use, `int64[n]`; None for all.
        mirrored: Whether to mirror them left to right.

    Returns:
        `float32[n, …]`.
    """
    if batch_size is None:
        size = (images.shape[1], images.shape[2])
        measured = footprint.measure(network, preprocess, size=size, policy=policy)
        batch_size = footprint.eval_batch_size(measured, policy)
    indices = np.arange(len(images)) if indices is None else indices
    was_training = network.training
    network.eval()
    parts = []
    with torch.inference_mode(), policy.context(), output.progress(label, len(indices)) as bar:
        done = 0
        for part in batches(images, indices, batch_size):
            batch = torch.from_numpy(part).to(policy.device)
            x = preprocess(batch.flip(2) if mirrored else batch).contiguous(memory_format=policy.memory_format)
            parts.append(network(x).float())
            done += len(batch)
            bar.update(done)
        logits = torch.cat(parts).cpu().numpy()
    network.train(was_training)
    return logits
