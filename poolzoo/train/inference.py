"""What a network gives for many images, in eval mode, in batches that fit into memory."""

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
    chosen: np.ndarray | None = None,
) -> np.ndarray:
    """`uint8[N, h, w, 3] → float32[n, …]`, what the network gives in eval mode; its mode is put back.

    Args:
        network: Maps normalized images to what is wanted.
        preprocess: Normalizes and resizes.
        images: `uint8[N, h, w, 3]`, in memory or mapped from a file.
        policy: The device's.
        batch_size: Images at a time; None for as many as memory is set aside for.
        label: Of the progress bar.
        chosen: Indices of the images that are wanted, `int64[n]`; None for all.
    """
    if batch_size is None:
        taken = footprint.measure(network, preprocess, images.shape[1:3], policy)
        batch_size = footprint.evaluated_at_once(taken, policy)
    rows, chosen = blocks.Rows(images), np.arange(len(images)) if chosen is None else chosen
    was_training = network.training
    network.eval()
    parts = []
    with torch.inference_mode(), policy.context(), output.progress(label, len(chosen)) as bar:
        for start in range(0, len(chosen), batch_size):
            batch = torch.from_numpy(rows[chosen[start : start + batch_size]]).to(policy.device)
            x = preprocess(batch).contiguous(memory_format=policy.memory_format)
            parts.append(network(x).float())
            bar.update(start + len(batch))
        logits = torch.cat(parts).cpu().numpy()
    network.train(was_training)
    return logits
