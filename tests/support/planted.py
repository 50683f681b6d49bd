"""Photographs with much detail, made from noise, and the ways in which copies of them are made."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Change = Callable[[Image.Image], Image.Image]


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


def recompressed(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(io.BytesIO(file.getvalue())).convert("RGB")

    return change


def resized(factor: float) -> Change:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def cropped(share: float) -> Change:
    """Without a share of the width and of the height at each side."""

    def change(image: Image.Image) -> Image.Image:
        x, y = max(1, round(image.width * share)), max(1, round(image.height * share))
        return image.crop((x, y, image.width - x, image.height - y))

    return change


def cut(share: float) -> Change:
    """Without a share of the width at the left side alone."""
    return lambda image: image.crop((max(1, round(image.width * share)), 0, image.width, image.height))


CHANGES: Final[dict[str, Change]] = {
    "quality 50": recompressed(50),
    "quality 20": recompressed(20),
    "half size": resized(0.5),
    "twice the size": resized(2),
    "3 % cropped": cropped(0.03),
    "6 % cropped": cropped(0.06),
    "5 % cut": cut(0.05),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(0.7)),
    "mirrored": ImageOps.mirror,
}


def folder(root: Path, images: dict[str, Image.Image]) -> Path:
    """Writes images by their paths below a folder, such as `train/ant/1.jpg`."""
    for name, image in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)
    return root
