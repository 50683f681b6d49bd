"""Changes a copy of a graph to the form that a runtime asks for: its opset, its input, its batch. Needs onnx, no torch.

Whatever is changed is said in words. What cannot be changed is refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from poolzoo.common.errors import CheckFailed, EnvironmentProblem, reason
from poolzoo.plugin.spec import GraphForm
from poolzoo.runtime.graph_input import PHOTO

if TYPE_CHECKING:
    import onnx

INPUT: Final = "images"
MAX_FOLDED: Final = 1 << 16  # elements of a value that becomes a constant


def refusal(form: GraphForm, kind: str) -> str:
    """Why no graph with this kind of input can have a form; "" where one may."""
    if form.input not in (None, kind) and kind not in ("uint8", "float"):
        return f"its input cannot be changed from {kind} to {form.input}"
    if kind == PHOTO and form.batch not in (None, 1):
        return f"it takes one photograph at a time, no batch of {form.batch}"
    return ""


def needs_change(form: GraphForm, kind: str) -> bool:
    """Whether a graph with this kind of input may have to be changed; its opset shows only when it is read."""
    photo = kind == PHOTO and not form.dynamic_slices
    return photo or form.batch is not None or form.opset is not None or form.input not in (None, kind)


def adapt(content: bytes, form: GraphForm) -> tuple[bytes, tuple[str, ...]]:
    """A graph in another form.

    Args:
        content: The file's bytes.
        form: What a runtime asks for.

    Returns:
        The bytes of the changed file, and what was changed, such as ("batch 1", "float input").

    Raises:
        CheckFailed: It cannot be changed; the message says why.
        EnvironmentProblem: The onnx package is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise EnvironmentProblem("the onnx package is needed to change the graph", "pip install onnx") from None
    from poolzoo.runtime import opsets

    model = onnx.load_from_string(content)
    changes: list[str] = []
    kind = json.loads(next(one.value for one in model.metadata_props if one.key == "input"))["kind"]
    if why := refusal(form, kind):
        raise CheckFailed(why)
    if kind == PHOTO and not form.dynamic_slices:
        from poolzoo.runtime import photo_graph

        model = photo_graph.with_photo_input(photo_graph.without_photo_input(model), dense=True)
        changes.append("resize without slices")
    if form.batch is not None:
        folded = _fix_batch(model, form.batch)
        changes.append(f"batch {form.batch}" + (f" ({folded} nodes computed in advance)" if folded else ""))
    if form.input not in (None, kind):  # after the batch, whose Shape reads the input too
        changes.insert(0, _to_float(model) if form.input == "float" else _to_uint8(model))
        _write_input(model, str(form.input))
    opset = opsets.opset_of(model)
    if form.opset is not None and opset > form.opset:  # after the batch, which takes Shape out
        model = opsets.lowered(model, form.opset)
        changes.append(f"opset {form.opset} instead of {opset}")
    if changes:
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:
            raise CheckFailed(f"the changed graph ({', '.join(changes)}) is not valid: {reason(error, 200)}") from error
    return model.SerializeToString(), tuple(changes)


def _write_input(model: onnx.ModelProto, kind: str) -> None:
    for one in model.metadata_props:
        if one.key == "input":
            from poolzoo.common.json_writer import dumps

            layout = {"uint8": ("NHWC", [0, 255]), "float": ("NCHW", [0, 1])}[kind]
            one.value = dumps({**json.loads(one.value), "kind": kind, "layout": layout[0], "range": layout[1]})


def _set_input(model: onnx.ModelProto, element: int, shape: list[int | str]) -> None:
    from onnx import helper

    index = next(at for at, value in enumerate(model.graph.input) if value.name == INPUT)
    model.graph.input[index].CopyFrom(helper.make_tensor_value_info(INPUT, element, shape))


def _input_shape(model: onnx.ModelProto) -> list[int | str]:
    value = next(value for value in model.graph.input if value.name == INPUT)
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


def _to_float(model: onnx.ModelProto) -> str:
    """Makes the input `float32[N, 3, h, w]` in 0–1, and takes out what made that of `uint8[N, h, w, 3]`."""
    import onnx
    from onnx import helper, numpy_helper

    graph = model.graph
    batch, height, width, channels = _input_shape(model)
    taken: list[onnx.NodeProto] = []
    value, element = INPUT, int(onnx.TensorProto.FLOAT)
    while len(taken) < 2:  # a Transpose and a Cast, in either order
        readers = [node for node in graph.node if value in node.input]
        if len(readers) != 1 or readers[0].op_type not in ("Transpose", "Cast"):
            found = " and ".join(node.op_type for node in readers)
            raise CheckFailed(f"its input cannot be changed to float: {found or 'nothing'} reads {value}")
        if readers[0].op_type == "Cast":
            element = int(helper.get_node_attr_value(readers[0], "to"))
        elif list(helper.get_node_attr_value(readers[0], "perm")) != [0, 3, 1, 2]:
            raise CheckFailed("its input cannot be changed to float: its Transpose is not from NHWC to NCHW")
        taken.append(readers[0])
        value = readers[0].output[0]
    if {node.op_type for node in taken} != {"Transpose", "Cast"}:
        raise CheckFailed("its input cannot be changed to float: it has no Cast behind its Transpose")
    at = list(graph.node).index(taken[0])
    scaled = helper.make_node("Mul", [INPUT, "poolzoo_255"], [f"{value}_scaled"])
    cast = helper.make_node("Cast", [f"{value}_scaled"], [value], to=element)
    divided = _divided_by_255(model, value) if element == onnx.TensorProto.FLOAT else None
    for node in taken:
        graph.node.remove(node)
    if divided is not None:  # then both are left out
        graph.node.remove(divided)
        _rename(graph, divided.output[0], INPUT)
    else:
        graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "poolzoo_255"))
        graph.node.insert(at, scaled)
        graph.node.insert(at + 1, cast)
    _set_input(model, onnx.TensorProto.FLOAT, [batch, channels, height, width])
    _drop_unused(graph)
    return "float input"


