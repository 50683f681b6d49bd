"""Means, norms and poolings in float16: powers, sums and products are rounded to float16, and overflow there.

ONNX Runtime computes a pooling whole in float32, which hides sums that do not fit. onnx's evaluator adds float16 values
one after the other, so that a sum of ones stops growing at 2048, as in no runtime. Here only the additions are done in
float32, in any order, and a sum is rounded to float16 before anything else happens to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper

Node = onnx.NodeProto
RunNode = Callable[[Node, list[np.ndarray]], np.ndarray]  # runs a node in float32 and rounds its output to float16
Kernel = Callable[[Node, list[np.ndarray], RunNode], np.ndarray]

HALF: Final = np.dtype(np.float16)


def _sum(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """A sum that keeps its axes, rounded to float16."""
    return np.asarray(x.astype(np.float32).sum(axes, keepdims=True).astype(HALF))


def _mean(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    count = np.float32(np.prod([x.shape[axis] for axis in axes]))
    return np.asarray((_sum(x, axes).astype(np.float32) / count).astype(HALF))


def _reducing(reduced: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]) -> Kernel:
    """The kernel of a reduction.

    Args:
        reduced: The reduction over some axes, which it keeps.
    """

    def kernel(node: Node, arrays: list[np.ndarray], run: RunNode) -> np.ndarray:
        x = arrays[0]
        given = arrays[1].tolist() if len(arrays) > 1 else _attribute(node, "axes", [])
        if not given and _attribute(node, "noop_with_empty_axes", 0):
            return x
        axes = tuple(axis % x.ndim for axis in given) or tuple(range(x.ndim))
        found = reduced(x, axes)
        return found if _attribute(node, "keepdims", 1) else found.squeeze(axes)

    return kernel


def _l2(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.sqrt(_sum(x * x, axes)))


def _log_sum_exp(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.log(_sum(np.exp(x), axes)))  # as written: some runtimes do not subtract the maximum


def _softmax(node: Node, arrays: list[np.ndarray], run: RunNode) -> np.ndarray:
    x, axis = arrays[0], _attribute(node, "axis", -1)
    powers = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(powers / _sum(powers, (axis % x.ndim,)))


def _added(node: Node, arrays: list[np.ndarray], run: RunNode) -> np.ndarray:
    """A node that only adds."""
    return run(node, arrays)


def _global_average_pool(node: Node, arrays: list[np.ndarray], run: RunNode) -> np.ndarray:
    return _mean(arrays[0], tuple(range(2, arrays[0].ndim)))


def _normalized(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """Values minus their mean, by the root of their variance."""
    apart = x - _mean(x, axes)
    variance = _mean(apart * apart, axes)
    return np.asarray(apart / np.sqrt(variance + HALF.type(epsilon)))


def _instance_norm(node: Node, arrays: list[np.ndarray], run: RunNode) -> np.ndarray:
    x, scale, bias = arrays
    shape = (1, -1, *(1,) * (x.ndim - 2))
    found = _normalized(x, tuple(range(2, x.ndim)), _attribute(node, "epsilon", 1e-5))
    return np.asarray(found * scale.reshape(shape) + bias.reshape(shape))


def _group_norm(node: Node, arrays: list[np.ndarray], run: RunNode) -> np.ndarray:
    x, scale, bias = arrays
    groups = x.reshape(len(x), _attribute(node, "num_groups", 1), -1)
    found = _normalized(groups, (2,), _attribute(node, "epsilon", 1e-5))
    if len(scale) != x.shape[1]:  # before opset 21 of each group, since then of each channel
        scale, bias = (np.repeat(one, x.shape[1] // len(one)) for one in (scale, bias))
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return np.asarray(found.reshape(x.shape) * scale.reshape(shape) + bias.reshape(shape))


def _average_pool(node: Node, arrays: list[np.ndarray], run: RunNode) -> np.ndarray:
    """The average, infinite where the sum of a whole window of it is."""
    mean = run(node, arrays)
    window = np.float32(np.prod(_attribute(node, "kernel_shape", [1])))
    fits = np.isfinite((mean.astype(np.float32) * window).astype(HALF))
    return np.where(fits, mean, np.copysign(HALF.type(np.inf), mean))


def _lp_pool(node: Node, arrays: list[np.ndarray], run: RunNode) -> np.ndarray:
    """The root of the sum of powers, in windows or over the whole map."""
    power = HALF.type(_attribute(node, "p", 2))
    powers = np.abs(arrays[0]) ** power
    if node.op_type == "GlobalLpPool":
        total = _sum(powers, tuple(range(2, powers.ndim)))
    else:
        plain = Node()
        plain.CopyFrom(node)
        kept = [one for one in node.attribute if one.name != "p"]
        del plain.attribute[:]
        plain.attribute.extend([*kept, helper.make_attribute("p", 1)])
        total = run(plain, [powers])
    return np.asarray(total ** (HALF.type(1) / power))


KERNELS: Final[dict[str, Kernel]] = {
    "ReduceMean": _reducing(_mean),
    "ReduceSum": _reducing(_sum),
    "ReduceL1": _reducing(lambda x, axes: _sum(np.abs(x), axes)),
    "ReduceL2": _reducing(_l2),
    "ReduceSumSquare": _reducing(lambda x, axes: _sum(x * x, axes)),
    "ReduceLogSum": _reducing(lambda x, axes: np.log(_sum(x, axes))),
    "ReduceLogSumExp": _reducing(_log_sum_exp),
    "Softmax": _softmax,
    "CumSum": _added,
    "GlobalAveragePool": _global_average_pool,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "AveragePool": _average_pool,
    "LpPool": _lp_pool,
    "GlobalLpPool": _lp_pool,
}


def find(node: Node, opset: int) -> Kernel | None:
    """The kernel of a node in a graph of this opset; None where there is none."""
    flattens = node.op_type == "Softmax" and opset < 13  # over all axes from `axis` on
    return None if flattens else KERNELS.get(node.op_type)


def _attribute(node: Node, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)
