"""Variants and trials of a comparison: the poolings that are typed, their sweeps, all combinations. Needs no torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from poolzoo.common import files
from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader, spec
from poolzoo.plugin.grammar import parse_spec, suggest

MAX_SWEEP: Final = 10_000  # poolings that one sweep may mean
NONE: Final = "none"  # among local poolings, the backbone's own
GEOMETRY: Final = ("window", "stride", "padding")  # options that every local pooling takes beside its own


@dataclass(frozen=True)
class Variant:
    """One row of the table: a backbone with a global and perhaps a local pooling, as they were typed."""

    backbone: str
    pool: str
    local_pool: str | None = None

    @property
    def name(self) -> str:
        """Its name among variants with the same backbone."""
        return f"{self.pool} + {self.local_pool}" if self.local_pool else self.pool

    @property
    def key(self) -> str:
        """A unique name for files: readable, with a hash."""
        text = f"{self.backbone} {self.pool} {self.local_pool or NONE}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        return f"{files.slug(text)[:60]}-{digest}"


@dataclass(frozen=True)
class Trial:
    """A variant, trained from one seed."""

    variant: Variant
    seed: int

    @property
    def key(self) -> str:
        return f"{self.variant.key}-seed{self.seed}"


def identity(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A pooling whatever the order of its options, without its distribution, which settings of a run may name.

    Raises:
        UsageError: It does not follow the grammar.
    """
    found = parse_spec(text)
    return found.name, tuple(sorted(found.options.items()))


def variants(pools: str, local_pools: str | None, backbones: str, *, options_known: bool = False) -> list[Variant]:
    """Every combination, backbones outermost, in the order in which they were typed.

    Args:
        pools: Global poolings: specs with commas between them and `|` between the values of a sweep, or `all`.
        local_pools: Local ones likewise, `none` among them for the backbone's own; None for that alone.
        backbones: Backbones, with commas between them.
        options_known: Whether their options were checked before: checking imports the poolings, and torch with them.

    Raises:
        UsageError: A name or an option is unknown, or the same thing is named twice.
    """
    locals_: list[str | None] = [None]
    if local_pools is not None:
        of_text = specs(local_pools, "local", options_known=options_known)
        locals_ = [None if one == NONE else one for one in of_text]
    globals_ = specs(pools, "global", options_known=options_known)
    found = [Variant(backbone, pool, local) for backbone, local, pool in product(_split(backbones), locals_, globals_)]
    if twice := {one.name for one in found if found.count(one) > 1}:
        raise UsageError(f"{', '.join(sorted(twice))} is named twice", "name each once; several seeds are --seeds N")
    return found


def specs(text: str, kind: spec.Kind, *, options_known: bool = False) -> list[str]:
    """The poolings that a text names, with sweeps expanded: `avg,gem:p=2|3,learnable=false` are three.

    A piece with `=` and no `:` belongs to the pooling before it.

    Raises:
        UsageError: A name or an option is unknown.
    """
    catalog = loader.catalog()
    poolings = [entry.item for entry in catalog.select(spec.Pooling) if isinstance(entry.item, spec.Pooling)]
    names = [pooling.name for pooling in poolings if pooling.kind == kind]
    found: list[str] = []
    for one in named(text):
        found += sorted(dict.fromkeys(names)) if one == "all" else [one]
    for one in found:
        if not (kind == "local" and one == NONE):
            _require_known(one, kind, options_known=options_known)
    return found


def named(text: str) -> list[str]:
    """The poolings that a text names, with sweeps expanded and `all` as it is; whether they exist is not asked.

    Raises:
        UsageError: It is not a list of poolings.
    """
    return [one for piece in _pieces(text) for one in _expand(piece)]


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for piece in _split(text):
        if "=" in piece and ":" not in piece:
            if not pieces:
                raise UsageError(f"{piece!r} is an option without a pooling", "such as gem:p=4")
            pieces[-1] += ("," if ":" in pieces[-1] else ":") + piece
        else:
            pieces.append(piece)
    return pieces


def _split(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{text!r} names nothing between two commas", "such as avg,max")
    return parts


def _expand(text: str) -> list[str]:
    """The four poolings of `gem:p=2|3,eps=1|2`."""
    name, colon, options = text.partition(":")
    if "=" not in options:  # `dist:name`, perhaps with options behind another colon
        head, second, options = options.partition(":")
        name, colon = f"{name}{colon}{head}", second
    if "|" not in options:
        return [text]
    ranges = []
    for option in options.split(","):
        key, _, values = option.partition("=")
        ranges.append([f"{key}={value}" for value in values.split("|")])
    if (count := math.prod(map(len, ranges))) > MAX_SWEEP:
        text = f"{text[:60]!r} means {count:,} poolings, and {MAX_SWEEP:,} are the most"
        raise UsageError(text, "give fewer values between the |")
    return [f"{name}{colon}{','.join(chosen)}" for chosen in product(*ranges)]


def _require_known(text: str, kind: spec.Kind, *, options_known: bool) -> None:
    """Raises UsageError where there is no such pooling or, unless they are known, no such option of it."""
    if options_known:
        loader.catalog().find_pooling(text, kind)
        return
    if kind == "local":
        wanted = parse_spec(text)
        rest = {key: value for key, value in wanted.options.items() if key not in GEOMETRY}
        name = f"{wanted.dist}:{wanted.name}" if wanted.dist else wanted.name
        text = f"{name}:{','.join(f'{key}={value}' for key, value in rest.items())}" if rest else name
    loader.catalog().pooling(text, kind)


def find_baseline(text: str | None, found: Sequence[Variant]) -> Variant:
    """The variant that the others are compared with: by its name, its pooling, or its local pooling; else the first.

    Raises:
        UsageError: None has that name.
    """
    if text is None:
        return found[0]
    names_of = [(one, (one.name, one.pool, one.local_pool or NONE)) for one in found]
    for place in range(3):
        chosen = next((one for one, names in names_of if names[place] == text), None)
        if chosen is not None:
            return chosen
    names = [one.name for one in found]
    raise UsageError(
        f"--baseline {text!r} is not among what is compared", suggest(text, names) or f"there are: {', '.join(names)}"
    )
