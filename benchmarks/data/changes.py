"""Ways in which copies of a photograph are made that people mistake for other photographs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Change = Callable[[Image.Image], Image.Image]


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
