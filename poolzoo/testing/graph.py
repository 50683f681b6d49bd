"""A plain `torch.onnx.export` of one module with a dynamic batch, and its outputs under ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from poolzoo.common.temporary import temporary_folder
from poolzoo.export.graph_checks import random_operators
from poolzoo.model.inference import OPSET, quiet_exporter


@dataclass(frozen=True)
class ExportedModule:
    """A module's graph, and an ONNX Runtime session of it."""

    graph: onnx.ModelProto
    session: onnxruntime.InferenceSession

    def answers(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The graph's outputs for its inputs."""
        named = {f"x{index}": x.numpy() for index, x in enumerate(inputs)}
        return [torch.from_numpy(np.asarray(found)) for found in self.session.run(None, named)]


def exported(module: nn.Module, examples: Sequence[Tensor], what: str) -> ExportedModule:
    """Exports a module and opens its graph in ONNX Runtime.

    Args:
        module: In eval mode, from one or several tensors to as many. The batch of each is dynamic.
        examples: Inputs with two rows.
        what: Names the export in a failure.

    Raises:
        AssertionError: It cannot be exported, its batch is fixed, or it draws random numbers.
    """
    with temporary_folder() as folder:
        path = folder / "graph.onnx"
        try:
            with quiet_exporter():
                torch.onnx.export(
                    module,
                    tuple(examples),
                    path,
                    input_names=[f"x{index}" for index in range(len(examples))],
                    dynamic_shapes=tuple({0: torch.export.Dim(f"batch{index}")} for index in range(len(examples))),
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
        for entry in proto.graph.input:
            batch = entry.type.tensor_type.shape.dim[0]
            assert batch.dim_param, f"the graph is for {batch.dim_value} images only (from len(x)? use x.shape[0])"
        return ExportedModule(proto, onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]))
