"""Runs networks in eval mode on many images, in batches that fit into memory, on all cores.

On a CPU in single precision, batch norms of backbones are folded into convolutions. Every result without gradients is
that of the folded backbone: features on which heads train, tests, and `poolzoo evaluate`.

A batch is computed by one thread, and its size follows from the network and the image size. The logits of an image are
therefore bitwise the same on any number of cores, whichever networks share the backbone, and from stored feature maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.common import output
from poolzoo.data.blocks import ImageArray
from poolzoo.data.sizes import Size
from poolzoo.data.streaming.images import batches
from poolzoo.model.folding import fold_batch_norms
from poolzoo.model.network import Network
from poolzoo.train import footprint
from poolzoo.train.cores import Replicas, cores, evaluation_threads
from poolzoo.train.device import DevicePolicy

BESIDE: Final = 2  # batches of the backbone that together take as much memory as one of a whole network


class Stacked(nn.Module):
    """Networks side by side: normalized images to `float32[n, networks, classes]`. A shared backbone runs once.

    Args:
        networks: The networks.
        head_batch_sizes: Images at once in each of their heads.
    """

    def __init__(self, networks: Sequence[Network], head_batch_sizes: Sequence[int]) -> None:
        super().__init__()
        self.networks = list(networks)
        self.members = nn.ModuleList(networks)  # so that training mode and device reach them
        self.head_batch_sizes = head_batch_sizes

    def forward(self, x: Tensor) -> Tensor:
        return self.of_maps(self.maps(x))

    def maps(self, x: Tensor) -> dict[nn.Module, Tensor]:
        """The feature map `float[n, C, H, W]` of each backbone."""
        maps: dict[nn.Module, Tensor] = {}
        for network in self.networks:
            if network.backbone not in maps:
                maps[network.backbone] = network.forward_map(x)
        return maps

    def of_maps(self, maps: Mapping[nn.Module, Tensor]) -> Tensor:
        """The logits `float32[n, networks, classes]` from the feature maps."""
        sized = zip(self.networks, self.head_batch_sizes, strict=True)
        return torch.stack([in_parts(one.head, maps[one.backbone], size) for one, size in sized], 1)


def inference_networks(
    networks: Sequence[Network], preprocess: nn.Module, size: Size, policy: DevicePolicy
) -> list[Network]:
    """The networks as they run without gradients. A backbone that they share is still shared.

    Args:
        networks: The networks, on their device.
        preprocess: Normalizes and resizes.
        size: Height and width of the images.
        policy: The device. GPUs and half precision fold nothing: their rounding would differ more.
    """
    if policy.device.type != "cpu" or policy.autocast is not None:
        return list(networks)
    noise = torch.randint(256, (1, *size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x = preprocess(noise).contiguous(memory_format=policy.memory_format)
    backbones: dict[nn.Module, nn.Module] = {}
    for network in networks:
        if network.backbone not in backbones:
            backbones[network.backbone] = fold_batch_norms(network.backbone, partial(_map_of, network, x))
    return [network.with_backbone(backbones[network.backbone]) for network in networks]


def _map_of(network: Network, x: Tensor, backbone: nn.Module) -> Tensor:
    return network.with_backbone(backbone).forward_map(x)


def in_parts(module: nn.Module, x: Tensor, size: int) -> Tensor:
    """The outputs of a module for `[n, …]`, at most `size` rows at once; `float32`."""
    return torch.cat([module(part).float() for part in torch.split(x, size)])


def backbone_batch_size(network: Network, preprocess: nn.Module, size: Size, policy: DevicePolicy) -> int:
    """The batch size of evaluation for the backbone of a network.

    Args:
        network: The network as it runs without gradients, on its device.
        preprocess: Normalizes and resizes.
        size: Height and width of the images.
        policy: The device.
    """
    measured = footprint.measure(network, preprocess, size=size, policy=policy, forward=network.forward_map)
    return footprint.eval_batch_size(measured, policy, beside=BESIDE)


def head_batch_size(network: Network, policy: DevicePolicy) -> int:
    """The largest batch size of evaluation for what follows the backbone of a network.

    Args:
        network: The network, on its device.
        policy: The device.
    """
    measured = footprint.measure_head(network.head, (network.layout.channels, *network.layout.map_size), policy)
    return footprint.eval_batch_size(measured, policy, beside=BESIDE)


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
    is_whole = batch_size is None and isinstance(network, Network)
    run, was_training = network, network.training
    if batch_size is None:
        size = (images.shape[1], images.shape[2])
        if isinstance(network, Network):
            (network,) = inference_networks([network], preprocess, size, policy)
            batch_size = backbone_batch_size(network, preprocess, size, policy)
            run = Stacked([network], [min(batch_size, head_batch_size(network, policy))])
        else:
            measured = footprint.measure(network, preprocess, size=size, policy=policy)
            batch_size = footprint.eval_batch_size(measured, policy)
    indices = np.arange(len(images)) if indices is None else indices
    run.eval()

    def logits_of(part: np.ndarray) -> Tensor:
        with torch.inference_mode(), policy.context(), replicas.taken() as module:
            batch = torch.from_numpy(part).to(policy.device)
            x = preprocess(batch.flip(2) if mirrored else batch).contiguous(memory_format=policy.memory_format)
            logits: Tensor = module(x).float()
            return logits

    parts, done = [], 0
    with cores(policy.device, evaluation_threads()) as pool, output.progress(label, len(indices)) as bar:
        replicas = Replicas(run, pool.count)
        for logits in pool.stream(logits_of, batches(images, indices, batch_size)):
            parts.append(logits)
            done += len(logits)
            bar.update(done)
    network.train(was_training)
    logits = torch.cat(parts)
    return (logits[:, 0] if is_whole else logits).cpu().numpy()
