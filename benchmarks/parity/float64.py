"""How long the reference of a parity check takes in float64, with and without depthwise convolutions as sums over taps.

python -m benchmarks.parity.float64 [--backbones timm/mobilenetv3_small_050 …] [--size 128] [--images 16] [--rounds 5]

Networks have random weights. Both ways compute the same images in batches of four, in turns; shown are the medians of
the rounds in milliseconds an image, their ratio, and the largest difference of the outputs over the largest output.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from poolzoo.model.assemble import assemble
from poolzoo.model.config import ModelConfig
from poolzoo.parity.float64 import in_float64

BACKBONES = ("timm/mobilenetv3_small_050", "timm/tf_efficientnet_lite0", "timm/convnext_atto", "timm/resnet18")
BATCH = 4


def outputs(network: nn.Module, images: Tensor) -> tuple[Tensor, float]:
    """The network's outputs, and the seconds that they take."""
    start = time.perf_counter()
    with torch.inference_mode():
        found = torch.cat([network(batch) for batch in images.split(BATCH)])
    return found, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    size = given.size, given.size
    print(f"{given.images} images of {given.size} pixels in float64, {torch.get_num_threads()} threads, ms an image")
    print(f"{'':28} {'torch':>8} {'taps':>8} {'ratio':>6} {'differ by':>10}")
    for name in given.backbones:
        torch.manual_seed(0)
        network = assemble(ModelConfig(name, "avg", 10, size, image_size=size)).network.eval()
        images = torch.randn(given.images, 3, *size, dtype=torch.float64)
        plain, taps, apart = [], [], 0.0
        for _ in range(1 + given.rounds):
            with in_float64(network):
                found, seconds = outputs(network, images)
            taps.append(seconds)
            expected, seconds = outputs(network.double(), images)
            network.float()
            plain.append(seconds)
            apart = float((found - expected).abs().max() / expected.abs().max())
        slow, fast = (1e3 * statistics.median(one[1:]) / given.images for one in (plain, taps))
        print(f"{name:28} {slow:8.1f} {fast:8.1f} {slow / fast:6.2f} {apart:10.1e}", flush=True)


if __name__ == "__main__":
    main()
