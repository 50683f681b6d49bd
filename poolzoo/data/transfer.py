"""Arrays of the host as tensors on the device, without waiting for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on a device; copies to a GPU go through pinned memory, so that they do not block."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
