"""A graph that takes photographs in one runtime, in a process of its own.

python -m benchmarks.export.photo_runtimes RUNTIME FOLDER

The folder holds `model.onnx` and `photographs.npz`; what is written is `RUNTIME.npz`, the outputs `pixels` and
`logits` of each photograph. Every runtime is given one thread and float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

OUTPUTS: Final = ("photo/pixels", "logits")
Run = Callable[[np.ndarray], Sequence[np.ndarray]]


def onnxruntime(file: Path) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda photo: session.run(OUTPUTS, {"images": photo})


def reference(file: Path) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(file))
    return lambda photo: evaluator.run(OUTPUTS, {"images": photo})


def openvino(file: Path) -> Run:
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ov.Core().compile_model(file, "CPU", settings)

    def run(photo: np.ndarray) -> Sequence[np.ndarray]:
        found = compiled({"images": photo})
        return [np.array(found[name]) for name in OUTPUTS]

    return run


def opencv(file: Path) -> Run:
    import cv2

    cv2.setNumThreads(1)
    network = cv2.dnn.readNetFromONNX(str(file))

    def run(photo: np.ndarray) -> Sequence[np.ndarray]:
        network.setInput(photo, "images")
        return [np.array(one) for one in network.forward(list(OUTPUTS))]

    return run


def tract(file: Path) -> Run:
    import tract as package

    runnable = package.onnx().load(str(file)).into_model().into_runnable()
    return lambda photo: [one.to_numpy() for one in runnable.run([photo])]


def mnn(file: Path) -> Run:
    import MNN.expr as expr
    import MNN.nn as nn
    from _tools import mnnconvert  # in this process: the command line would install a package

    converted = file.with_suffix(".mnn")
    mnnconvert(["", "-f", "ONNX", "--modelFile", str(file), "--MNNModel", str(converted), "--bizCode", "poolzoo"])
    network = nn.load_module_from_file(str(converted), ["images"], list(OUTPUTS))

    def run(photo: np.ndarray) -> Sequence[np.ndarray]:
        images = expr.placeholder(list(photo.shape), expr.NCHW, expr.uint8)
        images.write(photo.ravel().tolist())
        return [np.array(one.read()).reshape(one.shape) for one in network.forward([images])]

    return run


def iree(file: Path) -> Run:
    import iree.compiler.tools as compiler
    import iree.runtime as runtime

    text = file.with_suffix(".mlir")
    importer = Path(sys.executable).with_name("iree-import-onnx")
    subprocess.run([importer, file, "-o", text], check=True)
    extra = ["--iree-llvmcpu-target-cpu=host"]
    content = compiler.compile_file(str(text), target_backends=["llvm-cpu"], input_type="onnx", extra_args=extra)
    context = runtime.SystemContext(config=runtime.Config("local-sync"))
    module = runtime.VmModule.copy_buffer(context.instance, content)
    context.add_vm_module(module)
    (name,) = (one for one in module.function_names if "$" not in one and not one.startswith("__"))
    function = context.modules[module.name][name]
    return lambda photo: [one.to_host() for one in function(photo)]


OPENED: Final[Mapping[str, Callable[[Path], Run]]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "opencv": opencv,
    "tract": tract,
    "mnn": mnn,
    "iree": iree,
    "reference": reference,
}
PACKAGES: Final = {
    "opencv": "opencv-python-headless",
    "mnn": "MNN",
    "iree": "iree-base-compiler",
    "reference": "onnx",
}  # whose versions are shown, where they are not called as the runtime is
NODE: Final = "onnxruntime-web"  # in node; the folder with its node_modules is ONNXRUNTIME_WEB


def in_node(folder: Path, photographs: Sequence[np.ndarray]) -> tuple[str, list[list[np.ndarray]]]:
    """The version of onnxruntime-web, and its outputs for each photograph."""
    for index, photograph in enumerate(photographs):
        photograph.tofile(folder / f"{index}.raw")
    (folder / "shapes.json").write_text(json.dumps([list(one.shape) for one in photographs]))
    script = Path(__file__).with_name("photo_web.mjs").read_text(encoding="utf-8")
    command = ["node", "--input-type=module", "-", str(folder), *OUTPUTS]
    done = subprocess.run(
        command, input=script, cwd=os.environ["ONNXRUNTIME_WEB"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    found = json.loads(done.stdout)
    outputs = [
        [np.fromfile(folder / f"{index}.{name.replace('/', '-')}", np.float32).reshape(shape) for name, shape in shapes]
        for index, shapes in enumerate(found["shapes"])
    ]
    return found["version"], outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runtime", choices=[*OPENED, NODE])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    name, folder = given.runtime, given.folder
    with np.load(folder / "photographs.npz") as arrays:
        photographs = [arrays[str(index)][None] for index in range(len(arrays.files))]
    if name == NODE:
        release, outputs = in_node(folder, photographs)
    else:
        run, release = OPENED[name](folder / "model.onnx"), version(PACKAGES.get(name, name))
        outputs = [[np.asarray(one, np.float32) for one in run(photograph)] for photograph in photographs]
    pixels, logits = (np.concatenate(one) for one in zip(*outputs, strict=True))
    np.savez(folder / f"{name}.npz", pixels=pixels, logits=logits, version=release)


if __name__ == "__main__":
    main()
