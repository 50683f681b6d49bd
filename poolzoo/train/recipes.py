"""Named sets of settings for `--recipe`: what `finetune` starts from before the options are read. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from poolzoo.common.errors import UsageError
from poolzoo.plugin.grammar import suggest


@dataclass(frozen=True)
class Recipe:
    """Settings that go together.

    Attributes:
        name: What `--recipe` takes.
        summary: What it is for, in one line.
        settings: Values of `Settings` that differ from the defaults.
    """

    name: str
    summary: str
    settings: dict[str, Any]


RECIPES: Final = (
    Recipe("fast", "from scratch, to a good network in minutes", {"optimizer": "muon"}),
    Recipe(
        "strong",
        "from scratch, four times as long, with more augmentation",
        {"optimizer": "muon", "epochs": 40, "mixup": 0.2, "ema": 0.99},
    ),
    Recipe(
        "tune",
        "from weights: the head fast, the first stages slowly",
        {"head_lr_mult": 5.0, "layer_decay": 0.9, "lr": 1e-3, "epochs": 6},
    ),
    Recipe(
        "probe",
        "the head alone, on features of a frozen backbone that are computed once",
        {"freeze": "backbone", "epochs": 30, "views": 1},
    ),
)


def named(name: str) -> Recipe | None:
    """The recipe of that name, if there is one."""
    return next((recipe for recipe in RECIPES if recipe.name == name), None)


def recipe_settings(name: str) -> dict[str, Any]:
    """What a recipe sets.

    Raises:
        UsageError: There is no such recipe.
    """
    found = named(name)
    if found is None:
        names = [recipe.name for recipe in RECIPES]
        raise UsageError(f"no recipe is called {name!r}", suggest(name, names) or f"there are: {', '.join(names)}")
    return dict(found.settings)
