"""Work that torch's exporter is spared: the graph stays the same, and other releases may lack what is replaced."""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from poolzoo.model import exporter_shortcuts
from poolzoo.model.inference import quiet_exporter


class Small(nn.Module):
    """Operators that torchlib has as traced functions, one of them composite, and one that it scripts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(x.clamp(min=0) @ x.transpose(1, 2)).std((1, 2)).view(-1, 1)


def exported() -> bytes:
    with quiet_exporter():
        program = torch.onnx.export(
            Small().eval(),
            (torch.ones(2, 3, 4),),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString(deterministic=True))


def test_graph_is_the_same_without_shortcuts(monkeypatch):
    values, utils = pytest.importorskip("onnxscript.values"), pytest.importorskip("torch._export.utils")
    before = values.TracedOnnxFunction.function_ir, utils._materialize_cpp_cia_ops
    graph = exported()
    assert before == (values.TracedOnnxFunction.function_ir, utils._materialize_cpp_cia_ops)  # and nothing stays
    monkeypatch.setattr("poolzoo.model.inference.shortcuts", nullcontext)
    assert exported() == graph


def test_traced_functions_have_the_domain_that_is_parsed():
    registration = pytest.importorskip("onnxscript.function_libs.torch_lib.registration")
    values = pytest.importorskip("onnxscript.values")
    known = [one for found in registration.default_registry.values() for one in found.overloads]
    traced = [one for one in known if isinstance(one, values.TracedOnnxFunction)][::20]
    assert traced
    parsed = [one.function_ir.domain for one in traced]
    with exporter_shortcuts.shortcuts():
        assert [one.function_ir.domain for one in traced] == parsed


def test_an_operator_registered_within_shortcuts_is_found():
    utils = pytest.importorskip("torch._export.utils")
    with exporter_shortcuts.shortcuts(), torch.library._scoped_library("poolzoo_test", "DEF") as library:
        utils._materialize_cpp_cia_ops()
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x + x, "CompositeImplicitAutograd")
        utils._materialize_cpp_cia_ops()
        assert "twice" in torch.ops.poolzoo_test.__dict__


def test_a_release_without_what_is_replaced_is_left_alone(monkeypatch):
    values, utils = pytest.importorskip("onnxscript.values"), pytest.importorskip("torch._export.utils")
    monkeypatch.delattr(values.TracedOnnxFunction, "function_ir")
    monkeypatch.delattr(utils, "_materialize_cpp_cia_ops")
    with exporter_shortcuts.shortcuts():
        assert not hasattr(values.TracedOnnxFunction, "function_ir")
        assert not hasattr(utils, "_materialize_cpp_cia_ops")


def is_importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("gpu", [False, True])
def test_compilers_for_gpus_are_hidden_where_there_is_none(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    for name in exporter_shortcuts.GPU_COMPILERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "triton.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with exporter_shortcuts.shortcuts():
        assert is_importable("triton") == gpu
    assert is_importable("triton")
