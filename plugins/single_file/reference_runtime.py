"""A complete runtime in one file: poolzoo verify BUNDLE --plugin reference_runtime.py --runtime onnx-reference"""

from poolzoo import Runtime, hookimpl


def open_session(bundle, *, threads, device, precision):
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(bundle / "model.onnx"))

    def run(images):  # uint8[N, h, w, 3] → float32[N, K] twice
        logits, probabilities = evaluator.run(["logits", "probabilities"], {"images": images})
        return logits, probabilities

    return run


@hookimpl
def poolzoo_runtimes():
    yield Runtime(
        name="onnx-reference",
        summary="the reference evaluator of the onnx package, in numpy",
        open=open_session,
        install="pip install onnx",
        modules=("onnx",),
        distributions=("onnx",),
    )
