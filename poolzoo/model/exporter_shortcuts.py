"""Leaves out work of torch's exporter whose result nothing reads. The graph is the same with and without it.

Two of the shortcuts replace something private of another library. Where a release lacks it, the exporter does all its
work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

DISPATCH_KEY: Final = "CompositeImplicitAutograd"
GPU_COMPILERS: Final = ("triton", "cuda")  # packages that torch's exporter imports, and never calls


class _KnownDomain(NamedTuple):
    """What the exporter reads of a traced function's signature."""

    domain: str


@contextmanager
def shortcuts() -> Iterator[None]:
    """Within it, torch's exporter takes a quarter less time for a small network."""
    with _unparsed_signatures(), _operators_listed_once(), _no_compilers_for_gpus():
        yield


@contextmanager
def _unparsed_signatures() -> Iterator[None]:
    """Within it, onnxscript does not parse the source of 500 functions, of which torch's exporter reads the domain."""
    try:
        from onnxscript import values

        traced: Any = values.TracedOnnxFunction
        parsed = traced.function_ir
    except (ImportError, AttributeError):
        yield
        return
    traced.function_ir = property(lambda function: _KnownDomain(function.opset.domain))
    try:
        yield
    finally:
        traced.function_ir = parsed


@contextmanager
def _operators_listed_once() -> Iterator[None]:
    """Within it, torch looks composite operators up again only where one was registered since, and not 60 times."""
    try:
        from torch._C import _dispatch_get_registrations_for_dispatch_key as registered
        from torch._export import utils

        look_up: Callable[[], None] = utils._materialize_cpp_cia_ops
    except (ImportError, AttributeError):
        yield
        return
    known: Any = None

    def look_up_new() -> None:
        nonlocal known
        found = registered(DISPATCH_KEY)
        if found != known:
            look_up()
            known = found

    utils._materialize_cpp_cia_ops = look_up_new
    try:
        yield
    finally:
        utils._materialize_cpp_cia_ops = look_up


@contextmanager
def _no_compilers_for_gpus() -> Iterator[None]:
    """Within it, where there is no GPU, compilers for GPUs cannot be imported, as where they are not installed.

    They take 80 MB of memory. What is imported already stays.
    """
    import torch

    hidden = [] if torch.accelerator.is_available() else [name for name in GPU_COMPILERS if name not in sys.modules]
    hide: dict[str, Any] = dict.fromkeys(hidden)  # None: an import raises ModuleNotFoundError
    sys.modules.update(hide)
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
