"""The graph that leaves poolzoo: images as they come go in, logits and probabilities come out."""

from __future__ import annotations

import copy
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx
import torch
from torch import Tensor, nn

from poolzoo.data.images import TRANSFORM
from poolzoo.errors import CheckFailed, PoolzooError
from poolzoo.layout import Size

if TYPE_CHECKING:
    from poolzoo.deploy.subject import Subject

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


def export_graph(subject: Subject, path: Path) -> int:
    """Writes the graph of a network to one file with a dynamic batch.

    Args:
        subject: The network, and what `metadata_props` is to say of it.
        path: The file to write.

    Returns:
        The opset that the file really has; the exporter may not reach the one that it was asked for.

    Raises:
        CheckFailed: The network cannot be exported.
    """
    height, width = subject.size
    try:
        convert(subject.model, subject.size, path)
    except (PoolzooError, OSError, MemoryError):
        raise
    except Exception as error:
        cause = error.__cause__ or error
        raise CheckFailed(
            f"{subject.title} cannot be exported: {type(cause).__name__}: {cause}",
            f"{subject.remedy}; POOLZOO_DEBUG=1 shows the traceback",
        ) from error
    proto = onnx.load(path)
    _refuse(proto)
    expects = subject.config["pretrained_cfg"]
    describe = {
        "labels": subject.classes,
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
            "inside": f"scaled to 0–1, normalised, resized to {expects['input_size'][1:]}",
            **asdict(subject.fit),
            "mean": expects["mean"],
            "std": expects["std"],
        },
        "license": subject.license,
        **subject.provenance,
    }
    onnx.helper.set_model_props(proto, {key: json.dumps(value, ensure_ascii=False) for key, value in describe.items()})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))


def convert(model: Deployable, size: Size, path: Path) -> None:
    """Runs torch's exporter: `uint8[N, h, w, 3]` to logits and probabilities, N dynamic, in one file.

    Raises:
        Exception: Whatever the exporter raises.
    """
    example = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
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


def dry_export(network: nn.Module, preprocess: nn.Module, size: Size) -> None:
    """Exports a copy of a network to a file that is thrown away, so that one that cannot be exported fails early.

    Args:
        network: The network; it is left as it is, on whatever device and in whatever mode.
        preprocess: What turns stored images into its input.
        size: Height and width of the images.

    Raises:
        CheckFailed: It cannot be exported, or its graph would answer differently each time.
    """
    model = Deployable(copy.deepcopy(preprocess), copy.deepcopy(network)).cpu().eval()
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            convert(model, size, path)
            _refuse(onnx.load(path))
        except CheckFailed as error:
            raise CheckFailed(f"what would be trained cannot be deployed: {error.message}", _WAY_OUT) from error
        except (PoolzooError, OSError, MemoryError):
            raise
        except Exception as error:
            cause = error.__cause__ or error
            first = str(cause).strip().splitlines()[0] if str(cause).strip() else "no reason given"
            text = f"what would be trained cannot be exported: {type(cause).__name__}: {first}"
            raise CheckFailed(text, _WAY_OUT) from error


_WAY_OUT: Final = "choose another pooling or backbone, or train it all the same with --no-dry-export"


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keeps what torch's exporter says and dumps about its own code off both streams; its exceptions say enough."""
    names = ("torch.onnx", "onnxscript", "torch.export", "torch.fx", "torch._dynamo")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
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
