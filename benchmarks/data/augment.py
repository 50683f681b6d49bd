"""Augmentation alone: images per processor second, beside torchvision's v2 on tensors and on Pillow's images.

python -m benchmarks.data.augment [--sizes 32 224] [--images 128] [--rounds 3] [--threads 1]

    ours    a batch at once, the images that drew the same operator together
    tensor  v2's transforms, one `uint8` tensor at a time
    pillow  v2's transforms, one image of Pillow's at a time, made from an array and turned into one again

Magnitudes are random on every side. Operators alone are applied to the whole batch; the last rows are what a training
step needs. The sides take turns in every round, and the fastest round counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from benchmarks.train import peers
from poolzoo.common import allocator, output
from poolzoo.data.augment import color_jitter, crops, erasing, policy
from poolzoo.data.augment.options import Policy

SIDES = ("ours", "tensor", "pillow")
Transform = Callable[[Any], Any]
Row = dict[str, Callable[[], object]]
SCALE, RATIO, STRENGTH, PROBABILITY = (0.08, 1.0), (3 / 4, 4 / 3), 0.4, 0.25


def operators(size: int) -> dict[str, tuple[float, Transform]]:
    """Of each operator the largest magnitude, and how torchvision applies one."""
    affine: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    reach = 0.3 * size

    def moved(**how: Callable[[float], Any]) -> Callable[[Any, float], Any]:
        return lambda image, m: tv.affine(image, **{**affine, **{key: made(m) for key, made in how.items()}})

    return {
        "shear_x": (30, moved(shear=lambda m: [m, 0.0])),
        "shear_y": (30, moved(shear=lambda m: [0.0, m])),
        "translate_x": (reach, moved(translate=lambda m: [int(m), 0])),
        "translate_y": (reach, moved(translate=lambda m: [0, int(m)])),
        "rotate": (135, tv.rotate),
        "brightness": (0.9, lambda image, m: tv.adjust_brightness(image, 1 + m)),
        "color": (0.9, lambda image, m: tv.adjust_saturation(image, 1 + m)),
        "contrast": (0.9, lambda image, m: tv.adjust_contrast(image, 1 + m)),
        "sharpness": (0.9, lambda image, m: tv.adjust_sharpness(image, 1 + m)),
        "posterize": (7, lambda image, m: tv.posterize(image, 1 + int(abs(m)))),
        "solarize": (1, lambda image, m: tv.solarize(image, 255 * abs(m))),
        "autocontrast": (1, lambda image, _: tv.autocontrast(image)),
        "equalize": (1, lambda image, _: tv.equalize(image)),
    }


def rows(images: np.ndarray) -> dict[str, Row]:
    """What is timed, by name and side."""
    count, size = len(images), images.shape[1]
    positions, everyone = np.arange(count), np.arange(count)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    generator = np.random.default_rng(0)

    def batch() -> torch.Tensor:
        return torch.from_numpy(images.copy())

    def each(transform: Callable[[Any, int], Any]) -> Row:
        return {
            "tensor": lambda: [transform(image, place) for place, image in enumerate(tensors)],
            "pillow": lambda: [
                np.asarray(transform(Image.fromarray(image), place)) for place, image in enumerate(images)
            ],
        }

    found: dict[str, Row] = {}
    for name, (most, theirs) in operators(size).items():
        drawn = generator.uniform(-most, most, count)
        ours = np.abs(drawn) if name in ("posterize", "solarize") else drawn
        apply = policy.OPERATORS[name]
        found[name] = {
            "ours": lambda apply=apply, ours=ours: policy.change_rows(batch(), everyone, apply, ours),
            **each(lambda image, place, theirs=theirs, drawn=drawn: theirs(image, float(drawn[place]))),
        }

    def whole(ours: Callable[[], object], transform: Transform, sides: tuple[str, ...] = SIDES) -> Row:
        peers_of = each(lambda image, _: transform(image))
        return {"ours": ours, **{side: peers_of[side] for side in sides if side != "ours"}}

    trivial, rand = Policy("trivial"), Policy("rand", 2, 9)
    found["TrivialAugment"] = whole(lambda: policy.distort(batch(), trivial, 0, 1, positions), v2.TrivialAugmentWide())
    found["RandAugment 2,9"] = whole(lambda: policy.distort(batch(), rand, 0, 1, positions), v2.RandAugment(2, 9))
    found["color jitter 0.4"] = whole(
        lambda: color_jitter.jitter(batch(), STRENGTH, 0, 1, positions), v2.ColorJitter(STRENGTH, STRENGTH, STRENGTH)
    )
    found["erasing 0.25"] = whole(
        lambda: erasing.erase(
            batch(), erasing.boxes(PROBABILITY, (size, size), 0, 1, positions), np.zeros(3, np.uint8)
        ),
        v2.RandomErasing(PROBABILITY),
        ("ours", "tensor"),  # it takes tensors only
    )

    def cropped() -> object:
        sampler = crops.CropSampler(SCALE, RATIO, seed=0, epoch=1)
        boxes = np.array([sampler.box(place, (size, size)) for place in range(count)])
        return crops.random_crops_array(images, boxes)

    found["random resized crop"] = whole(cropped, v2.RandomResizedCrop(size, SCALE, RATIO))
    return found


def rates(row: Row, count: int, rounds: int) -> dict[str, float]:
    """Images per processor second of each side."""
    best = dict.fromkeys(row, float("inf"))
    for _ in range(rounds + 1):  # the first warms up
        for side, run in row.items():
            started = time.process_time()
            run()
            best[side] = min(best[side], time.process_time() - started)
    return {side: count / seconds for side, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 224])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    allocator.keep()  # as `finetune` does
    for size in given.sizes:
        coarse = torch.rand(given.images, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
        smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        images = smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        lines = []
        for name, row in rows(images).items():
            found = rates(row, given.images, given.rounds)
            peer = [found[side] for side in SIDES[1:] if side in found]
            shown = [f"{found[side]:,.0f}" if side in found else "–" for side in SIDES]
            lines.append((name, *shown, f"{found['ours'] / max(peer):.2f}"))
        output.data(f"{given.images} images of {size}×{size}, images per processor second")
        output.table(("what", *SIDES, "ours / faster peer"), lines, right=range(1, 5))
    peers.show_conditions(peers.conditions(given.threads))


if __name__ == "__main__":
    main()
