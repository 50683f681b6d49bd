"""What layers do to each other in one process: settings of torch that they change, tensors that they share."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

OPERATIONS: Final = 40  # after which a call is not interrupted any more: loops repeat themselves
PATIENCE: Final = 0.5  # seconds after which the other call is taken to wait for a lock of this one


class _Setting(NamedTuple):
    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]


SETTINGS: Final = (
    _Setting("number of threads", torch.get_num_threads, torch.set_num_threads),
    _Setting("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Setting("grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    _Setting(
        "deterministic mode",
        torch.are_deterministic_algorithms_enabled,
        lambda on: torch.use_deterministic_algorithms(on),
    ),
    _Setting("matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Asserts that the block changes no setting of torch, and restores them.

    Raises:
        AssertionError: It changes one.
    """
    before = [setting.get() for setting in SETTINGS]
    try:
        yield
        for setting, old in zip(SETTINGS, before, strict=True):
            assert setting.get() == old, f"the {setting.name} of torch was {old}, and is {setting.get()}"
    finally:
        for setting, old in zip(SETTINGS, before, strict=True):
            if setting.get() != old:
                setting.set(old)


class _Interrupted(TorchFunctionMode):
    """Within it, something else runs on another thread after every operation of torch, from beginning to end.

    Two threads may meet in this way at any time. Here they do each time.

    Args:
        other: What runs.
    """

    def __init__(self, other: Callable[[], object]) -> None:
        super().__init__()
        self._other = other
        self._left = OPERATIONS
        self._waiting: threading.Thread | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if self._left:
            self._left -= 1
            thread = threading.Thread(target=self._run, daemon=True)
            thread.start()
            thread.join(PATIENCE)
            if thread.is_alive():  # the layer has a lock, so that no other interrupts it
                self._left, self._waiting = 0, thread
        return found

    def _run(self) -> None:
        try:
            self._other()
        except Exception:  # disturbed by the first layer, whose output shows what they share
            self._left = 0

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        if self._waiting is not None:
            self._waiting.join()


def assert_undisturbed(layer: nn.Module, x: Tensor, other_x: Tensor, words: str) -> None:
    """Asserts that a layer gives bitwise the same while a copy of it computes something else on another thread.

    Args:
        layer: Draws no random numbers.
        x: Its input.
        other_x: The input of the copy.
        words: For the message.

    Raises:
        AssertionError: The output or the gradient of the input differs.
    """
    x = x.clone().requires_grad_()
    other = copy.deepcopy(layer)
    expected = _output_and_gradient(layer(x), x)
    with _Interrupted(lambda: other(other_x)):
        y = layer(x)
    found = _output_and_gradient(y, x)
    for name, one, alone in zip(("output", "gradient"), found, expected, strict=True):
        assert torch.equal(one, alone), f"{words}the {name} changes where another layer computes at the same time"


def _output_and_gradient(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return y.detach().clone(), gradient
