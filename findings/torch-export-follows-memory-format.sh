#!/usr/bin/env bash
# torch.onnx.export writes another graph for AdaptiveAvgPool2d(1) when the model is in channels_last.
#
# One would guess: memory_format=torch.channels_last is about speed on a device; ONNX has no strides, so the file does
#   not depend on it.
# What happens: the strides of the pooled 1x1 map are exported as arithmetic. With a fixed batch a Reshape and a Gather
#   over as many constant indices as there are values follow the ReduceMean; with a dynamic batch the indices are
#   computed by Shape, Range, Mul and Add. Either a channels_last model or a channels_last example input is enough. The
#   values stay right. x.mean((2, 3), keepdim=True) stays one node in every case.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, torch 2.14.1, onnxscript 0.7.2, onnxruntime 1.32.0.
# Output: Conv, AdaptiveAvgPool2d(1), dynamic batch: contiguous [Conv ReduceMean], channels_last 12 nodes with Gather;
#   fixed batch 2: 4 nodes
# Hurt: trained in channels_last (usual on GPUs), exported as it is: quantizers, compilers and accelerators that look
#   for global pooling before the classifier find indices instead.
# Way out: model.to(memory_format=torch.contiguous_format) and a contiguous example before the export, or mean.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 torch==2.14.1
venv/bin/python - <<'PY'
import contextlib
import copy
import io
import logging
import warnings

import numpy as np
import onnxruntime
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
last = torch.channels_last


class Mean(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


def export(net, x, dynamic):
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamic else {}
    with contextlib.redirect_stdout(io.StringIO()):
        return torch.onnx.export(net, (x,), dynamo=True, **shapes).model_proto


same = True
x = torch.rand(2, 3, 16, 16)
for head in (torch.nn.AdaptiveAvgPool2d(1), Mean()):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), head).eval()
    forms = {
        "contiguous": (net, x),
        "model channels_last": (copy.deepcopy(net).to(memory_format=last), x),
        "example channels_last": (net, x.to(memory_format=last)),
    }
    for dynamic in (False, True):
        for name, (model, example) in forms.items():
            proto = export(model, example, dynamic)
            session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
            y = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
            nodes = [node.op_type for node in proto.graph.node]
            print(type(head).__name__, "dynamic" if dynamic else "fixed", "batch,", name, len(nodes), *nodes)
            strided = isinstance(head, torch.nn.AdaptiveAvgPool2d) and name != "contiguous"
            same &= len(nodes) == ((12 if dynamic else 4) if strided else 2) and ("Gather" in nodes) == strided
            same &= np.allclose(y, net(x).detach().numpy(), atol=1e-5)
raise SystemExit(None if same else "changed: the exported pooling no longer depends on the memory format, or otherwise")
PY
