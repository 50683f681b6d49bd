"""A plugin whose backbone gives the image itself, so that the pooling decides what a network sees."""

from typing import Final

PIXELS: Final = """
from poolzoo import Backbone, hookimpl


def build(*, pretrained: bool = False):
    from torch import nn
    return nn.Identity()


@hookimpl
def poolzoo_backbones():
    yield Backbone(name="pixels", summary="the image itself is the map", build=build, layout="NCHW")
"""
