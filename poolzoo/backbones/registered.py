"""The names of the models that timm and torchvision register, read from their source: no torch is imported.

`timm_family` and `torchvision_family` ask the libraries themselves, which takes seconds.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Final

# `@register_model` or `@register_model()`, other decorators, and the function of that name.
_REGISTERED: Final = re.compile(r"^@register_model(?:\(\))?\s*\n(?:@.*\n)*def (\w+)", re.MULTILINE)
_OPTIMIZER: Final = re.compile(r"OptimInfo\(\s*name='(\w+)'")
FAMILIES: Final = ("timm", "torchvision")


def model_names(package: str) -> list[str]:
    """The models of timm or torchvision, sorted; none where the package is not installed."""
    return _found(package, "models/*.py", _REGISTERED)


def optimizer_names() -> list[str]:
    """The optimizers of timm, sorted; none where timm is not installed."""
    return _found("timm", "optim/_optim_factory.py", _OPTIMIZER)


def _found(package: str, pattern: str, what: re.Pattern[str]) -> list[str]:
    place = importlib.util.find_spec(package)  # of a package at the top, this imports nothing
    if place is None or place.origin is None:
        return []
    files = Path(place.origin).parent.glob(pattern)
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    return sorted({name for text in texts for name in what.findall(text)})
