"""Photographs with much detail, made from noise, and folders of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photograph(seed: int, size: tuple[int, int] = (150, 100)) -> Image.Image:
    """Noise at several scales, as photographs have it; two seeds show different pictures."""
    generator = np.random.default_rng(seed)
    whole = np.zeros((size[1], size[0], 3))
    for cells in (3, 6, 12, 24):
        noise = generator.normal(0, 60 / cells**0.5, (cells, cells, 3)) + generator.normal(0, 40, (cells, cells, 1))
        levels = [
            Image.fromarray(noise[..., c].astype(np.float32)).resize(size, Image.Resampling.BICUBIC) for c in range(3)
        ]
        whole += np.stack([np.asarray(level) for level in levels], -1)
    return Image.fromarray((whole / 2 + 128).clip(0, 255).astype(np.uint8))


def folder(root: Path, images: dict[str, Image.Image]) -> Path:
    """Writes images by their paths below a folder, such as `train/ant/1.jpg`."""
    for name, image in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)
    return root
