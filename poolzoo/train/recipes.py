"""Named sets of settings for `--recipe`, which options override. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from poolzoo.common.errors import UsageError
from poolzoo.plugin.grammar import suggest


@dataclass(frozen=True)
class Recipe:
    """A named set of settings.

    Attributes:
        name: The value of `--recipe`.
        summary: Its purpose, in one line.
        settings: Settings that differ from the defaults, by name.
    """

    name: str
    summary: str
    settings: Mapping[str, str | int | float]


RECIPES: Final = (
    Recipe("fast", "from scratch, a good network in minutes", {"optimizer": "muon"}),
    Recipe(
        "strong",
        "from scratch, four times as long, with more augmentation",
        {"optimizer": "muon", "epochs": 40, "mixup": 0.2, "ema": 0.99},
    ),
    Recipe(
        "tune",
        "from weights: a high learning rate for the head, low ones for the first stages",
        {"head_lr_mult": 5.0, "layer_decay": 0.9, "lr": 1e-3, "epochs": 6},
    ),
    Recipe(
        "tune-cnn",
        "from weights of a convolutional network: Muon for its filters, and longer than tune",
        {"optimizer": "muon", "lr": 2e-3, "head_lr_mult": 5.0, "layer_decay": 0.9, "epochs": 9},
    ),
    Recipe(
        "probe",
        "the head only, on cached features of a frozen backbone",
        {"freeze": "backbone", "epochs": 30, "views": 1},
    ),
)


def find_recipe(name: str) -> Recipe | None:
    """The recipe of that name; None if there is none."""
    return next((recipe for recipe in RECIPES if recipe.name == name), None)


def recipe_settings(name: str) -> Mapping[str, str | int | float]:
    """The settings of a recipe.

    Raises:
        UsageError: There is no such recipe.
    """
    recipe = find_recipe(name)
    if recipe is None:
        names = [each.name for each in RECIPES]
        raise UsageError(f"there is no recipe {name!r}", suggest(name, names) or f"there are {', '.join(names)}")
    return recipe.settings
