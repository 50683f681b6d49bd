"""Records what torch computes: every operation with its values, its layer and the line of Python that it came from."""

from __future__ import annotations

import linecache
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from poolzoo.model.inference import plain_operators

Network = Callable[..., Any]
"""Takes tensors in the order of a graph's inputs, and returns a tensor or several in the order of its outputs."""

CARRIER: Final = "torch/"  # its frames are not where an operation was written, but how it was carried out
RECORDER: Final = "poolzoo/parity/"


@dataclass(frozen=True)
class Value:
    """A tensor in the arguments of an operation, by its number on the tape."""

    index: int


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        operator: What torch calls it, such as "aten.softmax.int".
        args, kwargs: Its arguments with a `Value` for each tensor.
        outputs: The numbers of its results.
        layer: The path of the innermost module; empty outside of all.
        line: Where it was written, such as "timm/models/resnet.py:536"; empty where nothing but torch is on the stack.
        code: That line's text.
    """

    run: Callable[..., Any]
    operator: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int, ...]
    layer: str
    line: str
    code: str

    def describe(self) -> str:
        """The call with its arguments that are no tensors."""
        given = [*map(_shown, self.args), *(f"{name}={_shown(value)}" for name, value in self.kwargs.items())]
        return f"{self.operator}({', '.join(given)})"

    def arguments(self) -> list[Any]:
        """The numbers and lists of integers in the call."""
        given = [*self.args, *self.kwargs.values()]
        lists = [list(one) for one in given if isinstance(one, list | tuple) and all(isinstance(x, int) for x in one)]
        return [one for one in given if isinstance(one, int | float) and not isinstance(one, bool)] + lists


@dataclass
class Tape:
    """What one call of a network computed, value by value.

    Attributes:
        steps: The operations in their order.
        values: All tensors as they were when they were made: inputs, weights and results.
        makers: The step that made a value, by its number; weights and inputs have none.
        inputs: The numbers of the inputs.
        outputs: The numbers of the network's outputs.
        modules: The number of the output of each module, by path.
    """

    steps: list[Step] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    makers: dict[int, int] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    modules: dict[str, int] = field(default_factory=dict)

    def array(self, index: int) -> np.ndarray:
        """A value as an array."""
        return np.asarray(self.values[index].numpy())

    def step_of(self, index: int) -> Step | None:
        """The operation that made a value."""
        return self.steps[self.makers[index]] if index in self.makers else None

    def reads(self, index: int) -> set[int]:
        """The values that a value was made of; none for weights and inputs."""
        return set(_tensors(self.steps[self.makers[index]])) if index in self.makers else set()

    def steps_between(self, starts: set[int], end: int) -> list[int]:
        """The numbers of the steps that compute a value, back to the values `starts`."""
        wanted: set[int] = set()
        todo = [end]
        while todo:
            value = todo.pop()
            maker = self.makers.get(value)
            if value in starts or maker is None or maker in wanted:
                continue
            wanted.add(maker)
            todo += _tensors(self.steps[maker])
        return sorted(wanted)

    def leaves(self, starts: set[int], end: int) -> set[int]:
        """The weights and inputs that a value is computed from, beside the values `starts`."""
        read = {one for step in self.steps_between(starts, end) for one in _tensors(self.steps[step])}
        return read - starts - self.makers.keys()

    def replay(self, given: Mapping[int, Tensor], end: int) -> Tensor:
        """Computes a value again from others.

        Args:
            given: Values by number, in place of what was recorded.
            end: The number of the value.
        """
        known: dict[int, Any] = {index: value.clone() for index, value in given.items()}

        def fetched(one: Any) -> Any:
            if not isinstance(one, Value):
                return one
            return known[one.index] if one.index in known else self.values[one.index].clone()

        with torch.no_grad():
            for number in self.steps_between(set(given), end):
                step = self.steps[number]
                args, kwargs = tree_map(fetched, (step.args, dict(step.kwargs)))
                results = [one for one in tree_flatten(step.run(*args, **kwargs))[0] if isinstance(one, Tensor)]
                known.update(zip(step.outputs, results, strict=True))
        result: Tensor = known[end]
        return result


def record(network: Network, inputs: Sequence[np.ndarray], dtype: torch.dtype) -> Tape:
    """Runs a network once and records it.

    Args:
        network: The network; a module is brought to `dtype` for the call, and back to float32.
        inputs: Its inputs; those in float32 become `dtype`.
        dtype: torch.float32 or torch.float64.

    Raises:
        Exception: Whatever the network raises.
    """
    given = [torch.from_numpy(np.array(one)) for one in inputs]
    given = [one.to(dtype) if one.is_floating_point() else one for one in given]
    tape = Tape()
    module = network if isinstance(network, nn.Module) else None
    try:
        if module is not None:
            module.to(dtype)
        recorder = _Recorder(tape)
        tape.inputs = [recorder.number(one) for one in given]
        plain = plain_operators(module) if module is not None else nullcontext()
        with plain, torch.inference_mode(), _watched(module, recorder), recorder:
            found = network(*given)
        tape.outputs = [recorder.number(one) for one in tree_flatten(found)[0] if isinstance(one, Tensor)]
    finally:
        if module is not None:
            module.float()
    return tape


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class
    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.tape = tape
        self.layers: list[str] = [""]
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets the id of one that is gone

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor, which is new where it was not seen before."""
        return self._numbers[id(tensor)] if id(tensor) in self._numbers else self._add(tensor)

    def _add(self, tensor: Tensor) -> int:
        self._alive.append(tensor)
        self._numbers[id(tensor)] = len(self.tape.values)
        self.tape.values.append(tensor.detach().clone())
        return len(self.tape.values) - 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        line, code = _origin()
        stored, named = tree_map(
            lambda one: Value(self.number(one)) if isinstance(one, Tensor) else one, (args, kwargs or {})
        )
        result = func(*args, **(kwargs or {}))
        made = tuple(self._add(one) for one in tree_flatten(result)[0] if isinstance(one, Tensor))
        step = Step(func, str(func), stored, named, made, self.layers[-1], line, code)
        self.tape.makers.update(dict.fromkeys(made, len(self.tape.steps)))
        self.tape.steps.append(step)
        return result


