"""A picture of the first training images as they enter the network: what the augmentation makes of them."""

from __future__ import annotations

import math
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from PIL import Image
from torch import Tensor

from poolzoo.common import files
from poolzoo.model.network import Preprocess
from poolzoo.train.build import image_loader
from poolzoo.train.loaders import IMAGES
from poolzoo.train.prepare import PreparedRun, prepare
from poolzoo.train.settings import Settings

SHOWN: Final = 64  # images at most
MAX_WIDTH: Final = 1600  # pixels of the picture, for images of more than one row
GAP: Final = 2  # pixels between images


def write(settings: Settings, path: Path) -> int:
    """Writes a PNG of the first images of the first epoch.

    Args:
        settings: As the user gave them.
        path: The file, which must not exist.

    Returns:
        How many images it shows.

    Raises:
        PoolzooError: The settings cannot be fulfilled, or there is such a file.
    """
    files.require_free(path)
    images = first_images(prepare(settings))
    data = BytesIO()
    Image.fromarray(tiled(images).numpy()).save(data, "PNG")
    files.write_atomically(path, data.getvalue())
    return len(images)


def first_images(prepared: PreparedRun) -> Tensor:
    """The first inputs of the network in a run, normalization undone, `uint8[n, H, W, 3]` on the CPU."""
    batch_size, shown = prepared.settings.batch_size, []
    assert batch_size is not None  # `prepare` fills in every default
    loader = image_loader(prepared, batch_size, eval_batch_size=batch_size, frozen=False)
    for batch in islice(loader.epoch(1), math.ceil(SHOWN / batch_size)):
        shown.append(denormalized(batch.inputs[IMAGES], prepared.preprocess))
    return torch.cat(shown)[:SHOWN]


def denormalized(x: Tensor, preprocess: Preprocess) -> Tensor:
    """Normalized images `float[n, 3, H, W]` as `uint8[n, H, W, 3]` on the CPU."""
    values = (x * preprocess.std + preprocess.mean) * 255
    return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()


def tiled(images: Tensor) -> Tensor:
    """Images `uint8[n, H, W, 3]` as one, in rows, on white."""
    count, height, width, channels = images.shape
    columns = max(1, min(math.ceil(math.sqrt(count)), MAX_WIDTH // (width + GAP)))
    rows = math.ceil(count / columns)
    sheet = torch.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), 255, dtype=torch.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + GAP), place % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet
