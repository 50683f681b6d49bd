"""The page of `poolzoo data check`: what is wrong with a data set, with the pictures side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from poolzoo.common.text import data_title
from poolzoo.data.sizes import show
from poolzoo.report.pieces import Safe, document, element, section, table, text

if TYPE_CHECKING:
    import numpy as np

    from poolzoo.data.check.findings import CheckReport, ImageRef, Pair

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE: Final = Path(__file__).with_name("check_page.css")
PAIRS: Final = 60  # of a section; each takes 10 kB
ROWS: Final = 200  # of a table
SIDE: Final = 128  # pixels of a picture
KINDS: Final = {"exact": "the same bytes", "near": "nearly the same", "mirrored": "nearly the mirror image"}


class Pictures(Protocol):
    """Gives the pictures of a split by their positions."""

    def pixels(self, position: int, side: int) -> np.ndarray: ...


Draw = Callable[["ImageRef"], Safe]


def html(found: CheckReport, splits: Mapping[str, Pictures]) -> str:
    """The whole page, which needs nothing but a browser.

    Args:
        found: The check.
        splits: What gives the pictures of each split.
    """
    draw = _drawing(splits)
    leaks = [pair for pair in found.leaks if pair.first.split == "train"]
    overlap = [pair for pair in found.leaks if pair.first.split != "train"]
    labels = "The same picture has different labels: at least one of the two is wrong, or the classes overlap."
    copies = "A copy gives its picture more weight; where validation images are chosen from these, they leak."
    main = [
        _tiles(found),
        _pairs("leaks", "Images of other splits among the training images", leaks, draw),
        _pairs("labels", "Different labels", found.labels, draw, labels),
        section("unreadable", "Images that cannot be read", _unreadable(found)),
        _pairs("overlap", "Images of both other splits", overlap, draw),
        _pairs("copies", "Copies within a split", found.copies, draw, copies),
        section("classes", "Classes", *_classes(found)),
        section("odd", "Odd images", *_odd(found, draw)),
        section("sizes", "Sizes and channels", _sizes(found)),
    ]
    images = ", ".join(f"{facts.images:,} {name} images" for name, facts in found.splits.items())
    title = data_title(found.source)
    header = element(
        "header",
        element("p", "poolzoo data check", class_="kind"),
        element("h1", title),
        element("p", images if title == found.source else f"{images} of {found.source}"),
    )
    return document(f"Check of {title}", POLICY, STYLE, [header, element("main", *main)])


def _drawing(splits: Mapping[str, Pictures]) -> Draw:
    from PIL import Image

    def draw(image: ImageRef) -> Safe:
        try:
            picture = Image.fromarray(splits[image.split].pixels(image.position, SIDE))
            encoded = io.BytesIO()
            picture.save(encoded, "JPEG", quality=85)
        except Exception:  # the file may have gone since it was checked
            return element("div", "gone", class_="gone")
        source = f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
        kind = ' class="pixelated"' if max(picture.size) < SIDE // 2 else ""
        return Safe(f'<img src="{source}"{kind} alt="{text(f"{image.label}: {image.name}")}">')

    return draw


def _tiles(found: CheckReport) -> Safe:
    leaks = sum(pair.first.split == "train" for pair in found.leaks)
    copies = sum(facts.copies for facts in found.splits.values())
    near = "exact and near ones" if found.near else "exact ones; near ones were not looked for"
    tiles = (
        ("leaked", leaks, "images of other splits among the training images"),
        ("different labels", len(found.labels), "pairs of the same picture"),
        ("unreadable", len(found.unreadable), "files"),
        ("copies", copies, near),
    )
    shown = [
        element("div", element("dt", name), element("dd", element("b", f"{count:,}"), element("span", what)))
        for name, count, what in tiles
    ]
    return element("dl", *shown, class_="tiles")


def _pairs(identity: str, title: str, pairs: Sequence[Pair], draw: Draw, note: str = "") -> Safe:
    if not pairs:
        return Safe("")
    parts: list[object] = [element("p", note, class_="note")] if note else []
    shown = [
        element("li", _figure(pair.first, draw), _figure(pair.second, draw), element("p", _about(pair), class_="about"))
        for pair in pairs[:PAIRS]
    ]
    parts.append(element("ul", *shown, class_="pictures"))
    return section(identity, f"{title} ({len(pairs):,})", *parts, *_rest(len(pairs) - PAIRS, "pairs"))


def _figure(image: ImageRef, draw: Draw) -> Safe:
    caption = element("figcaption", element("b", f"{image.split}: {image.label}"), element("span", image.name))
    return element("figure", draw(image), caption)


def _about(pair: Pair) -> str:
    alike = "" if pair.kind == "exact" else f", correlation {pair.similarity:.3f}"
    return f"{KINDS[pair.kind]}{alike}"


def _rest(count: int, what: str) -> list[Safe]:
    return [element("p", f"and {count:,} more {what}; --json lists all", class_="note")] if count > 0 else []


def _unreadable(found: CheckReport) -> Safe | str:
    rows = [(one.image.name, one.image.split, one.reason) for one in found.unreadable[:ROWS]]
    return table(f"{len(found.unreadable):,} files", ("file", "split", "reason"), rows, "wordy") if rows else ""


def _classes(found: CheckReport) -> Iterable[Safe]:
    """A table of the images of each class; of very many classes, the smallest and the largest."""
    counts: dict[str, dict[str, int]] = {}
    for split, facts in found.splits.items():
        for name, count in facts.classes.items():
            counts.setdefault(name, {})[split] = count
    order = sorted(counts, key=lambda name: (max(counts[name].values()), name))
    chosen = order if len(order) <= ROWS else order[: ROWS // 2] + order[-ROWS // 2 :]
    most = max((max(by_split.values()) for by_split in counts.values()), default=0) or 1
    rows = [
        (
            name,
            *(f"{counts[name][split]:,}" if split in counts[name] else "–" for split in found.splits),
            Safe(f'<td class="bar" style="--share: {max(counts[name].values()) / most:.4f}"></td>'),
        )
        for name in chosen
    ]
    if rows:
        yield table(f"{len(order):,} classes, the smallest first", ("class", *found.splits, ""), rows, "classes")
        yield from _rest(len(order) - len(chosen), "classes between them")


def _odd(found: CheckReport, draw: Draw) -> Iterable[Safe]:
    for name, facts in found.splits.items():
        for odd in facts.odd:
            yield element("h3", f"{odd.count:,} {name} images {odd.what}")
            yield element("ul", *(element("li", _figure(image, draw)) for image in odd.first), class_="pictures")


def _sizes(found: CheckReport) -> Safe | str:
    headers = ("split", "smallest", "median", "largest", "sizes", "width : height", "mean", "standard deviation")
    rows = [
        (
            name,
            *map(show, (facts.sizes.smallest, facts.sizes.median, facts.sizes.largest)),
            f"{facts.sizes.distinct:,}",
            f"{facts.sizes.narrowest:.2f} to {facts.sizes.widest:.2f}",
            *(" ".join(f"{value:.3f}" for value in values) for values in (facts.mean, facts.std)),
        )
        for name, facts in found.splits.items()
        if facts.sizes is not None
    ]
    caption = "Height×width in pixels; R, G and B on the 0–1 scale, of images that were reduced while decoding"
    return table(caption, headers, rows, "sizes") if rows else ""
