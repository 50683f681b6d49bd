"""A network to a bundle: graph, parity, speed, card; it appears whole, and only where the graph is the network's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from poolzoo import bundle, host, output
from poolzoo.deploy import graph, parity, runtime, speed
from poolzoo.deploy.subject import Subject
from poolzoo.errors import CheckFailed

MOST_LABELS: Final = 20  # that the card names


@contextmanager
def _torch_threads(count: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def export(
    subject: Subject, out: Path, *, provider: str = "auto", threads: int | None = None, timed: bool = True
) -> dict[str, Any]:
    """Exports a network, checks the graph and measures it.

    Args:
        subject: The network.
        out: The bundle's directory, which must not exist.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Threads of torch and of ONNX Runtime alike; None for torch's own choice.
        timed: Whether to measure speed.

    Returns:
        The report that `export --json` prints. Where parity failed, its `bundle` is None and nothing was left at `out`.
    """
    bundle.require_free(out)
    runtime.choose_provider(provider)  # a provider without a device fails before the work, not after it
    with _torch_threads(threads) as count, bundle.appearing(out) as place:
        file = place / "model.onnx"
        output.say("exporting")
        opset = graph.export_graph(subject, file)
        opened = runtime.open_model(file, provider, count)
        output.say("checking parity")
        verdict = parity.check(subject.model, opened, subject.images, subject.image_labels)
        report: dict[str, Any] = {
            "bundle": str(out),
            "parity": verdict.report,
            "speed": {},
            "provider": opened.provider,
            "opset": opset,
        }
        if not verdict.passed:
            raise ParityFailed({**report, "bundle": None}, subject.remedy)
        if timed:
            output.say("measuring speed")
            device = "cpu" if opened.provider == runtime.PROVIDERS["cpu"] else "cuda"
            report["speed"] = speed.against_torch(subject.model, opened, subject.images, device)
        measured = {"speed": report["speed"], "provider": opened.provider, "environment": speed.environment(count)}
        compared = {"compared_on": {key: verdict.report[key] for key in ("images", "n")}}
        export_facts = {"opset": opset, "input": "uint8", "precision": "fp32", **subject.origin, **compared}
        bundle.write_json(place / "config.json", {**subject.config, "export": export_facts})
        bundle.write_json(place / "parity.json", verdict.report)
        bundle.write_json(place / "speed.json", measured)
        with (place / "golden.npz").open("wb") as golden:
            np.savez_compressed(golden, **verdict.golden)
        bundle.write_atomically(place / "README.md", _card(subject, report))
        bundle.seal(place, "bundle")
    host.catalog().announce("poolzoo_exported", bundle=str(out), report=report)
    return report


class ParityFailed(CheckFailed):
    """The graph does not compute what the network computes; `report` says where."""

    def __init__(self, report: dict[str, Any], remedy: str) -> None:
        super().__init__(parity.explain(report["parity"]), f"nothing was written; {remedy}, or report it as a bug")
        self.report = report


def _card(subject: Subject, report: dict[str, Any]) -> str:
    """The bundle's `README.md`, from what was measured."""
    agreement = report["parity"]
    if "accuracy" in agreement:
        accuracy = f"{agreement['accuracy']['onnxruntime']:.4f} here, {agreement['accuracy']['torch']:.4f} in torch."
    else:
        accuracy = "not measured, because no labelled images come with the network."
    few = subject.classes[:MOST_LABELS]
    more = f", … ({len(subject.classes)}; `config.json` has all)" if len(subject.classes) > MOST_LABELS else ""
    rows = "\n".join(
        f"| {size} | {row['torch_ms']:.2f} | {row['ort_ms']:.2f} | {row['speedup']:.2f}× |"
        for size, row in report["speed"].items()
    )
    (height, width), edges = subject.size, len(agreement["max_abs_by_edge"])
    fit, bleed = subject.fit, (1 - subject.fit.crop_pct) / 2
    return f"""---
library_name: onnx
tags: [image-classification, poolzoo]
license: {subject.license}
---

# {subject.title}, for ONNX Runtime

`model.onnx` (opset {report["opset"]}) takes `images`, uint8 `[N, {height}, {width}, 3]` in RGB, any N, and gives
`logits` and `probabilities`. Normalisation and resizing are inside. Give it photographs of another size as
`poolzoo predict` does: {fit.interpolation}, and of the shorter side the central {fit.crop_pct:.1%}.

    import numpy, onnxruntime
    from PIL import Image, ImageOps
    session = onnxruntime.InferenceSession("model.onnx")
    photo = Image.open("photo.jpg").convert("RGB")
    image = numpy.asarray(ImageOps.fit(photo, ({width}, {height}), Image.{fit.interpolation.upper()}, bleed={bleed:g}))
    logits, probabilities = session.run(None, {{"images": image[None]}})

Labels: {"; ".join(few)}{more}.

It was compared with the network on {agreement["n"]} {agreement["images"]} images and {edges} edge images, at batches
{", ".join(map(str, agreement["batches"]))}. The largest difference is {agreement["max_abs"]:.2e}
({agreement["tolerance"]:.2e} is allowed), and the first choice agrees on {agreement["top1_agreement"]:.2%} of them.
Accuracy: {accuracy}

| batch | torch eager, ms | ONNX Runtime, ms | speed-up |
|---|---|---|---|
{rows}

`poolzoo verify` with this directory checks the files and repeats the comparison; `poolzoo predict` runs it on images.
"""
