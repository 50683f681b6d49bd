"""IREE: the graph is compiled for this machine's CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common.text import one_line
from poolzoo.runtime.builtin import sessions

FILE: Final = "model.vmfb"


def convert(bundle: Path, out: Path) -> None:
    """Compiles the graph to `model.vmfb`.

    Raises:
        RuntimeError: IREE refuses the graph.
    """
    import iree.compiler
    import onnx
    from iree.compiler.extras import onnx_importer
    from iree.compiler.ir import Context

    proto = onnx.shape_inference.infer_shapes(onnx.load(bundle / sessions.MODEL))
    with Context() as context:
        model = onnx_importer.ModelInfo(proto)
        module = model.create_module(context=context).operation
        onnx_importer.NodeImporter.define_function(model.main_graph, module).import_all()
        text = str(module)
    try:
        iree.compiler.compile_str(
            text,
            output_file=str(out / FILE),
            input_type="onnx",
            target_backends=["llvm-cpu"],
            extra_args=["--iree-llvmcpu-target-cpu=host"],
        )
    except iree.compiler.CompilerToolError as error:
        raise RuntimeError(_first_error(str(error))) from None
    sessions.keep_input(bundle, out)


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens what `convert` wrote."""
    from iree import runtime

    if threads > 1:
        runtime.flags.parse_flags(f"--task_topology_group_count={threads}")
    config = runtime.Config("local-task" if threads > 1 else "local-sync")
    module = runtime.VmModule.mmap(config.vm_instance, str(bundle / FILE))
    (name,) = (name for name in module.function_names if "$" not in name and not name.startswith("__"))
    function = runtime.load_vm_module(module, config)[name]

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        return [np.array(found) for found in function(x)]

    return sessions.session(run, sessions.kept_input(bundle))


def _first_error(text: str) -> str:
    """The first error in a compiler's messages."""
    lines = [line for line in text.splitlines() if "error:" in line]
    return one_line(lines[0].partition("error:")[2] if lines else text, 300)
