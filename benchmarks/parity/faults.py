"""Whether the parity check passes every correct graph and no faulty one: 34 networks, each with injected faults.

    python -m benchmarks.parity.faults [--models timm/resnet18@224 …] [--json FILE]

The networks are timm's and torchvision's at their own size, on crops of natural images. Weights are random, and
parameters that start at zero are perturbed, since a branch of zeros hides faults. Each network is exported and checked
as by `poolzoo export`. Then a fault is injected into its graph, and it is checked again: red and blue swapped, the mean
off by a hundredth, all weights off by a thousandth, a kernel mirrored, the classes rotated by one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from benchmarks.export import cases
from poolzoo.common.errors import PoolzooError
from poolzoo.export import graph
from poolzoo.parity.check import check_parity
from poolzoo.parity.reference import Reference
from poolzoo.runtime import ort_session

MODELS: Final = (
    *("timm/resnet18@32", "timm/resnet18@224", "timm/resnet50@224", "timm/mobilenetv3_small_050@224"),
    *("timm/efficientnet_b0@224", "timm/tf_efficientnet_lite0@224", "timm/convnext_atto@224"),
    *("timm/vit_tiny_patch16_224@224", "timm/deit3_small_patch16_224@224", "timm/swin_tiny_patch4_window7_224@224"),
    *("timm/poolformer_s12@224", "timm/mobilevit_xxs@256", "timm/regnety_002@224", "timm/densenet121@224"),
    *("timm/vgg11@224", "timm/mobileone_s0@224", "timm/fastvit_t8@256", "timm/efficientvit_m0@224"),
    *("timm/ghostnet_100@224", "timm/resnet18d@224", "timm/resnetblur50@224", "timm/tresnet_m@224"),
    *("timm/coatnet_0_rw_224@224", "timm/repvgg_a0@224", "timm/efficientformerv2_s0@224"),
    *("timm/edgenext_xx_small@256", "timm/mambaout_femto@224", "torchvision/resnet18@224"),
    *("torchvision/squeezenet1_1@224", "torchvision/shufflenet_v2_x0_5@224", "torchvision/vit_b_16@224"),
    *("torchvision/mobilenet_v3_small@224", "torchvision/maxvit_t@224", "nano/resnet@32"),
)

IMAGES: Final = 12  # photographs, beside the seven edge images
Tensors = dict[str, np.ndarray]


def _kernels(tensors: Tensors) -> list[str]:
    return [name for name, value in tensors.items() if value.ndim == 4 and min(value.shape[2:]) > 1]


def swapped_channels(tensors: Tensors) -> Tensors:
    """Blue for red in whatever meets the image first."""
    name = next(name for name, value in tensors.items() if value.ndim == 4 and value.shape[1] == 3 < value.shape[0])
    return {name: tensors[name][:, ::-1]}


def wrong_mean(tensors: Tensors) -> Tensors:
    """The mean that the image is normalized with, by a hundredth of the range."""
    name = next(name for name, value in tensors.items() if "mean" in name and value.size == 3)
    return {name: tensors[name] + np.float32(0.01)}


def stale_weights(tensors: Tensors) -> Tensors:
    """Every matrix and kernel a thousandth off, as from an earlier checkpoint."""
    random = np.random.default_rng(0)
    return {
        name: value * (1 + np.float32(1e-3) * random.standard_normal(value.shape).astype(np.float32))
        for name, value in tensors.items()
        if value.ndim in (2, 4) and value.size > 256
    }


def flipped_layer(tensors: Tensors) -> Tensors:
    """A kernel in the middle, mirrored."""
    names = _kernels(tensors)
    name = names[len(names) // 2]
    return {name: tensors[name][..., ::-1]}


def moved_classes(tensors: Tensors) -> Tensors:
    """The classifier's rows, moved on by one."""
    name, value = [(name, value) for name, value in tensors.items() if value.ndim == 2][-1]
    classes = {10, 1000} & set(value.shape)
    return {name: np.roll(value, 1, value.shape.index(classes.pop()))}


FAULTS: Final[tuple[Callable[[Tensors], Tensors], ...]] = (
    swapped_channels,
    wrong_mean,
    stale_weights,
    flipped_layer,
    moved_classes,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME@PIXELS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    given = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    rows = []
    for text in given.models:
        started = time.perf_counter()
        try:
            row = check(text)
        except (PoolzooError, RuntimeError) as error:
            row = {"model": text, "passed": False, "error": str(error).splitlines()[0]}
        row["seconds"] = round(time.perf_counter() - started)
        rows.append(row)
        if given.json:
            given.json.write_text(json.dumps(rows, indent=1))
        print("; ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    alarms = [row["model"] for row in rows if not row["passed"]]
    missed = [(row["model"], name) for row in rows for name in row.get("missed", ())]
    planted = sum(row.get("planted", 0) for row in rows)
    print(f"{len(rows)} networks, {len(alarms)} false alarms {alarms or ''}")
    print(f"{planted} faults planted, {len(missed)} missed {missed or ''}")


def check(text: str) -> dict[str, Any]:
    """Exports a network, checks its parity, and checks it again with each fault."""
    source = cases.make(text, None).source()
    source = replace(source, images=source.images[:IMAGES])
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        written = graph.export_graph(source, file)
        reference = Reference.compute(source.model, source.images, None)
        opened = ort_session.open_model(file, "cpu", threads)
        report = check_parity(reference, file, written.layers, opened, threads)
        missed, planted = [], 0
        probes = [one for one in report.probes if one.max_abs is not None and one.allowed]
        whole = onnx.load(file)
        for fault in FAULTS:
            try:
                spoiled = _planted(whole, fault)
            except (StopIteration, IndexError, KeyError):  # it has no such layer
                continue
            planted += 1
            onnx.save(spoiled, file)
            opened = ort_session.open_model(file, "cpu", threads)
            if check_parity(reference, file, written.layers, opened, threads).passed:
                missed.append(fault.__name__)
    return {
        "model": text,
        "passed": report.passed,
        "max_abs": report.noise.worst.max_abs,
        "allowed": report.noise.worst.allowed,
        "relative": report.outputs.relative,
        "floor": report.outputs.noise_floor,
        "worst": round(report.noise.worst.max_abs / report.noise.worst.allowed, 3),
        "worst_probe": round(max(one.max_abs / one.allowed for one in probes), 3),
        "failed_probes": [f"{one.part}: {one.probe}: {one.note}" for one in report.probes if not one.passed],
        "planted": planted,
        "missed": missed,
    }


def _planted(proto: onnx.ModelProto, fault: Callable[[Tensors], Tensors]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    tensors = {one.name: one for one in copy.graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
    changed = fault({name: numpy_helper.to_array(one) for name, one in tensors.items()})
    for name, value in changed.items():
        tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return copy


if __name__ == "__main__":
    main()
