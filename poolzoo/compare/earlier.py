"""Variance components of finished comparisons, kept in the cache directory, and which of them are like a planned one.

`<cache>/variances/<key>.json` holds one backbone of one comparison: about a kilobyte that outlives its runs. A
comparison writes it when it ends, wherever its own directory is, and again when it is resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import files, json_reader, output
from poolzoo.common.errors import CheckFailed, explain
from poolzoo.compare import resolution
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Variant
from poolzoo.compare.records import TrialRecords
from poolzoo.compare.resolution import VarianceComponents
from poolzoo.data import disk, identity
from poolzoo.data.identity import DataIdentity
from poolzoo.data.source import cache_dir
from poolzoo.train.settings import Settings

# Settings that change neither what is learned nor how much it varies, or that are compared on their own.
NO_RECIPE: Final = frozenset(
    [
        "data",
        "backbone",
        "pool",
        "local_pool",
        "seed",
        "split_seed",
        "device",
        "threads",
        "data_workers",
        "data_cache",
        "plugins",
        "skip_broken",
        "deterministic",
        "feature_cache",
        "calibration",
        "validation",
        "reader",
        "final_norm",
        "freeze",
        "pretrained",
        "weights",
        "test_fraction",
    ]
)


@dataclass(frozen=True)
class Conditions:
    """What decides how much accuracies vary.

    Attributes:
        data: As `--data` names it.
        test: A digest of the test images.
        backbone: As it was typed.
        regime: "frozen", "fine-tuned" or "from scratch"; comparisons of different ones are never alike.
        varied: "global poolings", "local poolings" or "both".
        recipe: The other settings that were given, by name.
    """

    data: str
    test: str
    backbone: str
    regime: str
    varied: str
    recipe: Mapping[str, object]

    @classmethod
    def of(cls, settings: Settings, backbone: str, variants: Sequence[Variant], data: DataIdentity) -> Conditions:
        """The conditions of the variants on one backbone."""
        several = {
            "global poolings": len({one.pool for one in variants}) > 1,
            "local poolings": len({one.local_pool for one in variants}) > 1,
        }
        varied = [name for name, holds in several.items() if holds]
        return cls(
            data=settings.data,
            test=_digest(data),
            backbone=backbone,
            regime=regime_of(settings),
            varied=varied[0] if len(varied) == 1 else "both",
            recipe={
                one.name: value
                for one in fields(settings)
                if one.name not in NO_RECIPE and (value := getattr(settings, one.name)) != one.default
            },
        )

    def differences(self, other: Conditions) -> Differences | None:
        """How `other` differs; None where it says nothing about these conditions."""
        if self.regime != other.regime or (self.data != other.data and self.test != other.test):
            return None
        recipe = sorted(
            name for name in {*self.recipe, *other.recipe} if self.recipe.get(name) != other.recipe.get(name)
        )
        return Differences(
            images=self.test != other.test,
            varied=self.varied != other.varied,
            backbone=self.backbone != other.backbone,
            recipe=tuple(recipe),
        )


@dataclass(frozen=True)
class Differences:
    """In what two comparisons of one data set and regime differ: test images, kind of pooling, backbone, recipe."""

    images: bool
    varied: bool
    backbone: bool
    recipe: tuple[str, ...]

    @property
    def rank(self) -> tuple[bool, bool, bool, bool]:
        """The smaller, the more alike."""
        return self.images, self.varied, self.backbone, bool(self.recipe)

    def describe(self) -> str:
        """The differences in words."""
        found = [
            ("other test images", self.images),
            ("poolings of another kind", self.varied),
            ("another backbone", self.backbone),
            (f"other {', '.join(name.replace('_', ' ') for name in self.recipe)}", bool(self.recipe)),
        ]
        words = [text for text, holds in found if holds]
        return ", ".join(words) if words else "the same test images, backbone and settings"


@dataclass(frozen=True)
class EarlierComparison:
    """One backbone of a finished comparison.

    Attributes:
        path: Directory of the comparison, which may be gone; "" for a pilot, which keeps none.
        ended: ISO 8601.
        seeds: The most that a variant has.
        variants: How many have finished trials.
        conditions, components: What was trained, and how much it varied.
    """

    path: str
    ended: str
    seeds: int
    variants: int
    conditions: Conditions
    components: VarianceComponents

    @property
    def name(self) -> str:
        return self.path or f"a pilot of {self.ended}"

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> EarlierComparison | None:
        """Reads what `to_json` gave; None where it is damaged."""
        found = json_reader.mapping(value)
        known = json_reader.mapping(found.get("conditions"))
        components = VarianceComponents.from_json(found.get("components"))
        if components is None:
            return None
        texts = {name: str(known.get(name)) for name in ("data", "test", "backbone", "regime", "varied")}
        return cls(
            path=str(found.get("path") or ""),
            ended=str(found.get("ended")),
            seeds=json_reader.integer(found.get("seeds")) or 0,
            variants=json_reader.integer(found.get("variants")) or 0,
            conditions=Conditions(**texts, recipe=json_reader.mapping(known.get("recipe"))),
            components=components,
        )


def regime_of(settings: Settings) -> str:
    """What is trained from which weights: "frozen", "fine-tuned" or "from scratch"."""
    if settings.freeze == "backbone":
        return "frozen"
    return "fine-tuned" if settings.pretrained or settings.weights else "from scratch"


def _digest(data: DataIdentity) -> str:
    test = data.test
    whole = hashlib.sha256(np.ascontiguousarray(test.digests).tobytes())
    whole.update(np.ascontiguousarray(test.labels).astype("<i8").tobytes())
    return whole.hexdigest()[:16]


def remember(config: ComparisonConfig, records: TrialRecords, out: Path, path: str | None = None) -> None:
    """Keeps the variance components of a finished comparison; where they cannot be kept, nothing happens.

    Args:
        config: What was compared.
        records: Its trials.
        out: Its directory.
        path: What later comparisons call it; None for that directory.
    """
    from poolzoo.compare.table import correct

    try:
        data = DataIdentity.load(out / identity.FILE)
        if data is None or "test" not in data.splits or not disk.limit():
            return
        name = str(out.resolve()) if path is None else path
        for backbone in dict.fromkeys(variant.backbone for variant in config.variants):
            variants = [one for one in config.variants if one.backbone == backbone]
            right: dict[str, dict[int, np.ndarray]] = {}
            for one in config.trials:
                if one.variant in variants and records.done(one):
                    right.setdefault(one.variant.name, {})[one.seed] = correct(records[one].path)
            found = resolution.components(right, config.baseline_variant.name) if _is_complete(right, config) else None
            if found is None:
                continue
            kept = EarlierComparison(
                path=name,
                ended=datetime.now(UTC).isoformat(timespec="seconds"),
                seeds=max(map(len, right.values())),
                variants=len(right),
                conditions=Conditions.of(config.settings, backbone, variants, data),
                components=found,
            )
            files.make_private(_folder())
            files.write_json(_folder() / f"{_key(kept)}.json", kept.to_json())
    except (OSError, CheckFailed) as error:
        output.detail(f"the variances of this comparison cannot be kept: {explain(error).message}")


def _is_complete(right: Mapping[str, Mapping[int, np.ndarray]], config: ComparisonConfig) -> bool:
    """Whether the baseline and another variant were tested on the same images, two or more."""
    sizes = {len(row) for rows in right.values() for row in rows.values()}
    return config.baseline_variant.name in right and len(right) > 1 and len(sizes) == 1 and min(sizes) > 1


def _folder() -> Path:
    return cache_dir() / "variances"


def _key(kept: EarlierComparison) -> str:
    """One of each directory and backbone, and of pilots one of each set of conditions."""
    known = kept.conditions
    text = kept.path or repr((known.data, known.test, known.regime, known.varied, sorted(known.recipe.items())))
    return hashlib.sha256(f"{text} {known.backbone}".encode("utf-8", "surrogateescape")).hexdigest()[:24]


def alike(wanted: Conditions) -> list[tuple[EarlierComparison, Differences]]:
    """The earlier comparisons that are most like a planned one, all equally so; empty where there is none."""
    found = []
    for file in sorted(_folder().glob("*.json")):
        try:
            one = EarlierComparison.from_json(files.read_json(file))
        except (OSError, CheckFailed):
            continue  # another process is replacing it, or it is damaged
        differences = wanted.differences(one.conditions) if one is not None else None
        if one is not None and differences is not None:
            found.append((one, differences))
    best = min((differences.rank for _, differences in found), default=None)
    return sorted(
        ((one, differences) for one, differences in found if differences.rank == best), key=lambda pair: pair[0].ended
    )
