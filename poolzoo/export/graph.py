"""The exported graph: from stored images to logits and probabilities, with metadata that describes it."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import torch
from torch import nn

from poolzoo.common import allocator, json_writer
from poolzoo.common.errors import CheckFailed, PoolzooError, reason
from poolzoo.common.temporary import temporary_folder
from poolzoo.data.resize import TRANSFORMS
from poolzoo.data.sizes import Size
from poolzoo.export import file_version, folding, graph_checks, narrowing, portable
from poolzoo.metrics.decisions import Decision
from poolzoo.model.inference import OPSET, InferenceModel, plain_operators, quiet_exporter, reparameterized
from poolzoo.parity import layers
from poolzoo.parity.layers import Layers

if TYPE_CHECKING:
    from poolzoo.artifacts.schema import ValueRange
    from poolzoo.export.source import ExportSource
    from poolzoo.model.network import Preprocess

OUTPUTS: Final = ("logits", "probabilities")
# The two forms of the input, as `metadata_props` describes them.
INPUTS: Final = {
    "uint8": {"kind": "uint8", "layout": "NHWC", "range": [0, 255]},
    "float": {"kind": "float", "layout": "NCHW", "range": [0, 1]},
}


@dataclass(frozen=True)
class ExportedGraph:
    """What was written: the opset of the file, and which of its values are which layers'."""

    opset: int
    layers: Layers


def export_graph(source: ExportSource, path: Path, *, input_kind: str = "uint8", opset: int = OPSET) -> ExportedGraph:
    """Writes the graph of a network to one file with a dynamic batch.

    Layers that can be reparameterized for inference (timm's MobileOne, RepVGG, FastViT, …) are fused in the graph.

    Args:
        source: The network, and what `metadata_props` says of it.
        path: The file to write.
        input_kind: "uint8" or "float", a key of `INPUTS`.
        opset: The opset to ask for.

    Raises:
        CheckFailed: The network cannot be exported, or its graph is rejected.
    """
    model = reparameterized(source.model)
    try:
        program = run_exporter(model, source.size, path, input_kind, opset)
    except (PoolzooError, OSError, MemoryError):
        raise
    except Exception as error:
        text = f"{source.title} cannot be exported: {reason(error.__cause__ or error)}"
        raise CheckFailed(text, f"{source.hint}; POOLZOO_DEBUG=1 shows the traceback") from error
    proto = onnx.load(path)
    graph_checks.check_graph(proto, program)
    names = layers.read_layers(program, proto)
    folding.fold_constants(proto)
    names = names.renamed_inside(narrowing.narrow_rows(proto))
    portable.rewrite(proto)
    keep_pads_apart(proto)
    strip_exporter_metadata(proto)
    write_metadata(proto, source, input_kind, "fp32")
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return ExportedGraph(opset_of(proto), names.within(proto))


