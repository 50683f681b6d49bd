"""Core ML: any system converts, by way of onnx2torch; only macOS runs what comes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolzoo.common.errors import EnvironmentProblem
from poolzoo.runtime.builtin import sessions

CONVERTED: Final = "model.mlpackage"


def convert(bundle: Path, out: Path) -> None:
    """Writes `model.mlpackage`, an ML program in float32. Needs torch, which running does not.

    Args:
        bundle: The directory with `model.onnx`, which takes one image as float32.
        out: An empty directory.

    Raises:
        Exception: Whatever onnx2torch, torch or coremltools raises for an operator that they do not take.
    """
    import coremltools

    from poolzoo.runtime.builtin.torch_program import program

    model = coremltools.convert(
        program(bundle).run_decompositions(_exact()),
        convert_to="mlprogram",
        inputs=[coremltools.TensorType(name=sessions.IMAGES)],
        outputs=[coremltools.TensorType(name=name) for name in sessions.OUTPUTS],
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    model.save(str(out / CONVERTED))
    sessions.keep_input(bundle, out)


def _exact() -> dict[Any, Callable[..., Any]]:
    """Operators whose conversion is not what they compute, in terms of others: 1 / x becomes 1 / (x + 1e-4)."""
    import torch

    def divided(x: torch.Tensor) -> torch.Tensor:
        return torch.div(torch.full((), 1.0, dtype=x.dtype), x)

    aten = torch.ops.aten
    return {aten.reciprocal.default: divided, aten.rsqrt.default: lambda x: divided(x.sqrt())}


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens what `convert` wrote, for one image at a time.

    Args:
        bundle: The directory.
        threads: Core ML chooses them itself.
        device: "cpu".
        precision: "fp32" computes on the CPU; "auto" on whatever Core ML chooses, which may compute in float16.

    Raises:
        EnvironmentProblem: This is not macOS.
    """
    if sys.platform != "darwin":
        raise EnvironmentProblem("Core ML runs on macOS only", "convert here with export --target, and verify on a Mac")
    import coremltools

    units = coremltools.ComputeUnit.CPU_ONLY if precision == "fp32" else coremltools.ComputeUnit.ALL
    model = coremltools.models.MLModel(str(bundle / CONVERTED), compute_units=units)

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        found = model.predict({sessions.IMAGES: x})
        return [found[name] for name in sessions.OUTPUTS]

    return sessions.session(run, sessions.kept_input(bundle))
