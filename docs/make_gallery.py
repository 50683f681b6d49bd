"""Writes the measurements that the gallery shows, and a picture of some of its strategies.

python docs/make_gallery.py

`poolzoo/report/gallery/measured.json` is gathered from docs/results/pooling_kernels.json and, where there is one,
docs/results/leaderboard.json; a test compares it with what this would write. `docs/how-to/gallery.png` shows some of
the strategies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolzoo.common import files
from poolzoo.plugin import loader
from poolzoo.report.gallery import colors, influence, measured, photograph, shifted
from poolzoo.report.results import VariantResult

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SHOWN = ("subsample", "max", "avg", "maxblur", "blur", "spectral", "aps")
HEADS = ("avg", "gem", "topk", "max", "median", "strip", "attention")
STRIDE = 4  # where the differences are seen best
MAPS: Final = {"global": [8, 512, 7, 7], "local": [64, 64, 32, 32]}  # ResNet-18's last feature map; an early one


def gathered() -> dict[str, Any]:
    """The content of `measured.json`."""
    leaderboard = RESULTS / "leaderboard.json"
    found = json.loads(leaderboard.read_text(encoding="utf-8")) if leaderboard.exists() else {}
    return gather(json.loads((RESULTS / "pooling_kernels.json").read_text(encoding="utf-8")), found)


def gather(kernels: dict[str, Any], leaderboard: dict[str, Any]) -> dict[str, Any]:
    """The content of `measured.json`.

    Args:
        kernels: That of `docs/results/pooling_kernels.json`.
        leaderboard: That of `docs/results/leaderboard.json`, `{comparison: {"results": [row as in compare.json]}}`.
            Figures of a strategy are from the first comparison that has it without options; those of a local one
            with `avg` as the head.
    """
    strategies: dict[str, dict[str, Any]] = {}
    rows = [row for row in kernels["rows"] if row["map"] == MAPS[row["kind"]]]
    first = {row["kind"]: row for row in rows if row["name"] == "avg"}
    for row in rows:
        ratios = {key: row[f"{key}_ms"] / first[row["kind"]][f"{key}_ms"] for key in ("forward", "training")}
        strategies[f"{row['kind']} {row['name']}"] = {key: round(ratio, 2) for key, ratio in ratios.items()}
    for comparison, found in leaderboard.items():
        for row in found.get("results") or [] if isinstance(found, dict) else []:
            result = VariantResult.from_json(row)
            kind = "local" if result.local_pool else "global"
            name = str(result.local_pool or result.pool)
            known = strategies.setdefault(f"{kind} {name}", {})
            if result.accuracy and "accuracy" not in known and _alone(result, name):
                known |= _figures(comparison, result)
    return {"maps": MAPS, "strategies": {key: strategies[key] for key in sorted(strategies) if strategies[key]}}


def _alone(result: VariantResult, name: str) -> bool:
    """Whether a row is about one strategy with its defaults; a local one stands before `avg`."""
    return ":" not in name and (not result.local_pool or result.pool == "avg")


def _figures(comparison: str, result: VariantResult) -> dict[str, Any]:
    accuracy, consistency = result.accuracy, result.crop_consistency
    return {
        "where": f"{comparison}, {result.backbone}",
        "accuracy": accuracy.mean,
        "sd": accuracy.sd,
        "n": accuracy.n,
        "consistency": None if consistency is None else consistency.mean,
    }


def draw(path: Path) -> None:
    """A row of local poolings, a row of their changes after a shift of one pixel, and a row of global poolings."""
    from matplotlib import pyplot

    catalog, taken = loader.load_plugins(installed=False), photograph.shipped()
    features = influence.features(taken.pixels)
    gray = taken.pixels.mean(2) / 255
    figure, rows = pyplot.subplots(3, len(SHOWN), figsize=(1.3 * len(SHOWN), 4.6), dpi=100)
    for column, (local, whole) in enumerate(zip(SHOWN, HEADS, strict=True)):
        view = shifted.look(catalog.pooling(local, "local"), taken.pixels, STRIDE)
        weights = influence.look(catalog.pooling(whole, "global"), features)
        level = 255 * view.rms
        pictures = colors.picture(view.pooled), colors.signed(view.difference), colors.heat(weights.relative, gray)
        titles = local, f"{level:.1f}" if level >= 0.05 else "0", whole
        for row, picture, title in zip(rows[:, column], pictures, titles, strict=True):
            row.imshow(np.asarray(picture), interpolation="nearest")
            row.set_title(title, fontsize=8, pad=3)
            row.set_axis_off()
    for row, label in zip(rows[:, 0], (f"local, stride {STRIDE}", "moved 1 pixel", "global"), strict=True):
        row.text(-0.08, 0.5, label, rotation=90, ha="right", va="center", fontsize=8, transform=row.transAxes)
    figure.subplots_adjust(left=0.03, right=0.995, top=0.955, bottom=0.01, wspace=0.05, hspace=0.17)
    figure.savefig(path, facecolor="white", pil_kwargs={"optimize": True})
    pyplot.close(figure)


if __name__ == "__main__":
    files.write_json(measured.FILE, gathered())
    draw(HERE / "how-to" / "gallery.png")
