"""Reads state dicts from files; never runs code in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from poolzoo.common import files
from poolzoo.common.errors import CheckFailed, PoolzooError, UsageError, reason

StateDict = dict[str, Tensor]
CHECKPOINT_KEYS = ("state_dict", "model", "state_dict_ema", "model_ema", "module")  # of training scripts
WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and of torch.compile


def require_weights(path: Path) -> None:
    """Raises where there is no file.

    Raises:
        UsageError: There is no such file.
    """
    if not path.is_file():
        raise UsageError(f"weights file {str(path)!r} {files.absence(path)}", "give a .safetensors or .pth file")


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a `.safetensors` or `.pth` file.

    Raises:
        UsageError: There is no such file.
        CheckFailed: The file cannot be read as weights.
    """
    require_weights(path)
    try:
        if path.suffix == ".safetensors":
            return {_bare(key): value for key, value in load_tensors(path.read_bytes(), str(path)).items()}
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except PoolzooError:
        raise
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckFailed(f"{path} is damaged or holds no weights: {reason(error)}", "fetch the file again") from error
    except Exception as error:  # torch raises pickle's own errors for anything beyond tensors
        raise CheckFailed(
            f"{path} holds more than tensors, and is not loaded: {type(error).__name__}", "save a state dict"
        ) from error
    for key in CHECKPOINT_KEYS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckFailed(f"{path} is not a state dict of tensors", "save model.state_dict()")
    return {_bare(key): value for key, value in loaded.items()}


def load_tensors(content: bytes, name: str, hint: str = "fetch the file again") -> StateDict:
    """The tensors of a safetensors file, by name in alphabetical order.

    The format holds no code, and no tensor outside of the file.

    Args:
        content: The file's bytes.
        name: Of the file, for messages.
        hint: What there is to do where it is damaged.

    Raises:
        CheckFailed: It is no such file, or damaged.
    """
    try:
        return dict(sorted(load(content).items()))
    except MemoryError:
        raise
    except Exception as error:  # safetensors has a class of its own; torch raises several for odd shapes
        raise CheckFailed(f"{name} holds no weights, or is damaged: {reason(error, 200)}", hint) from error


def weights_digest(module: nn.Module) -> str:
    """A digest of the names and values of the parameters and buffers of a module."""
    weights = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return weights.hexdigest()


def _bare(key: str) -> str:
    for wrapper in WRAPPER_PREFIXES:
        key = key.removeprefix(wrapper)
    return key
