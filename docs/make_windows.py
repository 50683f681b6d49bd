"""Draws docs/explanation/windows.svg: which values of a row of four each window reads, for five kinds of windows.

python docs/make_windows.py

A test compares the picture with what this would write. Its colors are seen on light and dark pages alike.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path

HERE = Path(__file__).parent
SIDE = 4  # of the map
CELL = 34  # pixels
GRAY, ORANGE = "#808080", "#e8590c"
Interval = tuple[int, int]  # the first value and the one behind the last; below 0 and from 4 on is padding


def sliding(size: int, stride: int, padding: int, *, ceil_mode: bool = False) -> list[Interval]:
    """The windows of `nn.MaxPool2d` along one side; ceil_mode adds a window that begins inside the map."""
    room = SIDE + 2 * padding - size
    count = (ceil(room / stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= SIDE + padding:
        count -= 1
    return [(i * stride - padding, i * stride - padding + size) for i in range(count)]


def adaptive(count: int) -> list[Interval]:
    """The cells of `nn.AdaptiveAvgPool2d(count)` along one side."""
    return [(i * SIDE // count, ceil((i + 1) * SIDE / count)) for i in range(count)]


ROWS = (
    ("window 2, stride 2", sliding(2, 2, 0)),
    ("window 3, stride 2", sliding(3, 2, 0)),
    ("window 3, stride 2, ceil_mode", sliding(3, 2, 0, ceil_mode=True)),
    ("window 3, stride 2, padding 1", sliding(3, 2, 1)),
    ("adaptive, 3 cells", adaptive(3)),
    ("adaptive, 6 cells", adaptive(6)),
)


def render() -> str:
    """The picture."""
    left, top, parts = 230, 12, []
    for title, windows in ROWS:
        parts.append(f'<text x="{left - 1.5 * CELL}" y="{top + 0.62 * CELL:g}" text-anchor="end">{title}</text>')
        for column in range(-1, SIDE + 1):
            inside = 0 <= column < SIDE
            dashes = "" if inside else ' stroke-dasharray="3 3" stroke-opacity="0.5"'
            parts.append(
                f'<rect x="{left + column * CELL}" y="{top}" width="{CELL}" height="{CELL}" fill="none"'
                f' stroke="{GRAY}"{dashes}/>'
            )
        for index, (first, end) in enumerate(windows):
            y = top + CELL + 6 + 6 * index
            parts.append(
                f'<line x1="{left + first * CELL + 3}" x2="{left + end * CELL - 3}" y1="{y}" y2="{y}"'
                f' stroke="{ORANGE}" stroke-width="3"/>'
            )
        top += CELL + 6 * len(windows) + 22
    width = left + (SIDE + 1) * CELL + 10
    style = f"text {{ font: 14px sans-serif; fill: {GRAY}; }}"
    size = f'width="{width}" height="{top}" viewBox="0 0 {width} {top}"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{style}</style>\n{body}\n</svg>\n'


if __name__ == "__main__":
    (HERE / "explanation" / "windows.svg").write_text(render(), encoding="utf-8")
