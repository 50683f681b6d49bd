"""Levels of augmentation for `--augment`: what each one changes, and from which published recipe. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from poolzoo.train.settings import Settings

# Of timm, torchvision and the Hugging Face examples, also when they fine-tune.
CROP_SCALE: Final = "0.08,1"


@dataclass(frozen=True)
class Level:
    """A named amount of augmentation.

    Every level but `none` has horizontal flips, and moves images: random resized crops of photographs, shifts of small
    images.

    Attributes:
        name: The value of `--augment`.
        source: The recipe that it comes from.
        settings: Settings of the other changes, by name.
    """

    name: str
    source: str
    settings: Mapping[str, str | float]


LEVELS: Final = (
    Level("none", "", {}),
    Level("light", "the usual training on CIFAR-10 (He et al., 2015, arXiv 1512.03385)", {}),
    Level("standard", "timm's train.py without options", {"color_jitter": 0.4}),
    Level(
        "strong",
        "the fine-tuning of ConvNeXt (Liu et al., 2022, arXiv 2201.03545), with TrivialAugment for RandAugment",
        {"policy": "trivial", "erasing": 0.25},
    ),
)
BY_NAME: Final = {level.name: level for level in LEVELS}
NOTHING: Final[Mapping[str, str | float]] = {
    "crop_scale": "none",
    "policy": "none",
    "color_jitter": 0.0,
    "erasing": 0.0,
}


def with_level(settings: Settings, *, photographs: bool) -> Settings:
    """The settings with a level, and with its values where the user gave none.

    Args:
        settings: As the user gave them.
        photographs: Whether the files are larger than what the network sees, or of mixed sizes.
    """
    name = settings.augment or ("standard" if photographs else "light")
    values = {**NOTHING, **BY_NAME[name].settings}
    # A given shift is a choice against crops, which shift images themselves.
    if photographs and name in ("standard", "strong") and not settings.shift:
        values["crop_scale"] = CROP_SCALE
    unset = {key: value for key, value in values.items() if getattr(settings, key) is None}
    return replace(settings, augment=name, **unset)  # type: ignore[arg-type]  # the values have their settings' types
