"""The self-contained page of the gallery: a card a strategy, with its pictures."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.report.gallery import colors
from poolzoo.report.gallery.cards import CHANNELS, Card
from poolzoo.report.gallery.influence import Influence
from poolzoo.report.gallery.mathml import mathml
from poolzoo.report.gallery.measured import Measured
from poolzoo.report.gallery.photograph import Photograph
from poolzoo.report.gallery.shifted import Shifted
from poolzoo.report.pieces import Safe, document, element, section, text

HERE: Final = Path(__file__)
ARXIV: Final = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
LEGEND: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0)  # weights relative to a uniform one
PROPERTIES: Final = {  # filters of the page
    "parameter-free": "parameter-free",
    "learnable": "with parameters",
    "random": "random in training",
    "widens": "changes channels",
    "keeps": "keeps channels",
}
INTRODUCTION: Final = (
    "Every card shows one strategy at work on this photograph.",
    "A local pooling is inside a backbone and downsamples. Its card shows the pooled photograph, the same photograph "
    "moved by one pixel and pooled, and their difference after alignment. Black is no difference; color is a change of "
    "the features although only the position changed.",
    "A global pooling is the head and turns a whole feature map into one vector. The brighter a location, the larger "
    "its influence on that vector.",
)
FACTS: Final = f"Output channels and parameters are those for {CHANNELS} input channels on a feature map of 8 × 8."
LOCAL: Final = (
    "xᵢ are the n values of a window, x̄ is their mean, s its side and stride; pixels are in 0–1.",
    "The photograph moves circularly by one pixel down and right. The first picture is then aligned with the second, "
    "in steps of 1/s pixel, with a cubic spline.",
    "In the gray frame opposite borders meet, and nothing is compared.",
    FACTS,
)
GLOBAL: Final = (
    "xᵢ are the n spatial locations of a feature map, x̄ is their mean; the map is that of nano/resnet, trained on "
    "CIFAR-10.",
    "A weight is Σ |∂(v · y)/∂x| over the channels of a location, the mean over vectors v of random signs; 1× is the "
    "uniform weight.",
    FACTS,
)
KINDS: Final = ("local", "global")


def html(photograph: Photograph, cards: Sequence[Card]) -> str:
    """The whole page.

    Args:
        photograph: The photograph that was pooled.
        cards: A card for each strategy.
    """
    gray = photograph.pixels.mean(2) / 255
    local = [_card(card, gray) for card in cards if card.item.kind == "local"]
    whole = [_card(card, gray) for card in cards if card.item.kind == "global"]
    names = {card.item.name for card in cards}
    script = HERE.with_name("page.js").read_text(encoding="utf-8")
    body = [
        element(
            "header",
            element("p", "poolzoo gallery", class_="kind"),
            element("h1", f"{len(names)} pooling strategies at work"),
        ),
        element(
            "main",
            _opening(photograph),
            _controls(len(cards)),
            section(
                "local",
                "Local: inside a backbone",
                element("p", *LOCAL, class_="note"),
                element("div", *local, class_="cards"),
            ),
            section(
                "global",
                "Global: the head",
                element("p", *GLOBAL, class_="note"),
                element("div", *whole, class_="cards small"),
            ),
            element("p", "No strategy matches.", id="none", hidden="hidden"),
        ),
        element("footer", element("p", f"Photograph: {photograph.credit}.", class_="note")),
        Safe(f"<script>{script}</script>"),
    ]
    # Even a name that got past the escaping could neither run nor fetch anything: only this one script may run.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
    return document("The pooling gallery", policy, HERE.with_name("page.css"), body)


def _opening(photograph: Photograph) -> Safe:
    ramp = np.linspace(-1, 1, 64)
    scale = colors.signed(np.tile(ramp * colors.FULL, (1, 1)))
    level = round(colors.FULL * 255)
    steps = colors.heat(np.array([LEGEND]), np.full((4, 4 * len(LEGEND)), 0.5))
    legends = element(
        "div",
        element(
            "figure",
            element("p", "Difference, levels of 255"),
            _image(scale, "The scale of differences"),
            element("figcaption", *(element("span", end) for end in (f"−{level}", "no difference", f"+{level}"))),
        ),
        element(
            "figure",
            element("p", "Weight, relative to uniform"),
            _image(steps, "The scale of weights"),
            element("figcaption", *(element("span", f"{end:g}×") for end in LEGEND), class_="uniform"),
        ),
        class_="legends",
    )
    picture = _image(photograph.pixels, f"The photograph, {len(photograph.pixels)} pixels a side")
    return element("div", picture, element("div", element("p", *INTRODUCTION), legends), class_="opening")


def _controls(count: int) -> Safe:
    search = element("label", "Search", Safe('<input type="search" id="search" placeholder="shift Zhang …">'))
    kinds = [element("option", shown, value=value) for value, shown in (("", "all"), *((k, k) for k in KINDS))]
    properties = [element("option", "any", value="")]
    properties += [element("option", shown, value=value) for value, shown in PROPERTIES.items()]
    return element(
        "form",
        search,
        element("label", "Kind", element("select", *kinds, id="kind")),
        element("label", "Property", element("select", *properties, id="property")),
        element("output", f"{count} of {count}", id="shown", for_="search kind property"),
        class_="controls",
    )


# --- A card ----------------------------------------------------------------------------------------------------------


def _card(card: Card, gray: np.ndarray) -> Safe:
    item = card.item
    name = element("a", item.name, href=f"#{card.identity}")
    origin = [element("span", f"from {card.origin}", class_="origin")] if card.origin else []
    views = _views(card) if item.kind == "local" else _weights(card, gray)
    return element(
        "article",
        element("header", element("h3", name, *origin), _chips(card)),
        element("p", item.summary, class_="summary searched"),
        element("div", _equation(card), class_="equation", tabindex=0),
        views,
        _figures(card),
        element("p", _paper(item.paper), class_="paper searched"),
        id=card.identity,
        data_kind=item.kind,
        data_has=" ".join(_properties(card)),
    )


def _properties(card: Card) -> list[str]:
    found = ["parameter-free" if card.item.parameter_free else "learnable"]
    found += ["random"] if card.item.stochastic else []
    if card.out_features is not None:
        found.append("keeps" if card.out_features == CHANNELS else "widens")
    return found


def _chips(card: Card) -> Safe:
    shown = [card.item.kind, *(PROPERTIES[key] for key in _properties(card) if key not in ("keeps", "learnable"))]
    return element("ul", *(element("li", one) for one in shown), class_="chips")


def _equation(card: Card) -> Safe:
    drawn = mathml(card.item.tex) if card.item.tex else None
    return drawn or element("code", card.item.equation or "no equation is given")


def _paper(paper: str) -> Safe:
    if not paper:
        return Safe("No canonical paper")
    link = r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>'
    return Safe(ARXIV.sub(link, text(paper)))


def _views(card: Card) -> Safe:
    views = [_view(card.item.name, stride, view) for stride, view in card.shifted.items()]
    notes = [(stride, "; ".join(view.notes)) for stride, view in card.shifted.items() if isinstance(view, Shifted)]
    lines = [f"stride {stride}: {note}" for stride, note in notes if note]
    if len({note for _, note in notes}) == 1:
        lines = [note for _, note in notes[:1] if note]
    shown = [element("p", f"Shown here: {'; '.join(lines)}.", class_="shown")] if lines else []
    return element("div", *views, *shown, class_="views")


def _view(name: str, stride: int, view: Shifted | str) -> Safe:
    if isinstance(view, str):
        return element("div", _head(stride, ""), element("p", view, class_="reason"), class_="view")
    where = f"{name}, stride {stride}"
    by = " and ".join(f"{step:g}" for step in view.by)
    pictures = (
        (colors.picture(view.pooled), "pooled", f"{where}: the photograph pooled"),
        (colors.picture(view.moved), "moved 1 pixel, pooled", f"{where}: the moved photograph pooled"),
        (colors.signed(view.difference), "difference", f"{where}: their difference, aligned by {by} pixels"),
    )
    shown = [element("figure", _image(p, alt), element("figcaption", caption)) for p, caption, alt in pictures]
    return element("div", _head(stride, _level(view)), *shown, class_="view")


def _head(stride: int, level: object) -> Safe:
    return element("p", element("b", f"stride {stride}"), element("span", level), class_="stride")


def _level(view: Shifted) -> Safe:
    level = view.rms * 255
    shown = "0" if level < 0.005 else f"{level:.2f}" if level < 1 else f"{level:.1f}"
    return Safe(f"{text('root mean square difference')} <b>{shown}</b> of 255")


def _weights(card: Card, gray: np.ndarray) -> Safe:
    view = card.influence
    if not isinstance(view, Influence):
        return element("div", element("p", view or "nothing to show", class_="reason"), class_="views")
    low, high = float(view.relative.min()), float(view.relative.max())
    least = f"{low:.2g}" if low >= 0.01 or low == 0 else "<0.01"
    reach = f"{least}× to {high:.3g}×" if high - low > 1e-6 else "1× everywhere"
    alt = f"{card.item.name}: the weight of each location, {reach} the uniform weight"
    half = f"{view.half} of {view.weights.size} locations have half the weight"
    caption = element("figcaption", element("b", reach), element("span", half))
    return element("div", element("figure", _image(colors.heat(view.relative, gray), alt), caption), class_="views")


def _figures(card: Card) -> Safe:
    known = card.measured
    count = "–" if card.parameters is None else f"{card.parameters:,}"
    sd = "" if known.sd is None else f" ± {100 * known.sd:.1f}"
    where = known.where + ("" if known.n is None else f", n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{known.n}")
    rows = [
        ("parameters", count, "initial, seed 0" if card.parameters else ""),
        ("output channels", "–" if card.out_features is None else str(card.out_features), ""),
        ("time vs avg", *_times(known)),
        ("crop consistency", _percent(known.consistency), "not measured" if known.consistency is None else ""),
        ("accuracy", _percent(known.accuracy, sd), where or "not measured"),
    ]
    cells = [
        element("div", element("dt", name), element("dd", element("b", big), element("span", small)))
        for name, big, small in rows
    ]
    return element("dl", *cells, class_="figures")


def _times(known: Measured) -> tuple[str, str]:
    if known.forward is None:
        return "–", "not measured"
    return f"{known.forward:.3g}×", f"training {known.training:.3g}×" if known.training is not None else ""


def _percent(fraction: float | None, sd: str = "") -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}{sd}\N{NO-BREAK SPACE}%"


def _image(pixels: np.ndarray, alt: str) -> Safe:
    """A picture, `uint8[H, W, 3]`, in the page."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    height, width, _ = pixels.shape
    return Safe(f'<img src="{source}" width="{width}" height="{height}" alt="{text(alt)}">')
