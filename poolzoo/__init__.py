"""poolzoo: any pooling strategy in any vision backbone, fine-tuned, measured, and shipped as a verified ONNX file.

Importing this package imports nothing else, not even of Python: each name below is imported when it is first used.
`python -m poolzoo` relies on it: a `typing.py` in the current folder would be found before Python's own.
"""

from poolzoo._version import __version__

TYPE_CHECKING = False  # True to type checkers

if TYPE_CHECKING:
    from poolzoo.artifacts.loading import load
    from poolzoo.common.errors import UsageError
    from poolzoo.model.api import create_model, create_pooling
    from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names
    from poolzoo.plugin.listing import list_backbones, list_poolings
    from poolzoo.plugin.loader import load_plugins
    from poolzoo.plugin.spec import (
        API_VERSION,
        Backbone,
        BackboneFamily,
        Dataset,
        DatasetSource,
        GraphForm,
        Pooling,
        Runtime,
        hookimpl,
    )

_MODULES = {
    "API_VERSION": "plugin.spec",
    "Backbone": "plugin.spec",
    "BackboneFamily": "plugin.spec",
    "Dataset": "plugin.spec",
    "DatasetSource": "plugin.spec",
    "FileStorage": "plugin.image_index",
    "GraphForm": "plugin.spec",
    "ImageIndex": "plugin.image_index",
    "Names": "plugin.image_index",
    "Pooling": "plugin.spec",
    "Runtime": "plugin.spec",
    "UsageError": "common.errors",
    "create_model": "model.api",
    "create_pooling": "model.api",
    "hookimpl": "plugin.spec",
    "list_backbones": "plugin.listing",
    "list_poolings": "plugin.listing",
    "load": "artifacts.loading",
    "load_plugins": "plugin.loader",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "testing":
        return import_module("poolzoo.testing")
    if name not in _MODULES:
        raise AttributeError(f"module 'poolzoo' has no attribute {name!r}")
    value = getattr(import_module(f"poolzoo.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "testing"})


__all__ = [
    "API_VERSION",
    "Backbone",
    "BackboneFamily",
    "Dataset",
    "DatasetSource",
    "FileStorage",
    "GraphForm",
    "ImageIndex",
    "Names",
    "Pooling",
    "Runtime",
    "UsageError",
    "__version__",
    "create_model",
    "create_pooling",
    "hookimpl",
    "list_backbones",
    "list_poolings",
    "load",
    "load_plugins",
]
