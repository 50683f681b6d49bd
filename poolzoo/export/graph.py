"""The graph that leaves poolzoo: images as they come go in, logits and probabilities come out."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import torch
from torch import nn

from poolzoo.common import allocator, json_writer
from poolzoo.common.errors import CheckFailed, PoolzooError
from poolzoo.data.resize import TRANSFORMS
from poolzoo.data.sizes import Size
from poolzoo.export import file_version, graph_checks
from poolzoo.model.inference import OPSET, InferenceModel, plain_attention, quiet_exporter, reparameterized
from poolzoo.parity import layers
from poolzoo.parity.layers import Layers

if TYPE_CHECKING:
    from poolzoo.export.source import ExportSource

OUTPUTS: Final = ("logits", "probabilities")
# How images come in, as `metadata_props` says it.
INPUTS: Final = {
    "uint8": {"kind": "uint8", "layout": "NHWC", "range": [0, 255]},
    "float": {"kind": "float", "layout": "NCHW", "range": [0, 1]},
}


@dataclass(frozen=True)
class Graph:
    """What was written: the opset that the file really has, and which of its values are which layers'."""

    opset: int
    layers: Layers


def export_graph(subject: ExportSource, path: Path, *, kind: str = "uint8", opset: int = OPSET) -> Graph:
    """Writes the graph of a network to one file with a dynamic batch.

    Layers that were made to be fused for inference (timm's MobileOne, RepVGG, FastViT, …) are fused in the graph.

    Args:
        subject: The network, and what `metadata_props` is to say of it.
        path: The file to write.
        kind: "uint8" or "float", one of `INPUTS`.
        opset: The opset to ask for.

    Raises:
        CheckFailed: The network cannot be exported, or its graph is one to refuse.
    """
    model = reparameterized(subject.model)
    try:
        program = convert(model, subject.size, path, kind, opset)
    except (PoolzooError, OSError, MemoryError):
        raise
    except Exception as error:
        cause = error.__cause__ or error
        raise CheckFailed(
            f"{subject.title} cannot be exported: {type(cause).__name__}: {cause}",
            f"{subject.remedy}; POOLZOO_DEBUG=1 shows the traceback",
        ) from error
    proto = onnx.load(path)
    graph_checks.refuse(proto, program)
    names = layers.read(program, proto)
    separate_pads(proto)
    strip(proto)
    describe(proto, subject, kind, "fp32")
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return Graph(opset_of(proto), names)


def opset_of(proto: onnx.ModelProto) -> int:
    """The opset of a file, which may differ from the one that the exporter was asked for."""
    return int(max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")))


def convert(
    model: nn.Module, size: Size, path: Path, kind: str = "uint8", opset: int = OPSET
) -> torch.export.ExportedProgram:
    """Runs torch's exporter: images to logits and probabilities, N dynamic, in one file.

    Returns:
        The program that the graph was made of.

    Raises:
        Exception: Whatever the exporter raises.
    """
    stored = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    example = stored if kind == "uint8" else stored.permute(0, 3, 1, 2) / 255
    with quiet_exporter(), plain_attention(model):
        program = torch.onnx.export(
            model,
            (example,),
            path,
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # it is None for the exporter of before 2.9 alone
    return program.exported_program


def separate_pads(proto: onnx.ModelProto) -> None:
    """Names the axes of what is padded before a pooling, all of them, which says nothing new and keeps it apart.

    ONNX Runtime merges a `Pad` with zeros that names none into the pooling behind it, though a maximum's own padding is
    no zeros, and the padded size may be one that a window with `ceil_mode` only just reaches.
    """
    pooled = {node.input[0] for node in proto.graph.node if node.op_type in ("AveragePool", "MaxPool")}
    sizes = {tensor.name: tensor.dims[0] for tensor in proto.graph.initializer if len(tensor.dims) == 1}
    for node in proto.graph.node:
        if node.op_type == "Pad" and node.output[0] in pooled and node.input[1] in sizes and len(node.input) < 4:
            axes = np.arange(sizes[node.input[1]] // 2)
            name = f"{node.name}_axes"
            proto.graph.initializer.append(onnx.numpy_helper.from_array(axes, name))
            node.input.extend([""] * (3 - len(node.input)) + [name])


def strip(proto: onnx.ModelProto) -> None:
    """Takes out what the exporter notes on nodes: lines of source code, and the paths of the machine it ran on."""
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    del proto.graph.metadata_props[:]
    proto.graph.ClearField("doc_string")


def describe(
    proto: onnx.ModelProto, subject: ExportSource, kind: str, precision: str, inside: Mapping[str, Any] | None = None
) -> None:
    """Writes into `metadata_props` all that a program needs to use the file, and where it comes from.

    The versions that the file states become the lowest that it needs.

    Args:
        proto: The graph.
        subject: The network that it is of.
        kind: "uint8" or "float".
        precision: "fp32", or one that `precision.lower` knows.
        inside: What `precision.lower` found of the values inside.
    """
    file_version.lower(proto)
    (height, width), expects = subject.size, subject.config["pretrained_cfg"]
    before = TRANSFORMS[subject.fit.reader]
    after = f"normalized, resized to {expects['input_size'][1:]}"
    facts = {
        "labels": subject.classes,
        "input": {"name": "images", **INPUTS[kind], "height": height, "width": width, "channels": "RGB"},
        "preprocessing": {
            "before": before if kind == "uint8" else f"{before}; scaled to 0–1",
            "inside": f"scaled to 0–1, {after}" if kind == "uint8" else after,
            **asdict(subject.fit),
            "mean": expects["mean"],
            "std": expects["std"],
        },
        "precision": precision,
        "onnxruntime": file_version.runtime_for(proto),
        "license": subject.license,
        **subject.provenance,
    }
    if inside:
        facts["inside"] = inside
    onnx.helper.set_model_props(proto, {key: json_writer.dumps(value) for key, value in facts.items()})


def check_exportable(network: nn.Module, preprocess: nn.Module, size: Size) -> None:
    """Exports a copy of a network to a file that is thrown away, so that one that cannot be exported fails early.

    Args:
        network: The network; it is left as it is, on whatever device and in whatever mode.
        preprocess: What turns stored images into its input.
        size: Height and width of the images.

    Raises:
        CheckFailed: It cannot be exported, or its graph would answer differently each time.
    """
    model = InferenceModel(copy.deepcopy(preprocess), copy.deepcopy(network)).cpu().eval()
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            program = convert(model, size, path)
            graph_checks.refuse(onnx.load(path), program)
        except CheckFailed as error:
            raise CheckFailed(f"what would be trained cannot be deployed: {error.message}", _WAY_OUT) from error
        except (PoolzooError, OSError, MemoryError):
            raise
        except Exception as error:
            cause = error.__cause__ or error
            first = str(cause).strip().splitlines()[0] if str(cause).strip() else "no reason given"
            text = f"what would be trained cannot be exported: {type(cause).__name__}: {first}"
            raise CheckFailed(text, _WAY_OUT) from error
    allocator.release()


_WAY_OUT: Final = "choose another pooling or backbone, or train it all the same with --no-check-export"
