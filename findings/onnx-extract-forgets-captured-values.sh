#!/usr/bin/env bash
# onnx.utils.extract_model leaves out what the branches of an If, or the body of a Loop, read from outside.
#
# One would guess: the part of a graph between two names holds every node that the output depends on.
# What happens: the search follows the inputs of a node, but not the values that its subgraphs capture. Their producers
#   are dropped, and so are initializers that only a branch reads. With a captured node the checker refuses the result at
#   the end, and nothing says why. A valid model cannot be cut.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, onnx 1.23.2.
# Output: captured from outside: ValidationError; the same values as inputs of nodes: Add, Add, Where
# Hurt: tools that cut a graph into pieces to find where it differs; scripted models and detectors, whose
#   postprocessing has If and Loop.
# Way out: collect for each node the free names of its subgraphs too: all inputs in them that they do not define.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check onnx==1.23.2
venv/bin/python - <<'PY'
import onnx
from onnx import TensorProto, helper, utils


def value(name, kind=TensorProto.FLOAT, shape=(2,)):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes):
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph(
        nodes, "graph", [value("x"), value("which", TensorProto.BOOL, ())], [value("z")], [one]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(made, full_check=True)
    return made


double = helper.make_node("Add", ["x", "x"], ["twice"])
plus = helper.make_graph([helper.make_node("Add", ["twice", "one"], ["a"])], "plus", [], [value("a")])
minus = helper.make_graph([helper.make_node("Sub", ["twice", "one"], ["b"])], "minus", [], [value("b")])
captured = model([double, helper.make_node("If", ["which"], ["z"], then_branch=plus, else_branch=minus)])
plain = model([
    double,
    helper.make_node("Add", ["twice", "one"], ["a"]),
    helper.make_node("Where", ["which", "a", "twice"], ["z"]),
])
found = {}
for name, made in (("captured from outside", captured), ("the same values as inputs of nodes", plain)):
    onnx.save(made, "whole.onnx")
    try:
        utils.extract_model("whole.onnx", "part.onnx", ["x", "which"], ["z"])
        found[name] = ", ".join(node.op_type for node in onnx.load("part.onnx").graph.node)
    except onnx.checker.ValidationError as error:
        found[name] = type(error).__name__
    print(f"{name}: {found[name]}")
changed = list(found.values()) != ["ValidationError", "Add, Add, Where"]
raise SystemExit("changed: extract_model follows captured values" if changed else None)
PY
