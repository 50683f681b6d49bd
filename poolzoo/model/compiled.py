"""Modules compiled by torch, whose code is kept where no other user can put something in its place."""

from __future__ import annotations

import os
from typing import Final, cast

import torch
from torch import nn

from poolzoo.common import files
from poolzoo.data.source import cache_dir

VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"


def compiled(module: nn.Module, *, dynamic: bool | None = None) -> nn.Module:
    """A module that torch compiles when it is called.

    By default torch keeps the code, and loads it again, in a folder of /tmp whose name anybody can guess.

    Args:
        module: What to compile.
        dynamic: Whether sizes may differ between calls; None to find out.
    """
    if not os.environ.get(VARIABLE):
        place = cache_dir() / "inductor"
        files.make_private(place)
        os.environ[VARIABLE] = str(place.absolute())
    return cast(nn.Module, torch.compile(module, dynamic=dynamic))
