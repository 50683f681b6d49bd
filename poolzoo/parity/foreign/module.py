"""The torch module that MODULE:FUNCTION names: imported, built, and checked before anything is compared with it.

Nothing is imported but what is named: MODULE is a module that Python finds, or the path of a Python file. The folder of
such a file is not searched for other modules.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from torch import nn

from poolzoo.common import files, python_file
from poolzoo.common.errors import CheckFailed, UsageError, reason

ENDING: Final = ".py"
LOADED: Final = "poolzoo_against"  # the name of a module that is read from a file
# Layers that compute something else in training mode, by a part of the name of their class.
RANDOM: Final = ("Dropout", "DropPath", "DropBlock", "StochasticDepth", "BatchNorm", "InstanceNorm", "RReLU")


def load(reference: str) -> nn.Module:
    """The module of `package.module:function` or `path/model.py:function`, in eval mode and float32, on the CPU.

    Raises:
        UsageError: The reference is none, or names nothing.
        CheckFailed: The function raises, or gives no module that is ready for inference.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        text = f"--against {reference!r} is not MODULE:FUNCTION"
        raise UsageError(text, "such as --against model.py:build or --against package.models:build")
    build = _function(reference, place, name)
    try:
        module = build()
    except (Exception, SystemExit) as error:
        text = f"{reference} raises {reason(error, 200)}"
        raise CheckFailed(text, "it is called without arguments; POOLZOO_DEBUG=1 shows the traceback") from error
    if not isinstance(module, nn.Module):
        text = f"{reference} gives {type(module).__name__}, which is no torch.nn.Module"
        raise CheckFailed(text, "the function must return the network")
    if random := _in_training_mode(module):
        text = f"{reference} gives a module in training mode: {random} computes something else there"
        raise CheckFailed(text, "call .eval() on it before it is returned")
    return module.eval().to("cpu").float().requires_grad_(False)


def _function(reference: str, place: str, name: str) -> Callable[[], Any]:
    module = _module(reference, place)
    try:
        build = getattr(module, name)
    except AttributeError:
        known = sorted(one for one, value in vars(module).items() if callable(value) and not one.startswith("_"))
        hint = f"it has {', '.join(known[:8])}" if known else "it has no functions"
        raise UsageError(f"{place} has no function {name!r}", hint) from None
    if not callable(build):
        raise UsageError(f"{reference} is {type(build).__name__}, which is no function", "it must return the network")
    return build  # type: ignore[no-any-return]


def _module(reference: str, place: str) -> ModuleType:
    if place.endswith(ENDING) or "/" in place:
        return _from_file(Path(place))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name != place and not f"{place}.".startswith(f"{error.name}."):
            raise _failed(place, error) from error
        here = Path(*place.split(".")).with_suffix(ENDING)
        hint = f"{here}:{reference.rpartition(':')[2]} names the file here" if here.is_file() else "is it installed?"
        raise UsageError(f"there is no module {place!r}", hint) from None
    except (Exception, SystemExit) as error:
        raise _failed(place, error) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path} {files.absence(path)}", "give a Python file")
    if path.suffix != ENDING:
        raise UsageError(f"{path} is no Python file", f"its name must end in {ENDING}")
    try:
        return python_file.load(LOADED, str(path))
    except (Exception, SystemExit) as error:
        raise _failed(str(path), error) from error


def _failed(place: str, error: BaseException) -> CheckFailed:
    text = f"{place} cannot be imported: {reason(error, 200)}"
    hint = "fix it; POOLZOO_DEBUG=1 shows the traceback"
    if isinstance(error, ModuleNotFoundError):
        hint = "a file's own folder is not searched: name it in PYTHONPATH"
    return CheckFailed(text, hint)


def _in_training_mode(module: nn.Module) -> str:
    """The first layer in training mode that computes something else there, with its class; "" where there is none."""
    for path, one in module.named_modules():
        kind = type(one).__name__
        if one.training and any(part in kind for part in RANDOM):
            return f"{path or 'it'} ({kind})"
    return ""
