"""The saliency picture: the image, and beside it what contributes for a class and what against. Needs no torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

SOFTWARE: Final = "poolzoo predict --saliency"  # in the file, so that a later run may replace it …
EARLIER_SOFTWARE: Final = "poolzoo predict --explain"  # … as it may a picture of an earlier version
MIN_SIDE: Final = 384  # pixels of the longer side of a panel
GAP: Final = 16  # pixels between elements
BAR: Final = 18  # width of the color bar in pixels …
SCALE: Final = 92  # … and with its labels
FONT_SIZES: Final = (20, 14)  # in pixels: of the label, and of the rest
# Orange for, blue against: red-green blindness keeps both apart. Blue areas are hatched too, which shows in gray.
FOR: Final = np.array([230, 97, 0])
AGAINST: Final = np.array([20, 80, 170])
INK, PAPER, PALE = "#1a1a1a", "#ffffff", "#5a5a5a"
MEANINGS: Final = {"gradient": "what its logit owes to", "occlusion": "how far its logit falls without"}
MAX_OPACITY: Final = 0.8  # of the color over the image
HATCH: Final = 9  # pixels from one line to the next
FAINT: Final = 0.1  # of the largest contribution; above it an area is hatched


def draw_overlay(pixels: np.ndarray, contributions: np.ndarray, label: str, score: float, method: str) -> bytes:
    """A PNG: the image as the network sees it, the same under colors of the contributions, and a color bar.

    Args:
        pixels: The image, `uint8[H, W, 3]`.
        contributions: What each spatial location of the feature map adds to the class's logit, `float[H', W']`; they
            are resized bilinearly.
        label: The class.
        score: Its probability.
        method: How the contributions were computed, a key of `MEANINGS`.
    """
    height, width = (side * max(1, -(-MIN_SIDE // max(pixels.shape[:2]))) for side in pixels.shape[:2])
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
    finite = np.nan_to_num(np.asarray(contributions, np.float32), posinf=0, neginf=0)
    largest = float(np.abs(finite).max())
    relative = finite / largest if largest > 0 else finite
    fine = np.asarray(Image.fromarray(relative).resize((width, height), Image.Resampling.BILINEAR))
    large, small = (ImageFont.load_default(size) for size in FONT_SIZES)
    top = GAP + FONT_SIZES[0] + 8 + FONT_SIZES[1] + 12
    sheet = Image.new("RGB", (2 * width + SCALE + 4 * GAP, top + height + FONT_SIZES[1] + 2 * GAP), PAPER)
    sheet.paste(image, (GAP, top))
    sheet.paste(colored(np.asarray(image.convert("L")), fine), (width + 2 * GAP, top))
    bar = np.repeat(np.linspace(1, -1, height, dtype=np.float32)[:, None], BAR, 1)
    at = 2 * width + 3 * GAP
    sheet.paste(colored(np.full(bar.shape, 160, np.uint8), bar), (at, top))
    pen, room = ImageDraw.Draw(sheet), sheet.width - 2 * GAP
    pen.text((GAP, GAP - 4), _fitted(f"{label}: {score:.1%}", large, room), INK, large)
    rows, columns = finite.shape
    how = f"{MEANINGS[method]} each of the {rows} by {columns} locations of the feature map, by {method}"
    pen.text((GAP, GAP + FONT_SIZES[0] + 6), _fitted(how, small, room), PALE, small)
    for place, text in ((0, f"+{largest:.3g}"), (1, "for it"), (-2, "against"), (-1, f"-{largest:.3g}")):
        line = FONT_SIZES[1] + 4
        y = top + line * place - 2 if place >= 0 else top + height + line * place + 2
        pen.text((at + BAR + 8, y), text, INK, small)
    pen.text((at + BAR + 8, top + height // 2 - FONT_SIZES[1] // 2), "0", INK, small)
    below = top + height + 8
    pen.text((GAP, below), "what the network sees", PALE, small)
    pen.text((width + 2 * GAP, below), "outlined: over half of the largest; hatched: against", PALE, small)
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("Software", SOFTWARE)
    content = io.BytesIO()
    sheet.save(content, "png", pnginfo=metadata)
    return content.getvalue()


def colored(gray: np.ndarray, relative: np.ndarray) -> Image.Image:
    """A gray image `uint8[H, W]` under the colors of contributions `float[H, W]` from -1 to 1."""
    base = 110 + gray[..., None] * (140 / 255)  # lighter and with less contrast, so that the colors stand out
    strength = MAX_OPACITY * np.abs(relative)[..., None]
    mixed = base * (1 - strength) + np.where(relative[..., None] > 0, FOR, AGAINST) * strength
    rows, columns = np.indices(relative.shape)
    lines = ((rows + columns) % HATCH < 2) & (relative < -FAINT)
    mixed[lines] = 0.35 * mixed[lines] + 0.65 * 255
    edge = (relative > 0.5) ^ _eroded(relative > 0.5)
    mixed[edge] = 26
    return Image.fromarray(np.rint(mixed.clip(0, 255)).astype(np.uint8))


def _eroded(area: np.ndarray) -> np.ndarray:
    """A mask without the two pixels at its border; the edge of the image is no border."""
    inner = np.pad(area, 2, mode="edge")
    height, width = area.shape
    shifts = ((0, 2), (4, 2), (2, 0), (2, 4))
    return np.asarray(np.all([inner[y : y + height, x : x + width] for y, x in shifts], axis=0))


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """A text on one line, shortened to the width."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def is_saliency_picture(file: Path) -> bool:
    """Whether a file is a picture of `poolzoo predict`, of this or an earlier version."""
    try:
        with Image.open(file) as image:
            return image.info.get("Software") in (SOFTWARE, EARLIER_SOFTWARE)
    except Exception:  # whatever Pillow raises at what is no image
        return False
