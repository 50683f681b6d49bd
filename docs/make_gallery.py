"""Writes what the gallery tells of measurements, and a picture of some of its strategies.

python docs/make_gallery.py

`poolzoo/report/gallery/measured.json` is gathered from docs/pooling_kernels.json and, where there is one,
docs/leaderboard.json; a test compares it with what this would write. `docs/gallery.png` shows local strategies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from poolzoo.common import files
from poolzoo.plugin import loader
from poolzoo.report.gallery import colors, influence, measured, photograph, shifted

HERE = Path(__file__).parent
SHOWN = ("subsample", "max", "avg", "maxblur", "blur", "spectral", "aps")
HEADS = ("avg", "gem", "topk", "max", "median", "strip", "attention")
STRIDE = 4  # where the differences are seen best


def gathered() -> dict[str, Any]:
    """The content of `measured.json`."""
    leaderboard = HERE / "leaderboard.json"
    found = json.loads(leaderboard.read_text(encoding="utf-8")) if leaderboard.exists() else {}
    return measured.gather(json.loads((HERE / "pooling_kernels.json").read_text(encoding="utf-8")), found)


def draw(path: Path) -> None:
    """A row of local poolings, one of what changes when the photograph moves by one pixel, and one of global ones."""
    from matplotlib import pyplot

    catalog, taken = loader.load_plugins(installed=False), photograph.shipped()
    features = influence.features(taken.pixels)
    gray = taken.pixels.mean(2) / 255
    figure, rows = pyplot.subplots(3, len(SHOWN), figsize=(1.3 * len(SHOWN), 4.6), dpi=100)
    for column, (local, whole) in enumerate(zip(SHOWN, HEADS, strict=True)):
        view = shifted.look(catalog.pooling(local, "local"), taken.pixels, STRIDE)
        weights = influence.look(catalog.pooling(whole, "global"), features)
        level = 255 * view.rms
        pictures = colors.picture(view.pooled), colors.signed(view.difference), colors.heat(weights.times, gray)
        titles = local, f"{level:.1f}" if level >= 0.05 else "0", whole
        for row, picture, title in zip(rows[:, column], pictures, titles, strict=True):
            row.imshow(np.asarray(picture), interpolation="nearest")
            row.set_title(title, fontsize=8, pad=3)
            row.set_axis_off()
    for row, told in zip(rows[:, 0], (f"local, stride {STRIDE}", "moved 1 pixel", "global"), strict=True):
        row.text(-0.08, 0.5, told, rotation=90, ha="right", va="center", fontsize=8, transform=row.transAxes)
    figure.subplots_adjust(left=0.03, right=0.995, top=0.955, bottom=0.01, wspace=0.05, hspace=0.17)
    figure.savefig(path, facecolor="white", pil_kwargs={"optimize": True})
    pyplot.close(figure)


if __name__ == "__main__":
    files.write_json(measured.FILE, gathered())
    draw(HERE / "gallery.png")
