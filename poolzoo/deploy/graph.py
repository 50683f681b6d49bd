"""The graph that leaves poolzoo: images as they come go in, logits and probabilities come out."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

from poolzoo.data.images import TRANSFORM
from poolzoo.errors import CheckFailed, PoolzooError
from poolzoo.runs import Run

OPSET: Final = 18
RANDOM_OPS: Final = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)


class Deployable(nn.Module):
    """Preprocessing and network in one: `uint8[N, h, w, 3]` to logits and probabilities, `float[N, classes]`."""

    def __init__(self, preprocess: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.preprocess, self.network = preprocess, network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(self.preprocess(images))
        return logits, logits.softmax(1)


def export_graph(run: Run, path: Path, provenance: dict[str, Any]) -> int:
    """Writes the graph of a run to one file with a dynamic batch.

    Args:
        run: The trained network.
        path: The file to write.
        provenance: What else `metadata_props` is to say.

    Returns:
        The opset that the file really has; the exporter may not reach the one that it was asked for.

    Raises:
        CheckFailed: The network cannot be exported.
    """
    model = Deployable(run.preprocess, run.network).eval()
    height, width = run.data_size
    example = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8)
    try:
        with quiet_exporter():
            torch.onnx.export(
                model,
                (example,),
                path,
                input_names=["images"],
                output_names=["logits", "probabilities"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except (PoolzooError, OSError, MemoryError):
        raise
    except Exception as error:
        cause = error.__cause__ or error
        raise CheckFailed(
            f"{run.config['poolzoo']['backbone']} with {run.config['global_pool']} cannot be exported: "
            f"{type(cause).__name__}: {cause}",
            "try another --pool; POOLZOO_DEBUG=1 shows the traceback",
        ) from error
    proto = onnx.load(path)
    _refuse(proto)
    describe = {
        "labels": run.classes,
        "input": {
            "name": "images",
            "kind": "uint8",
            "layout": "NHWC",
            "height": height,
            "width": width,
            "channels": "RGB",
        },
        "preprocessing": {
            "before": TRANSFORM,
            "inside": f"scaled to 0–1, normalised, resized to {run.config['pretrained_cfg']['input_size'][1:]}",
            "mean": run.config["pretrained_cfg"]["mean"],
            "std": run.config["pretrained_cfg"]["std"],
        },
        **provenance,
    }
    onnx.helper.set_model_props(proto, {key: json.dumps(value, ensure_ascii=False) for key, value in describe.items()})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keeps what torch's exporter says about its own code off both streams."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def random_operators(proto: onnx.ModelProto) -> list[str]:
    """The operators in the graph that draw random numbers."""
    return sorted({node.op_type for node in proto.graph.node if node.op_type in RANDOM_OPS})


def _refuse(proto: onnx.ModelProto) -> None:
    """Refuses a graph that would answer differently each time, or that bakes the batch in."""
    random = random_operators(proto)
    if random:
        raise CheckFailed(
            f"the graph draws random numbers ({', '.join(random)})",
            "the pooling or backbone must be deterministic in eval mode",
        )
    for value in (*proto.graph.input, *proto.graph.output):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise CheckFailed(
                f"the batch dimension of {value.name} is fixed", "a layer computes its shape from the batch"
            )
