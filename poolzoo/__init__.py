"""poolzoo: any pooling strategy in any vision backbone, fine-tuned, measured, and shipped as a verified ONNX file.

Importing this package imports no torch; the functions below do when they are called.
"""

from __future__ import annotations

from poolzoo._version import __version__
from poolzoo.artifacts.loading import load
from poolzoo.model.api import create_model, create_pooling
from poolzoo.plugin.listing import list_backbones, list_poolings
from poolzoo.plugin.loader import load_plugins
from poolzoo.plugin.spec import API_VERSION, Backbone, BackboneFamily, Dataset, Pooling, hookimpl


def __getattr__(name: str) -> object:
    if name == "testing":  # imports torch, so only when somebody asks for it
        import importlib

        return importlib.import_module("poolzoo.testing")
    raise AttributeError(f"module 'poolzoo' has no attribute {name!r}")


__all__ = [
    "API_VERSION",
    "Backbone",
    "BackboneFamily",
    "Dataset",
    "Pooling",
    "__version__",
    "create_model",
    "create_pooling",
    "hookimpl",
    "list_backbones",
    "list_poolings",
    "load",
    "load_plugins",
]
