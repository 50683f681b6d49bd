"""Every strategy of the catalog at work, one after the other; what one of them throws is on its own card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
from torch import Tensor

from poolzoo.common import output
from poolzoo.model import cost
from poolzoo.plugin import isolation, loader, spec
from poolzoo.report.gallery import influence, measured, shifted

CHANNELS: Final = 64  # that width and parameters are told for

T = TypeVar("T")


@dataclass(frozen=True)
class Card:
    """What is shown of one strategy.

    Attributes:
        item: What its plugin says of it.
        origin: The distribution that it comes from, "" for our own.
        measured: What is known of it.
        width, parameters: For 64 channels; None where it cannot be built.
        shifted: A local one, by stride; instead of what fails, the reason.
        influence: A global one, or the reason.
    """

    item: spec.Pooling
    origin: str
    measured: measured.Measured
    width: int | None = None
    parameters: int | None = None
    shifted: dict[int, shifted.Shifted | str] = field(default_factory=dict)
    influence: influence.Influence | str | None = None

    @property
    def identity(self) -> str:
        """By which the card is found on the page."""
        return "-".join(filter(None, [self.item.kind, self.item.name, self.origin]))

    @property
    def failed(self) -> bool:
        """Whether nothing of it can be seen."""
        views = [self.influence] if self.influence is not None else list(self.shifted.values())
        return all(isinstance(view, str) for view in views)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.item.name, "kind": self.item.kind, "from": self.origin or "poolzoo"}
        found |= {"width": self.width, "parameters": self.parameters}
        if isinstance(self.influence, influence.Influence):
            found["half"] = self.influence.half
        elif self.influence is not None:
            found["error"] = self.influence
        for stride, view in self.shifted.items():
            key, value = ("error", view) if isinstance(view, str) else ("rms", view.rms)
            found.setdefault(key, {})[str(stride)] = value
        return found


def cards(photograph: np.ndarray) -> list[Card]:
    """A card for every pooling of the process's catalog, the local ones first.

    Args:
        photograph: `uint8[S, S, 3]`.
    """
    catalog = loader.catalog()
    entries = sorted(catalog.select(spec.Pooling), key=lambda entry: getattr(entry.item, "kind", "") != "local")
    features = influence.features(photograph)
    made = []
    with output.progress("pooling the photograph", len(entries)) as bar, isolation.stdout_to_stderr():
        for number, entry in enumerate(entries):
            bar.update(number, entry.item.name)
            made.append(_card(catalog, entry, photograph, features))
    return made


def _card(catalog: loader.Catalog, entry: loader.Entry, photograph: np.ndarray, features: Tensor) -> Card:
    item, own = entry.item, entry.source.tier == "built-in"
    assert isinstance(item, spec.Pooling)
    state = isolation.GlobalState()
    try:
        known = measured.of(item.kind, item.name) if own else measured.Measured()
        card = partial(Card, item, "" if own else entry.source.dist, known)
        resolved = _tried(lambda: _resolved(catalog, entry))
        sizes = resolved if isinstance(resolved, str) else _tried(lambda: cost.sizes(resolved))
        if not isinstance(sizes, str):
            card = partial(card, sizes["width"][CHANNELS], sizes["parameters"][CHANNELS])
        if item.kind == "global":
            seen = resolved if isinstance(resolved, str) else _tried(lambda: influence.look(resolved, features))
            return card(influence=seen)
        views = {}
        for stride in shifted.STRIDES:
            look = partial(shifted.look, resolved, photograph, stride)
            views[stride] = resolved if isinstance(resolved, str) else _tried(look)
        return card(shifted=views)
    finally:
        state.restore()


def _resolved(catalog: loader.Catalog, entry: loader.Entry) -> loader.Resolved:
    """The pooling of one entry, by its bare name where that means it: not every file's name can be typed before it."""
    found = catalog.pooling(entry.item.name, entry.item.kind)  # type: ignore[union-attr]
    return found if found.entry is entry else catalog.pooling(f"{entry.source.dist}:{entry.item.name}", found.item.kind)


def _tried(function: Callable[[], T]) -> T | str:
    """What other people's code gives, within bounds of time and memory, or in one line why it gives nothing."""
    found, error = isolation.call(function)
    if error is None:
        return found  # type: ignore[return-value]
    try:
        text = output.one_line(str(error), 300)
    except Exception:  # an exception whose own text raises
        text = ""
    return text if text and isinstance(error, ValueError) else f"{type(error).__name__}: {text}".removesuffix(": ")
