"""The built-in runtimes: a plugin like any other. The session of each is in a file beside this one."""

from __future__ import annotations

from collections.abc import Iterator

from poolzoo.plugin.spec import Runtime, hookimpl


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
    )
