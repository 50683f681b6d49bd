"""A card for every strategy of the catalog; an exception of one of them is shown on its own card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import numpy as np
from torch import Tensor

from poolzoo.common import output
from poolzoo.common.text import one_line
from poolzoo.model import cost
from poolzoo.plugin import isolation, loader, spec
from poolzoo.report.gallery import influence, measured, shifted

CHANNELS: Final = 64  # for which output channels and parameters are shown

T = TypeVar("T")


@dataclass(frozen=True)
class Card:
    """What is shown of one strategy.

    Attributes:
        item: Its plugin entry.
        origin: The distribution that it comes from; "" for a built-in one.
        measured: Its measurements.
        out_features, parameters: Output channels and parameters for 64 channels; None where it cannot be built.
        shifted: Of a local pooling, its view for each stride, or the error.
        influence: Of a global pooling, its view, or the error.
    """

    item: spec.Pooling
    origin: str
    measured: measured.Measured
    out_features: int | None = None
    parameters: int | None = None
    shifted: dict[int, shifted.Shifted | str] = field(default_factory=dict)
    influence: influence.Influence | str | None = None

    @property
    def identity(self) -> str:
        """The card's id on the page."""
        return "-".join(filter(None, [self.item.kind, self.item.name, self.origin]))

    @property
    def failed(self) -> bool:
        """Whether it has no view, only errors."""
        views = [self.influence] if self.influence is not None else list(self.shifted.values())
        return all(isinstance(view, str) for view in views)

    def to_json(self) -> dict[str, object]:
        found: dict[str, object] = {
            "name": self.item.name,
            "kind": self.item.kind,
            "from": self.origin or "poolzoo",
            "out_features": self.out_features,
            "parameters": self.parameters,
        }
        if isinstance(self.influence, influence.Influence):
            found["half"] = self.influence.half
        elif self.influence is not None:
            found["error"] = self.influence
        rms = {str(stride): view.rms for stride, view in self.shifted.items() if not isinstance(view, str)}
        errors = {str(stride): view for stride, view in self.shifted.items() if isinstance(view, str)}
        return found | ({"rms": rms} if rms else {}) | ({"error": errors} if errors else {})


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
    item, built_in = entry.item, entry.source.tier == "built-in"
    assert isinstance(item, spec.Pooling)
    state = isolation.GlobalState()
    try:
        known = measured.of(item.kind, item.name) if built_in else measured.Measured()
        card = Card(item, "" if built_in else entry.source.dist, known)
        resolved = _attempt(lambda: _resolve(catalog, entry, item))
        if isinstance(resolved, str):
            views: dict[int, shifted.Shifted | str] = dict.fromkeys(shifted.STRIDES, resolved)
            return replace(card, influence=resolved) if item.kind == "global" else replace(card, shifted=views)
        sizes = _attempt(partial(cost.layer_size, resolved))
        if not isinstance(sizes, str):
            card = replace(card, out_features=sizes.out_features[CHANNELS], parameters=sizes.parameters[CHANNELS])
        if item.kind == "global":
            return replace(card, influence=_attempt(partial(influence.look, resolved, features)))
        strides = shifted.STRIDES
        return replace(card, shifted={n: _attempt(partial(shifted.look, resolved, photograph, n)) for n in strides})
    finally:
        state.restore()


def _resolve(catalog: loader.Catalog, entry: loader.Entry, item: spec.Pooling) -> loader.Resolved:
    """The pooling of an entry, by its bare name where it is unique: some file names cannot be typed before it."""
    found = catalog.pooling(item.name, item.kind)
    return found if found.entry is entry else catalog.pooling(f"{entry.source.dist}:{item.name}", item.kind)


def _attempt(function: Callable[[], T]) -> T | str:
    """The result of a plugin's code, run with limits of time and memory; or its error in one line."""
    found, error = isolation.call(function)
    if error is None:
        return found  # type: ignore[return-value]
    try:
        text = one_line(str(error), 300)
    except Exception:  # an exception whose own text raises
        text = ""
    return text if text and isinstance(error, ValueError) else f"{type(error).__name__}: {text}".removesuffix(": ")
