"""A plain `torch.onnx.export` of one module with a dynamic batch, and its output under ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from poolzoo.export.graph_checks import random_operators
from poolzoo.model.inference import OPSET, quiet_exporter


def exported(module: nn.Module, example: Tensor, what: str) -> Any:
    """An ONNX Runtime session of the module's graph.

    Args:
        module: In eval mode, from one tensor to one tensor.
        example: An input with two rows.
        what: Names the export in a failure.

    Raises:
        AssertionError: It cannot be exported, its batch is fixed, or it draws random numbers.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        try:
            with quiet_exporter():
                torch.onnx.export(
                    module,
                    (example,),
                    path,
                    input_names=["x"],
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    opset_version=OPSET,
                    external_data=False,
                    verbose=False,
                )
        except Exception as error:
            cause = error.__cause__ or error
            branch = " (an `if` on the values of a tensor? use torch.where)" if "data-dependent" in str(cause) else ""
            first = (str(cause).strip().splitlines() or ["no reason given"])[0]
            text = f"torch.onnx.export fails at {what}: {type(cause).__name__}: {first}{branch}"
            raise AssertionError(text) from error
        proto = onnx.load(path)
        random = random_operators(proto)
        assert not random, f"the graph draws random numbers: {', '.join(random)}"
        batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
        fixed = f"the graph is for {batch.dim_value} images only (from len(x)? use x.shape[0])"
        assert batch.dim_param, fixed
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def answer(session: Any, x: Tensor) -> Tensor:
    """The graph's first output."""
    return torch.from_numpy(np.asarray(session.run(None, {"x": x.numpy()})[0]))
