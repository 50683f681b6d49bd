"""The built-in runtimes: a plugin like any other. The session of each is in a file beside this one."""

from __future__ import annotations

from collections.abc import Iterator

from poolzoo.plugin.spec import GraphForm, Runtime, hookimpl


@hookimpl
def poolzoo_runtimes() -> Iterator[Runtime]:
    yield Runtime(
        name="onnxruntime",
        summary="ONNX Runtime, which every other runtime is compared with",
        open="poolzoo.runtime.builtin.ort:open_session",
        install="pip install onnxruntime",
        modules=("onnxruntime",),
        distributions=("onnxruntime", "onnxruntime-gpu"),
        devices=("cpu", "cuda", "tensorrt"),
    )
    yield Runtime(
        name="openvino",
        summary="OpenVINO on the CPU",
        open="poolzoo.runtime.builtin.openvino:open_session",
        install="pip install 'poolzoo[openvino]'",
        modules=("openvino",),
        distributions=("openvino",),
    )
    yield Runtime(
        name="opencv",
        summary="OpenCV's DNN module with the engine of OpenCV 5",
        open="poolzoo.runtime.builtin.opencv:open_session",
        install="pip install 'poolzoo[opencv]'",
        modules=("cv2",),
        distributions=("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    )
    yield Runtime(
        name="tract",
        summary="tract, in Rust, on one thread",
        open="poolzoo.runtime.builtin.tract:open_session",
        install="pip install 'poolzoo[tract]'",
        modules=("tract",),
        distributions=("tract",),
        form=GraphForm(dynamic_slices=False),
    )
    yield Runtime(
        name="mnn",
        summary="MNN, converted by the functions of its wheel",
        open="poolzoo.runtime.builtin.mnn:open_session",
        convert="poolzoo.runtime.builtin.mnn:convert",
        install="pip install 'poolzoo[mnn]'",
        modules=("MNN",),
        distributions=("MNN",),
    )
    yield Runtime(
        name="ncnn",
        summary="ncnn, converted by pnnx: float input, one image at a time",
        open="poolzoo.runtime.builtin.ncnn:open_session",
        convert="poolzoo.runtime.builtin.ncnn:convert",
        install="pip install 'poolzoo[ncnn]'",
        modules=("ncnn", "pnnx"),
        distributions=("ncnn", "pnnx"),
        form=GraphForm(input="float", batch=1),
    )
    yield Runtime(
        name="iree",
        summary="IREE, compiled for this machine's CPU",
        open="poolzoo.runtime.builtin.iree:open_session",
        convert="poolzoo.runtime.builtin.iree:convert",
        install="pip install 'poolzoo[iree]'",
        modules=("iree.compiler", "iree.runtime", "onnx"),
        distributions=("iree-base-compiler", "iree-base-runtime"),
        converts_to_code=True,
    )
    yield Runtime(
        name="tvm",
        summary="Apache TVM on the CPU, not tuned",
        open="poolzoo.runtime.builtin.tvm:open_session",
        install="pip install 'poolzoo[tvm]'",
        modules=("tvm", "onnx"),
        distributions=("apache-tvm",),
    )
    yield Runtime(
        name="tinygrad",
        summary="tinygrad on the CPU, one image at a time",
        open="poolzoo.runtime.builtin.tinygrad:open_session",
        install="pip install 'poolzoo[tinygrad]', and clang",
        modules=("tinygrad",),
        programs=("clang",),
        distributions=("tinygrad",),
        form=GraphForm(batch=1),
    )
    yield Runtime(
        name="reference",
        summary="the reference evaluator of the onnx package: true to the standard, and slow",
        open="poolzoo.runtime.builtin.reference:open_session",
        install="pip install onnx",
        modules=("onnx",),
        distributions=("onnx",),
    )
    yield Runtime(
        name="onnx2torch",
        summary="onnx2torch: the graph as a torch module",
        open="poolzoo.runtime.builtin.onnx2torch:open_session",
        install="pip install 'poolzoo[onnx2torch]'",
        modules=("onnx2torch",),
        distributions=("onnx2torch", "torch"),
        form=GraphForm(opset=17),
    )
    yield Runtime(
        name="onnxruntime-web",
        summary="ONNX Runtime in WebAssembly, in node",
        open="poolzoo.runtime.builtin.web:open_session",
        install="npm install --global onnxruntime-web",
        programs=("node",),
        npm=("onnxruntime-web",),
    )
    yield Runtime(
        name="web",
        summary="a page that holds graph and runtime, for any browser; checked in headless Chromium",
        open="poolzoo.runtime.builtin.page:open_session",
        convert="poolzoo.runtime.builtin.page:convert",
        install="npm install --global onnxruntime-web; a check needs Chromium too",
        npm=("onnxruntime-web",),
        converts_to_code=True,
    )
    yield Runtime(
        name="litert",
        summary="LiteRT (TensorFlow Lite), converted by onnx2tf: one image at a time",
        open="poolzoo.runtime.builtin.litert:open_session",
        convert="poolzoo.runtime.builtin.litert:convert",
        install="pip install 'poolzoo[litert]', with Python 3.12 or newer",
        modules=("onnx2tf", "ai_edge_litert", "onnx"),
        distributions=("ai-edge-litert", "onnx2tf"),
        form=GraphForm(batch=1),
    )
    yield Runtime(
        name="executorch",
        summary="ExecuTorch with XNNPACK, by way of onnx2torch: float input, one image at a time",
        open="poolzoo.runtime.builtin.executorch:open_session",
        convert="poolzoo.runtime.builtin.executorch:convert",
        install="pip install 'poolzoo[executorch]'",
        modules=("executorch.exir", "onnx2torch", "torch", "onnx"),
        distributions=("executorch", "onnx2torch"),
        form=GraphForm(input="float", batch=1, opset=17),
    )
    yield Runtime(
        name="coreml",
        summary="Core ML, by way of onnx2torch: converted anywhere, run on macOS alone, one image at a time",
        open="poolzoo.runtime.builtin.coreml:open_session",
        convert="poolzoo.runtime.builtin.coreml:convert",
        install="pip install 'poolzoo[coreml]'",
        modules=("coremltools", "onnx2torch", "torch", "onnx"),
        distributions=("coremltools", "onnx2torch"),
        form=GraphForm(input="float", batch=1, opset=17),
    )
