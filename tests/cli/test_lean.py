"""What a command keeps in memory: which libraries it loads, and what is given back when it is no longer needed."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from poolzoo.metrics import classification
from poolzoo.runtime import ort_session


def test_training_loads_no_scikit_learn():
    code = "import sys, poolzoo.train.run; print(*({'sklearn', 'scipy', 'matplotlib', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("seed", range(20))
def test_figures_are_those_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    count, images = int(random.integers(2, 9)), int(random.integers(1, 40))
    labels = random.integers(0, random.integers(1, count + 1), images)
    logits = random.standard_normal((images, count)).astype(np.float32)
    if seed % 2:
        logits[0] = np.nan
    got = classification.compute(logits, labels, [f"class {index}" for index in range(count)])
    predicted, indices = classification.predictions(logits), np.arange(count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        *ratios, support = precision_recall_fscore_support(
            labels, predicted, labels=indices, average=None, zero_division=0.0
        )
    assert [list(row) for row in got.confusion] == confusion_matrix(labels, predicted, labels=indices).tolist()
    for key, values in zip(("precision", "recall", "f1"), ratios, strict=True):
        reported = [getattr(row, key) for row in got.per_class]
        assert reported == [value if n else None for value, n in zip(values, support, strict=True)]
        assert getattr(got, key) == values[support > 0].mean()


class Watched:
    """A session that notes what each batch is run with."""

    def __init__(self, session):
        self.session, self.entries = session, []

    def run(self, names, feed, options):
        key = "memory.enable_memory_arena_shrinkage"
        self.entries.append(options and options.get_run_config_entry(key))
        return self.session.run(names, feed, options)


@pytest.mark.parametrize(("provider", "last"), [("CPUExecutionProvider", "cpu:0"), ("CUDAExecutionProvider", None)])
def test_session_memory_is_released_after_the_last_batch(provider, last):
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 2, 2, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 12]) for name in ("logits", "probabilities")
    ]
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["logits"], to=TensorProto.FLOAT),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(nodes, "flat", [images], outputs)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(content)
    session = Watched(onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"]))
    model = ort_session.OnnxModel(session, provider, {"input": '{"kind": "uint8", "height": 2, "width": 2}'})
    pixels = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), dtype=np.uint8)
    logits, _ = ort_session.run_in_batches(model, pixels, 2)
    assert np.array_equal(logits, pixels.reshape(5, 12))
    assert session.entries == [None, None, last]
