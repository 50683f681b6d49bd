"""What torch's exporter computes anew for every export though it never changes, kept for all tests of a process.

An export of one layer takes less than half as long with it, and the tests export hundreds of times.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest


def keep(patch: pytest.MonkeyPatch) -> None:
    """Keeps signatures, operators and decompositions. What another version of torch lacks is computed as before."""
    from onnxscript import values
    from torch import _ops
    from torch._export import utils
    from torch.onnx._internal.exporter import _decomp, _registration

    read = values.TracedOnnxFunction.function_ir.fget
    patch.setattr(values.TracedOnnxFunction, "function_ir", property(functools.cache(read)))
    for owner, name, kept in (
        (_registration.ONNXRegistry, "from_torchlib", _registry),
        (_decomp, "create_onnx_friendly_decomposition_table", _decompositions),
        (utils, "_materialize_cpp_cia_ops", _operators),
        (_ops.OperatorBase, "py_impl", _kernels),
    ):
        if hasattr(owner, name):
            patch.setattr(owner, name, kept(getattr(owner, name)))


def _registry(read: Callable[..., Any]) -> Callable[..., Any]:
    """One registry an opset. No test adds operators to it."""
    return staticmethod(functools.cache(read))


def _decompositions(read: Callable[..., dict[Any, Any]]) -> Callable[..., dict[Any, Any]]:
    """One table for each set of operators. The exporter takes entries out of it, and gets a copy."""
    cached = functools.cache(read)
    return lambda operators: dict(cached(frozenset(operators)))


def _kernels(register: Callable[..., Any]) -> Callable[..., Any]:
    """The same registration of a kernel, ten thousand times an export, without new types of its annotations."""
    from torch._C import DispatchKey

    def register_quickly(operator: Any, key: Any) -> Callable[..., Any]:
        if not isinstance(key, DispatchKey) or key == DispatchKey.Python:
            return register(operator, key)

        def inner(kernel: Any) -> Any:
            if key in operator.py_kernels:
                return register(operator, key)(kernel)  # which refuses it
            operator.py_kernels[key] = kernel
            operator._dispatch_cache.clear()
            return kernel

        return inner

    return register_quickly


def _operators(load: Callable[[], None]) -> Callable[[], None]:
    """Loads operators where there are more than at the last time."""
    import torch

    loaded = 0

    def load_new() -> None:
        nonlocal loaded
        count = len(torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd"))
        if count != loaded:
            load()
            loaded = count

    return load_new
