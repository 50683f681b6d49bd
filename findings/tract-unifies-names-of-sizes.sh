#!/usr/bin/env bash
# tract refuses a graph in which a value inside states its batch by another name than the input does.
#
# One would guess: a named size in value_info is a remark: ONNX says that a name stands for one unknown number in the
#   whole graph, not that two names stand for two numbers.
# What happens: sizes inside must be the input's by name: an input [N, 3] with a value [M, 3] behind it is refused
#   ("Impossible to unify Sym(N) with Sym(M)"), and so is an input [2, 3] with a value [N, 3], which is what is left
#   when only the input's batch is fixed. An input without a name is taken, and so is an output with another name.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, tract 0.23.9; onnx's full check and onnxruntime 1.32.0 take all.
# Output: input N, inside N: taken; N, M: refused; 2, N: refused; unnamed, M: taken; N, unnamed: taken; N, none: taken
# Hurt: graphs whose input was renamed or fixed afterwards, and those of exporters that invent a name for each value.
# Way out: del model.graph.value_info[:] before loading: tract infers shapes itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 tract==0.23.9
venv/bin/python - <<'PY'
import numpy as np
import onnx
import onnxruntime
import tract
from onnx import TensorProto, helper

x = np.ones((2, 3), np.float32)


def load(given, inside, result):
    """Whether tract takes Add(Relu(x), x), with these names of the batch; [] inside for no value_info."""
    value = lambda name, batch: helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3])
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Add", ["a", "x"], ["y"])]
    known = [] if inside == [] else [value("a", inside)]
    graph = helper.make_graph(nodes, "g", [value("x", given)], [value("y", result)], value_info=known)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "g.onnx")
    ort = onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert np.array_equal(ort, x + x)
    try:
        loaded = tract.onnx().load("g.onnx")
        loaded = loaded.into_model() if hasattr(loaded, "into_model") else loaded
        got = loaded.into_runnable().run([x])[0].to_numpy()
    except Exception as error:  # tract raises its own type
        return next(line for line in str(error).splitlines() if "Impossible to unify" in line).strip()
    assert np.array_equal(got, x + x)
    return "taken"


cases = [("N", "N", "N"), ("N", "M", "N"), (2, "N", 2), (None, "M", None), ("N", None, "N")]
cases += [("N", [], "N"), ("N", [], "M")]
got = [load(*case) for case in cases]
for (given, inside, result), found in zip(cases, got, strict=True):
    stated = "not stated" if inside == [] else inside
    print(f"batch of the input {given}, inside {stated}, of the output {result}: {found}")
refused = [found != "taken" for found in got]
same = refused == [False, True, True, False, False, False, False]
raise SystemExit(None if same else "changed: which names of sizes inside a graph tract takes")
PY