def opset_of(proto: onnx.ModelProto) -> int:
    """The opset of a file, which may differ from the requested one."""
    return int(max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")))


def run_exporter(
    model: nn.Module, size: Size, path: Path, input_kind: str = "uint8", opset: int = OPSET
) -> torch.export.ExportedProgram:
    """Runs torch's exporter: images to logits and probabilities, with a dynamic batch, in one file.

    Args:
        model: The network with its preprocessing, in eval mode on the CPU.
        size: Height and width of the images.
        path: The file to write.
        input_kind: "uint8" or "float", a key of `INPUTS`.
        opset: The opset to ask for.

    Returns:
        The program that the graph was made of.

    Raises:
        Exception: Whatever the exporter raises.
    """
    stored = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    example = stored if input_kind == "uint8" else stored.permute(0, 3, 1, 2) / 255
    with quiet_exporter(), plain_operators(model):
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
    exported = program.exported_program if program is not None else None
    assert exported is not None  # which the exporter of torch before 2.9 returns
    return exported


def keep_pads_apart(proto: onnx.ModelProto) -> None:
    """Names all axes of a `Pad` before a pooling, which changes nothing but keeps ONNX Runtime from merging the two.

    ONNX Runtime merges a `Pad` with zeros and without axes into the next pooling. But max pooling does not pad with
    zeros, and `ceil_mode` depends on the padded size.
    """
    pooled = {node.input[0] for node in proto.graph.node if node.op_type in ("AveragePool", "MaxPool")}
    sizes = {tensor.name: tensor.dims[0] for tensor in proto.graph.initializer if len(tensor.dims) == 1}
    for node in proto.graph.node:
        if node.op_type == "Pad" and node.output[0] in pooled and node.input[1] in sizes and len(node.input) < 4:
            axes = np.arange(sizes[node.input[1]] // 2)
            name = f"{node.name}_axes"
            proto.graph.initializer.append(onnx.numpy_helper.from_array(axes, name))
            node.input.extend([""] * (3 - len(node.input)) + [name])


def strip_exporter_metadata(proto: onnx.ModelProto) -> None:
    """Removes the exporter's metadata: lines of source code, and paths of this machine."""
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    del proto.graph.metadata_props[:]
    proto.graph.ClearField("doc_string")


def write_metadata(
    proto: onnx.ModelProto,
    source: ExportSource,
    input_kind: str,
    precision: str,
    value_range: ValueRange | None = None,
) -> None:
    """Writes `metadata_props`: everything that a program needs to use the file, and its origin.

    The opset and IR versions that the file requires become the lowest that it needs.

    Args:
        proto: The graph.
        source: The network that it was made of.
        input_kind: "uint8" or "float".
        precision: "fp32", or a precision of `precision.convert`.
        value_range: What `precision.convert` found of the values inside.
    """
    file_version.minimize_versions(proto)
    (height, width), expects = source.size, source.config["pretrained_cfg"]
    before = TRANSFORMS[source.fit.reader]
    after = f"normalized, resized to {expects['input_size'][1:]}"
    facts: dict[str, object] = {
        "labels": source.classes,
        "input": {"name": "images", **INPUTS[input_kind], "height": height, "width": width, "channels": "RGB"},
        "preprocessing": {
            "before": before if input_kind == "uint8" else f"{before}; scaled to 0–1",
            "inside": f"scaled to 0–1, {after}" if input_kind == "uint8" else after,
            **asdict(source.fit),
            "mean": expects["mean"],
            "std": expects["std"],
        },
        **task_facts(source.decision),
        "precision": precision,
        "onnxruntime": file_version.min_onnxruntime(proto),
        "license": source.license,
        **source.provenance,
    }
    if value_range:
        facts["inside"] = value_range
    onnx.helper.set_model_props(proto, {key: json_writer.dumps(value) for key, value in facts.items()})


def task_facts(decision: Decision) -> dict[str, object]:
    """`task` and `thresholds` of a network with several labels, and `calibration` where there is one."""
    facts: dict[str, object] = {}
    if decision.thresholds is not None:
        facts |= {"task": decision.task.name, "thresholds": list(decision.thresholds)}
    if decision.calibration is not None:
        facts["calibration"] = decision.calibration.to_json()
    return facts


def check_exportable(network: nn.Module, preprocess: Preprocess, size: Size) -> None:
    """A trial export of a copy of a network, so that one that cannot be exported fails before training.

    Args:
        network: The network, on any device and in any mode; it is not changed.
        preprocess: Turns stored images into its input.
        size: Height and width of the images.

    Raises:
        CheckFailed: It cannot be exported, or its graph is rejected.
    """
    model = InferenceModel(copy.deepcopy(preprocess), copy.deepcopy(network)).cpu().eval()
    with torch.random.fork_rng(devices=[]), temporary_folder() as folder:
        path = folder / "model.onnx"
        try:
            program = run_exporter(model, size, path)
            graph_checks.check_graph(onnx.load(path), program)
        except CheckFailed as error:
            raise CheckFailed(f"the network to train cannot be exported: {error.message}", _TRAIN_HINT) from error
        except (PoolzooError, OSError, MemoryError):
            raise
        except Exception as error:
            text = f"the network to train cannot be exported: {reason(error.__cause__ or error)}"
            raise CheckFailed(text, _TRAIN_HINT) from error
    allocator.release()


_TRAIN_HINT: Final = "choose another pooling or backbone, or train without this check: --no-check-export"
