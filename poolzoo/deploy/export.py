"""A run to a bundle: graph, parity, speed, card; it appears whole, and only where the graph agrees with the network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poolzoo import bundle, host, output
from poolzoo.deploy import graph, parity, runtime, speed
from poolzoo.errors import CheckFailed
from poolzoo.runs import Run


@contextmanager
def _torch_threads(count: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def export(
    run: Run, out: Path, *, provider: str = "auto", threads: int | None = None, timed: bool = True
) -> dict[str, Any]:
    """Exports a run, checks the graph and measures it.

    Args:
        run: The trained network.
        out: The bundle's directory, which must not exist.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Threads of torch and of ONNX Runtime alike; None for torch's own choice.
        timed: Whether to measure speed.

    Returns:
        The report that `export --json` prints. Where parity failed, its `bundle` is None and nothing was left at `out`.
    """
    bundle.require_free(out)
    runtime.choose_provider(provider)  # a provider without a device fails before the work, not after it
    samples = run.samples()
    with _torch_threads(threads) as count, bundle.appearing(out) as place:
        file = place / "model.onnx"
        output.say("exporting")
        opset = graph.export_graph(run, file, _provenance(run))
        opened = runtime.open_model(file, provider, count)
        model = graph.Deployable(run.preprocess, run.network).eval()
        output.say("checking parity")
        verdict = parity.check(model, opened, samples["test_images"], samples["test_labels"])
        report: dict[str, Any] = {
            "bundle": str(out),
            "parity": verdict.report,
            "speed": {},
            "provider": opened.provider,
            "opset": opset,
        }
        if not verdict.passed:
            raise ParityFailed({**report, "bundle": None})
        if timed:
            output.say("measuring speed")
            device = "cpu" if opened.provider == runtime.PROVIDERS["cpu"] else "cuda"
            report["speed"] = speed.against_torch(model, opened, samples["test_images"], device)
        measured = {"speed": report["speed"], "provider": opened.provider, "environment": speed.environment(count)}
        export_facts = {"opset": opset, "input": "uint8", "precision": "fp32", "run": run.path.name}
        bundle.write_json(place / "config.json", {**run.config, "export": export_facts})
        bundle.write_json(place / "parity.json", verdict.report)
        bundle.write_json(place / "speed.json", measured)
        with (place / "golden.npz").open("wb") as golden:
            np.savez_compressed(golden, **verdict.golden)
        bundle.write_atomically(place / "README.md", _card(run, report))
        bundle.seal(place, "bundle")
    host.catalog().announce("poolzoo_exported", bundle=str(out), report=report)
    return report


class ParityFailed(CheckFailed):
    """The graph does not compute what the network computes; `report` says where."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(
            parity.explain(report["parity"]), "nothing was written; try another --pool, or report it as a bug"
        )
        self.report = report


def _provenance(run: Run) -> dict[str, Any]:
    weights = hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()
    return {
        "poolzoo": {key: run.config["poolzoo"][key] for key in ("backbone", "pool", "local_pool", "plugins")},
        "versions": {name: version(name) for name in ("poolzoo", "torch", "onnx", "onnxscript")},
        "weights_sha256": weights,
    }


def _card(run: Run, report: dict[str, Any]) -> str:
    """The bundle's `README.md`, from what was measured."""
    ours, agreement = run.config["poolzoo"], report["parity"]
    rows = "\n".join(
        f"| {size} | {row['torch_ms']:.2f} | {row['ort_ms']:.2f} | {row['speedup']:.2f}× |"
        for size, row in report["speed"].items()
    )
    height, width = run.data_size
    return f"""---
library_name: onnx
tags: [image-classification, poolzoo]
license: {run.config["pretrained_cfg"]["license"] or "unknown"}
---

# {ours["backbone"]} with {ours["pool"]} pooling on {ours["data"]}, for ONNX Runtime

`model.onnx` (opset {report["opset"]}) takes `images`, uint8 `[N, {height}, {width}, 3]` in RGB, any N, and gives
`logits` and `probabilities`. Normalisation and resizing are inside.

    import numpy, onnxruntime
    from PIL import Image
    session = onnxruntime.InferenceSession("model.onnx")
    image = numpy.asarray(Image.open("photo.jpg").convert("RGB").resize(({width}, {height})))
    logits, probabilities = session.run(None, {{"images": image[None]}})

Labels: {", ".join(run.classes)}.

It was compared with the network on {agreement["n"]} test images and {len(agreement["max_abs_by_edge"])} edge images,
at batches {", ".join(map(str, agreement["batches"]))}. The largest difference is {agreement["max_abs"]:.2e}
({agreement["tolerance"]:.2e} is allowed), and the first choice agrees on {agreement["top1_agreement"]:.2%}.
Accuracy: {agreement["accuracy"]["onnxruntime"]:.4f} here, {agreement["accuracy"]["torch"]:.4f} in torch.

| batch | torch eager, ms | ONNX Runtime, ms | speed-up |
|---|---|---|---|
{rows}

`poolzoo verify` with this directory checks the files and repeats the comparison; `poolzoo predict` runs it on images.
"""
