"""The candidates of `poolzoo choose`: poolings and backbones where none are named, and the comparisons of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from poolzoo.backbones.available import has_local_weights
from poolzoo.common.errors import UsageError
from poolzoo.compare import grid
from poolzoo.compare.choosing.plan import FROZEN, SCRATCH, Planned
from poolzoo.compare.config import ComparisonConfig
from poolzoo.plugin import loader, spec
from poolzoo.train.settings import Settings

# Heads that win somewhere in docs/results/leaderboard.md, one of each kind.
HEADS: Final = ("avg", "max", "gem", "catavgmax", "std", "bilinear", "spp", "attention")
# From scratch, poolings inside the backbone matter more than heads there, and each costs a whole training.
SCRATCH_HEADS: Final = ("avg",)
LOCALS: Final = ("none", "maxblur", "lse", "gem")
OWN: Final = "nano/resnet"  # whose weights come with the package; it trains from scratch in a minute
PRETRAINED: Final = ("lite0", "timm/resnet18", "torchvision/resnet18", "timm/mobilenetv3_small_100")
BASELINE: Final = "avg"  # the mean, what most networks have


@dataclass(frozen=True)
class Candidates:
    """What is to be compared, as it was typed; None for a default.

    Attributes:
        pools: Global poolings.
        local_pools: Local poolings, which are tried from scratch only: the weights of a backbone fit its own ones.
        backbones: Backbones.
    """

    pools: str | None = None
    local_pools: str | None = None
    backbones: str | None = None


def planned(candidates: Candidates, settings: Settings, seeds: int, alpha: float) -> tuple[list[Planned], list[str]]:
    """The comparisons of all candidates, and what is not tried, in sentences.

    Args:
        candidates: What is to be compared.
        settings: What all comparisons share.
        seeds: Of every variant.
        alpha: The level of each comparison.

    Raises:
        UsageError: A name is unknown, or named twice.
    """
    backbones = _backbones(candidates.backbones)
    given = candidates.pools is not None or candidates.local_pools is not None
    heads = candidates.pools or (BASELINE if given else ",".join(HEADS))
    scratch_heads = candidates.pools or (BASELINE if given else ",".join(SCRATCH_HEADS))
    locals_ = candidates.local_pools or ("" if given else ",".join(LOCALS))
    if locals_ and grid.NONE not in grid.specs(locals_, "local"):
        locals_ = f"{grid.NONE},{locals_}"  # the backbone's own, to compare with

    def comparison(backbone: str, pools: str, local_pools: str | None, **changes: object) -> ComparisonConfig:
        names = grid.specs(pools, "global")
        return ComparisonConfig(
            pools=pools,
            local_pools=local_pools or None,
            backbones=backbone,
            seeds=seeds,
            baseline=BASELINE if BASELINE in names else names[0],
            robustness_samples=0,
            export_top=0,
            alpha=alpha,
            settings=replace(settings, **changes),  # type: ignore[arg-type]
        )

    found = []
    for backbone in backbones:
        frozen = comparison(backbone, heads, None, freeze="backbone", pretrained=True)
        found.append(Planned(FROZEN, frozen))
    for backbone in backbones if candidates.backbones else [OWN]:
        found.append(Planned(SCRATCH, comparison(backbone, scratch_heads, locals_)))
    for one in found:
        _ = one.config.variants  # raises where a name is unknown
    return found, _not_tried(found)


def _backbones(text: str | None) -> list[str]:
    """The backbones that are named; else our own small one, and the first with published weights on this machine."""
    if text is None:
        return [OWN, *[name for name in PRETRAINED if has_local_weights(name)][:1]]
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UsageError(f"--backbone {text!r} names nothing between two commas", "such as nano/resnet,timm/resnet18")
    for name in names:
        loader.catalog().backbone(name)
    return list(dict.fromkeys(names))


def _not_tried(found: Sequence[Planned]) -> list[str]:
    """What a reader may miss among the candidates."""
    catalog = loader.catalog()
    lines = ["Fine-tuning a whole pretrained backbone was not tried; it needs longer trainings."]
    for kind, option in (("global", "--pool"), ("local", "--local-pool")):
        every = {
            entry.item.name
            for entry in catalog.select(spec.Pooling)
            if isinstance(entry.item, spec.Pooling) and entry.item.kind == kind
        }
        tried = {
            name.partition(":")[0]
            for one in found
            for variant in one.config.variants
            for name in [variant.pool if kind == "global" else variant.local_pool]
            if name is not None
        }
        if rest := len(every - tried):
            lines.append(f"{rest} other {kind} poolings were not tried; {option} names them.")
    return lines
