"""Elements of a bundle's page: cells with bars, pictures, and charts as inline SVG that need no script."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from poolzoo.report import bundle_words
from poolzoo.report.bundle_words import TimedRow
from poolzoo.report.pieces import Safe, element, text

if TYPE_CHECKING:
    import numpy as np

THUMBNAIL: Final = 96  # pixels of a picture's longer side at most, so that the page stays small
ROW: Final = 46  # CSS pixels of a row of a chart
BAR: Final = 14  # CSS pixels of its bar


def bar_cell(share: float | None) -> Safe:
    """A share of 0–1 as a number over a bar; a dash where it is undefined."""
    if share is None:
        return element("td", "–")
    return element("td", f"{share:.3f}", class_="bar", style=f"--share:{share:.4f}")


def shaded(count: int, share: float, right: bool) -> Safe:
    """A count of the confusion matrix; the square root of its share of the row is the shade, so rare ones are seen."""
    shown = count if count else ""
    return element("td", shown, class_="right" if right else "", style=f"--shade:{math.sqrt(share):.3f}")


def picture(pixels: np.ndarray, alt: str) -> Safe:
    """An image, `uint8[H, W, 3]`, inside the page, shrunk where it is large."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    kind = "pixelated" if max(image.size) < THUMBNAIL else "smooth"
    width, height = image.size
    shape = f'width="{width}" height="{height}" class="{kind}"'
    return Safe(f'<img src="{source}" {shape} alt="{text(alt)}">')


def embedded(content: bytes, alt: str, kind: str = "png") -> Safe:
    """A PNG, or an SVG with `kind` "svg+xml", inside the page, at its own size."""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Safe(f'<img src="{source}" class="diagram" alt="{text(alt)}">')


def bars(rows: Sequence[TimedRow], label: str) -> Safe:
    """A bar a runtime with its median, whiskers from the minimum to the 90th percentile, and its numbers above it."""
    ends = [max(row.median_ms, row.p90_ms or 0) for row in rows]
    scale = 100 / max(*ends, 1e-9)
    drawn = []
    for index, row in enumerate(rows):
        top = index * ROW
        middle = top + 22 + BAR / 2
        threads = f", {row.threads} thread{'s' if row.threads != 1 else ''}" if row.threads else ""
        number: list[object] = [f"{bundle_words.milliseconds(row.median_ms)} ms"]
        if row.speedup:
            gain, _, interval = str(row.speedup).partition(" ")
            number += [f" · {gain} ", element("tspan", interval, class_="interval")]
        kind = "ours" if "onnx" in row.runtime.lower() else "theirs"
        drawn += [
            element("text", f"{row.runtime}{threads}", x=0, y=top + 14),
            element("text", *number, x="100%", y=top + 14, text_anchor="end", class_="number"),
            Safe(
                f'<rect class="{kind}" x="0" y="{top + 22}" width="{row.median_ms * scale:.2f}%" '
                f'height="{BAR}" rx="2"/>'
            ),
        ]
        if row.p90_ms:
            low, high = (row.min_ms or row.median_ms) * scale, row.p90_ms * scale
            drawn.append(_line(low, middle, high, middle, "whisker"))
            drawn += [_line(x, middle - 4, x, middle + 4, "whisker") for x in (low, high)]
    return element("svg", *drawn, role="img", aria_label=label, width="100%", height=len(rows) * ROW, class_="bars")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Safe:
    return Safe(f'<line class="{kind}" x1="{x1:.2f}%" y1="{y1:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}"/>')


class LogScale:
    """A logarithmic scale in whole decades, drawn as strips of one width.

    Args:
        values: What it covers; only positive finite values count.
    """

    def __init__(self, values: Iterable[float | None]) -> None:
        kept = [math.log10(value) for value in values if value and math.isfinite(value)] or [0.0]
        self.low = math.floor(min(kept) - 0.1)
        self.high = math.ceil(max(kept) + 0.1)

    def _at(self, value: float) -> float:
        """The place of a value in percent of the strip; zero is at its left end."""
        share = (math.log10(value) - self.low) / (self.high - self.low) if value > 0 else 0.0
        return 2 + 96 * min(max(share, 0.0), 1.0)

    def axis(self) -> Safe:
        """The ends of the scale, for the heading of its column."""
        ends = (f"1e{self.low}", f"1e{self.high}")
        return element("span", *(element("span", end) for end in ends), class_="axis")

    def strip(self, measured: float | None, allowed: float | None, common: float | None) -> Safe:
        """A line up to the measured value, with marks at its own limit and at the common one.

        It is decoration; the table beside it has the numbers.
        """
        drawn = [_line(self._at(10.0**n), 3, self._at(10.0**n), 21, "decade") for n in range(self.low, self.high + 1)]
        if common:
            drawn.append(_line(self._at(common), 0, self._at(common), 24, "common"))
        if measured is not None:
            drawn.append(_line(2, 12, self._at(measured), 12, "measured"))
            drawn.append(Safe(f'<circle class="ours" cx="{self._at(measured):.2f}%" cy="12" r="4"/>'))
        if allowed:
            drawn.append(_line(self._at(allowed), 2, self._at(allowed), 22, "allowed"))
        return element("svg", *drawn, aria_hidden="true", width="100%", height=24, class_="strip")