@contextmanager
def _watched(module: nn.Module | None, recorder: _Recorder) -> Iterator[None]:
    """Within it, the recorder knows in which module it is."""
    handles = []
    for path, part in module.named_modules() if module is not None else ():

        def enter(_: nn.Module, args: object, path: str = path) -> None:
            recorder.layers.append(path)

        def leave(_: nn.Module, args: object, result: object, path: str = path) -> None:
            recorder.layers.pop()
            if isinstance(result, Tensor):
                recorder.tape.modules.setdefault(path, recorder.number(result))

        handles += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _origin() -> tuple[str, str]:
    """The place and the text of the innermost line outside of torch, up to where the recording began."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = public_path(frame.f_code.co_filename)
        if file.startswith(RECORDER):
            break
        if not file.startswith(CARRIER):
            return f"{file}:{frame.f_lineno}", linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        frame = frame.f_back
    return "", ""


@lru_cache(maxsize=4096)
def public_path(file: str) -> str:
    """A source file by its path from where packages are installed, or its bare name: no path of this machine."""
    path = Path(file)
    roots = [Path(root) for root in (*sys.path, *sysconfig.get_paths().values()) if root]
    inside = [path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)]
    packaged = [one for one in inside if _is_package(path, one)]
    return min(packaged or [path.name], key=len)


def _is_package(path: Path, inside: str) -> bool:
    top = path.parents[inside.count("/") - 1] if "/" in inside else path
    return "/" not in inside or (top / "__init__.py").is_file()


def _tensors(step: Step) -> list[int]:
    return [one.index for one in tree_flatten((step.args, dict(step.kwargs)))[0] if isinstance(one, Value)]


def _shown(value: Any) -> str:
    if isinstance(value, Value):
        return "·"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(value)