def _divided_by_255(model: onnx.ModelProto, value: str) -> onnx.NodeProto | None:
    """The one reader of a value, where that divides it by 255."""
    from onnx import numpy_helper

    readers = [node for node in model.graph.node if value in node.input]
    if len(readers) != 1 or readers[0].op_type != "Div" or readers[0].input[0] != value:
        return None
    constant = next((one for one in model.graph.initializer if one.name == readers[0].input[1]), None)
    if constant is None:
        return None
    number: np.ndarray = numpy_helper.to_array(constant)
    return readers[0] if number.size == 1 and float(number.reshape(-1)[0]) == 255.0 else None


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _to_uint8(model: onnx.ModelProto) -> str:
    """Makes the input `uint8[N, h, w, 3]`, and puts what makes `float32[N, 3, h, w]` in 0–1 of it in front."""
    import onnx
    from onnx import helper, numpy_helper

    graph = model.graph
    batch, channels, height, width = _input_shape(model)
    for node in graph.node:
        node.input[:] = ["poolzoo_scaled" if name == INPUT else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "poolzoo_255"))
    first = [
        helper.make_node("Transpose", [INPUT], ["poolzoo_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["poolzoo_planes"], ["poolzoo_levels"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Div", ["poolzoo_levels", "poolzoo_255"], ["poolzoo_scaled"]),
    ]
    for at, node in enumerate(first):
        graph.node.insert(at, node)
    _set_input(model, onnx.TensorProto.UINT8, [batch, height, width, channels])
    return "uint8 input"


def _fix_batch(model: onnx.ModelProto, batch: int) -> int:
    """Fixes the batch size and computes in advance what follows from it; returns how many nodes that spares."""
    import onnx

    for value in [*model.graph.input, *model.graph.output]:
        side = value.type.tensor_type.shape.dim[0]
        side.Clear()
        side.dim_value = batch
    del model.graph.value_info[:]
    before = len(model.graph.node)
    while True:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        folded = _fold(model, _static_shapes(inferred))
        if not folded:
            model.graph.value_info.extend(inferred.graph.value_info)
            return before - len(model.graph.node)


def _static_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The values whose shape holds numbers alone."""
    found = {}
    for value in [*model.graph.input, *model.graph.value_info, *model.graph.output]:
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(side.HasField("dim_value") for side in tensor.shape.dim):
            found[value.name] = [int(side.dim_value) for side in tensor.shape.dim]
    return found


def _fold(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> bool:
    """Replaces nodes by constants where their inputs are constants or, for Shape, of a known shape."""
    from onnx import numpy_helper

    graph = model.graph
    outputs = {value.name for value in graph.output}
    small = [one for one in graph.initializer if math.prod(one.dims) <= MAX_FOLDED]
    constants: dict[str, np.ndarray] = {one.name: numpy_helper.to_array(one) for one in small}
    folded = False
    for node in list(graph.node):
        if outputs & set(node.output) or node.domain not in ("", "ai.onnx") or _is_random(node):
            continue
        values = _evaluate(model, node, constants, shapes)
        if values is None:
            continue
        constants.update(zip(node.output, values, strict=True))
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name) for name, value in zip(node.output, values, strict=True)
        )
        graph.node.remove(node)
        folded = True
    _drop_unused(graph)
    return folded


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for one in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(one)


def _is_random(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial", "Dropout")


def _evaluate(
    model: onnx.ModelProto, node: onnx.NodeProto, constants: dict[str, np.ndarray], shapes: dict[str, list[int]]
) -> list[Any] | None:
    """The outputs of a node that depends on nothing but constants and known shapes; None of another one."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Shape" and node.input[0] in shapes:
        given = {node.input[0]: np.empty(shapes[node.input[0]], np.float32)}
    elif all(name in constants for name in node.input if name):
        given = {name: constants[name] for name in node.input if name}
    else:
        return None
    make: Callable[..., Any] = helper.make_tensor_value_info
    inputs = [make(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for name, value in given.items()]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    part = helper.make_graph([node], "node", inputs, outputs)
    single = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        found = [np.asarray(one) for one in ReferenceEvaluator(single).run(None, given)]
    except Exception:  # an operator that the reference does not have stays in the graph
        return None
    return found if all(one.size <= MAX_FOLDED for one in found) else None
