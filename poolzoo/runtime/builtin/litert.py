"""LiteRT, once TensorFlow Lite: onnx2tf converts the graph, ai-edge-litert runs it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from poolzoo.common.errors import CheckFailed
from poolzoo.common.temporary import temporary_folder
from poolzoo.runtime.builtin import sessions

if TYPE_CHECKING:
    import onnx

SMALL_FLOOR: Final = 1e-6  # up to here onnx2tf takes a floor for 0
CONVERTED: Final = "model.tflite"


def convert(bundle: Path, out: Path) -> None:
    """Writes `model.tflite`.

    Args:
        bundle: The directory with `model.onnx`, of batch 1: of a dynamic one, onnx2tf fixes some shapes.
        out: An empty directory.

    Raises:
        CheckFailed: onnx2tf does not convert the graph.
    """
    import onnx
    import onnx2tf

    with temporary_folder() as work:
        copy = work / sessions.MODEL  # onnx2tf writes over the file that it is given
        onnx.save(keep_floors(onnx.load(bundle / sessions.MODEL)), copy)
        onnx2tf.convert(
            input_onnx_file_path=str(copy),
            output_folder_path=str(work / "out"),
            keep_shape_absolutely_input_names=[sessions.IMAGES],  # else it takes NHWC for NCHW
            copy_onnx_input_output_names_to_tflite=True,
            non_verbose=True,
        )
        found = sorted((work / "out").glob("*_float32.tflite"))
        if len(found) != 1:
            raise CheckFailed("onnx2tf writes no float32 file")
        shutil.copyfile(found[0], out / CONVERTED)
    sessions.keep_input(bundle, out)


def keep_floors(model: onnx.ModelProto) -> onnx.ModelProto:
    """Writes `Clip(x, floor)` as `Relu(x - floor) + floor` where onnx2tf takes the floor for 0, so that 0/0 follows."""
    from onnx import helper, numpy_helper

    floors = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        floor = floors.get(node.input[1]) if node.op_type == "Clip" and len(node.input) == 2 else None
        if floor is None or not 0 < float(floor) <= SMALL_FLOOR:
            model.graph.node.append(node)
            continue
        above, rest = f"{node.output[0]}_above", f"{node.output[0]}_rest"
        model.graph.node.extend(
            [
                helper.make_node("Sub", node.input, [above]),
                helper.make_node("Relu", [above], [rest]),
                helper.make_node("Add", [rest, node.input[1]], node.output),
            ]
        )
    return model


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens what `convert` wrote, for one image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(bundle / CONVERTED), num_threads=threads)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    places = {entry["name"]: entry["index"] for entry in interpreter.get_output_details()}

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return [interpreter.get_tensor(places[name]) for name in sessions.OUTPUTS]

    return sessions.session(run, sessions.kept_input(bundle))
