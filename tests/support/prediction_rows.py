"""Images to label, and the rows of a directory of predictions as `predict --json` prints them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from support.odd_images import PIXELS


def repeated_images(place: Path, count: int) -> Path:
    """A list of `count` names of 50 images, and of one that is broken in each 300."""
    place.mkdir()
    for index in range(50):
        Image.fromarray(np.roll(PIXELS, index)).save(place / f"{index:02}.png")
    (place / "broken.png").write_bytes(b"no image")
    names = [f"{place}/broken.png" if at % 300 == 299 else f"{place}/{at % 50:02}.png" for at in range(count)]
    (place / "list.txt").write_text("\n".join(names))
    return place / "list.txt"


def rows_of(out: Path) -> list[dict[str, object]]:
    """All rows, in the order of the parts' names."""
    from pyarrow import parquet

    found: list[dict[str, object]] = []
    for path in sorted((out / "parts").glob("*.parquet")):
        for row in parquet.read_table(path).to_pylist():
            if row["error"] is not None:
                assert row["label"] is row["score"] is row["top_labels"] is None
                found.append({"file": row["file"], "error": row["error"]})
                continue
            pairs = zip(row["top_labels"], row["top_scores"], strict=True)
            top = [{"label": label, "score": score} for label, score in pairs]
            found.append({"file": row["file"], "label": row["label"], "score": row["score"], "top": top})
    return found
