"""The picture of where a network looked: the image, and beside it what spoke for a class and what against. No torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

SOFTWARE: Final = "poolzoo predict --saliency"  # in the file, so that the next run knows it may be drawn anew
SIDE: Final = 384  # pixels that the longer side of a panel has at least
GAP, BAR, SCALE = 16, 18, 92  # pixels between things, of the color bar's width, and of the bar with its figures
SIZES: Final = (20, 14)  # of the letters in pixels: the label's, and the others'
# Orange for, blue against: red-green blindness leaves both, and blue areas are hatched too, which print in gray keeps.
FOR, AGAINST = np.array([230, 97, 0]), np.array([20, 80, 170])
INK, PAPER, PALE = "#1a1a1a", "#ffffff", "#5a5a5a"
MEANINGS: Final = {"gradient": "what its logit owes to", "occlusion": "how far its logit falls without"}
MOST: Final = 0.8  # of the color, over the image
HATCH: Final = 9  # pixels from one line to the next
FAINT: Final = 0.1  # of the largest contribution, from which on an area is hatched


def draw(pixels: np.ndarray, moved: np.ndarray, label: str, score: float, method: str) -> bytes:
    """A PNG: the image as the network sees it, the same under a color for each position, and a scale.

    Args:
        pixels: The image, `uint8[H, W, 3]`.
        moved: What each position of the map adds to the class's logit, `float[H', W']`; enlarged bilinearly.
        label, score: The class and its probability.
        method: How that was found, a key of `MEANINGS`.
    """
    height, width = (side * max(1, -(-SIDE // max(pixels.shape[:2]))) for side in pixels.shape[:2])
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
    moved = np.nan_to_num(np.asarray(moved, np.float32), posinf=0, neginf=0)
    largest = float(np.abs(moved).max())
    share = moved / largest if largest > 0 else moved
    fine = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR))
    large, small = (ImageFont.load_default(size) for size in SIZES)
    top = GAP + SIZES[0] + 8 + SIZES[1] + 12
    sheet = Image.new("RGB", (2 * width + SCALE + 4 * GAP, top + height + SIZES[1] + 2 * GAP), PAPER)
    sheet.paste(image, (GAP, top))
    sheet.paste(colored(np.asarray(image.convert("L")), fine), (width + 2 * GAP, top))
    bar = np.repeat(np.linspace(1, -1, height, dtype=np.float32)[:, None], BAR, 1)
    at = 2 * width + 3 * GAP
    sheet.paste(colored(np.full(bar.shape, 160, np.uint8), bar), (at, top))
    pen, room = ImageDraw.Draw(sheet), sheet.width - 2 * GAP
    pen.text((GAP, GAP - 4), _fitted(f"{label}: {score:.1%}", large, room), INK, large)
    how = f"{MEANINGS[method]} each of the {moved.shape[0]} by {moved.shape[1]} positions of the map, by {method}"
    pen.text((GAP, GAP + SIZES[0] + 6), _fitted(how, small, room), PALE, small)
    for place, text in ((0, f"+{largest:.3g}"), (1, "for it"), (-2, "against"), (-1, f"-{largest:.3g}")):
        line = SIZES[1] + 4
        y = top + line * place - 2 if place >= 0 else top + height + line * place + 2
        pen.text((at + BAR + 8, y), text, INK, small)
    pen.text((at + BAR + 8, top + height // 2 - SIZES[1] // 2), "0", INK, small)
    below = top + height + 8
    pen.text((GAP, below), "what the network sees", PALE, small)
    pen.text((width + 2 * GAP, below), "outlined: over half of the most; hatched: against", PALE, small)
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Software", SOFTWARE)
    content = io.BytesIO()
    sheet.save(content, "png", pnginfo=facts)
    return content.getvalue()


def colored(gray: np.ndarray, share: np.ndarray) -> Image.Image:
    """A gray image `uint8[H, W]` under the colors of contributions `float[H, W]` from -1 to 1."""
    base = 110 + gray[..., None] * (140 / 255)  # lighter and with less contrast, so that the colors stand out
    strength = MOST * np.abs(share)[..., None]
    mixed = base * (1 - strength) + np.where(share[..., None] > 0, FOR, AGAINST) * strength
    rows, columns = np.indices(share.shape)
    lines = ((rows + columns) % HATCH < 2) & (share < -FAINT)
    mixed[lines] = 0.35 * mixed[lines] + 0.65 * 255
    edge = (share > 0.5) ^ _shrunk(share > 0.5)
    mixed[edge] = 26
    return Image.fromarray(np.rint(mixed.clip(0, 255)).astype(np.uint8))


def _shrunk(area: np.ndarray) -> np.ndarray:
    """An area without its rim of two pixels; the image's edge is no rim."""
    inner = np.pad(area, 2, mode="edge")
    height, width = area.shape
    shifts = ((0, 2), (4, 2), (2, 0), (2, 4))
    return np.asarray(np.all([inner[y : y + height, x : x + width] for y, x in shifts], axis=0))


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """A text on one line, cut where there is no more room."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def is_ours(file: Path) -> bool:
    """Whether a file is such a picture."""
    try:
        with Image.open(file) as image:
            return image.info.get("Software") == SOFTWARE
    except Exception:  # whatever Pillow raises at what is no image
        return False
