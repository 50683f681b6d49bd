"""What folded batch norms save in the pass of a frozen backbone, and how far features differ.

python -m benchmarks.train.folding [--backbone lite0] [--image-size 128] [--seconds 20]
python -m benchmarks.train.folding --plugin plugins/poolzoo-lite0/src/poolzoo_lite0/__init__.py

Two batches run in turn on one core: the network as it is, in the batch that evaluation would take for it, and with its
batch norms folded, in the batch that evaluation takes. Milliseconds an image are CPU time, the least of all turns and
their median. Weights are the published ones if the backbone has some.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from poolzoo.common import allocator
from poolzoo.model.assemble import assemble_backbone, attach_head
from poolzoo.model.config import ModelConfig
from poolzoo.model.network import Preprocess
from poolzoo.plugin import loader
from poolzoo.train import device as devices
from poolzoo.train import inference


def main() -> int:
    """Measures and prints both."""
    given = _arguments()
    loader.add_files(given.plugin, "--plugin")
    torch.set_num_threads(1)
    allocator.keep()  # as training does
    policy = devices.policy("cpu")
    size = (given.image_size, given.image_size)
    backbone = assemble_backbone(ModelConfig(given.backbone, "avg", 10, size, size, pretrained=given.pretrained))
    plain = attach_head(backbone, ModelConfig(given.backbone, "avg", 10, size, size)).network.eval()
    policy.place(plain)
    published = backbone.resolved.item
    preprocess = Preprocess(published.mean, published.std, size, size)
    (folded,) = inference.inference_networks([plain], preprocess, size, policy)
    if folded is plain:
        sys.exit(f"{given.backbone} has nothing to fold")
    turns = {}
    for name, network in (("as it is", plain), ("folded", folded)):
        count = inference.backbone_batch_size(network, preprocess, size, policy)
        images = torch.randint(256, (count, *size, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
        x = preprocess(images).contiguous(memory_format=policy.memory_format)
        turns[name] = (network, x, list[float]())
    end = time.perf_counter() + given.seconds
    with torch.inference_mode():
        while time.perf_counter() < end:
            for network, x, taken in turns.values():
                network.forward_map(x)  # the other one has left the cache to itself
                started = time.thread_time()
                network.forward_map(x)
                taken.append(1000 * (time.thread_time() - started) / len(x))
        for name, (_, x, taken) in turns.items():
            print(f"{name:>8}  batch {len(x):3}  {min(taken):6.2f} ms an image, median {statistics.median(taken):6.2f}")
        x = turns["folded"][1]
        maps, expected = folded.forward_map(x), plain.forward_map(x)
        difference = (maps - expected).abs().max() / expected.abs().max()
        print(f"largest difference of features: {difference:.1e} of the largest feature")
        changed = (maps.half() != expected.half()).double().mean()
        print(f"in half precision {100 * changed:.2f} % of the features are another number")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train.folding", description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="lite0", metavar="NAME")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE", help="a plugin that provides it")
    parser.add_argument("--scratch", dest="pretrained", action="store_false", help="random weights")
    parser.add_argument("--image-size", type=int, default=128, metavar="PIXELS")
    parser.add_argument("--seconds", type=float, default=20, metavar="S")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
