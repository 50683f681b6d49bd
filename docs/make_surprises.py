"""Writes docs/surprises/*.md from the headers of findings/*.sh, and from what poolzoo does about each.

python docs/make_surprises.py

A test compares the pages with what this would write. A finding without a page is shown on the first one.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "surprises"
FIELDS = {
    "One would guess": "One would guess",
    "What happens": "What happens",
    "Output": "Shown",
    "Hurt": "Who is affected",
    "Way out": "Way out",
    "Seen": "Versions",
}
TOPICS = {
    "graphs": (
        "Exporters and graphs",
        "What becomes of a network on its way to an ONNX file, and of the file in tools.",
    ),
    "runtimes": (
        "Runtimes",
        "Valid graphs that a runtime computes as something else, without a message. "
        "`poolzoo verify BUNDLE --runtime NAME` runs a bundle in each and compares the outputs with ONNX Runtime's.\n"
        "It finds a wrong answer whatever its cause. `export` writes forms that all compute alike where one exists.",
    ),
    "precision": ("Half precision and int8", "What fewer bits change beside the last digit."),
    "files": ("Images, data and files", "What readers and writers of files do with valid ones."),
}
# Script: its page, and what poolzoo does about it; "" where it never meets the case.
FINDINGS = {
    "torch-export-deletes-epsilon": (
        "graphs",
        "The poolings guard with `clamp`. The parity check feeds zeros to every layer that torch did not write, and "
        "`plugin check` exports a layer and runs it on zeros.",
    ),
    "torch-export-follows-memory-format": ("graphs", ""),
    "onnxruntime-import-keeps-telemetry": (
        "runtimes",
        "Every command sets `ORT_DISABLE_TELEMETRY=1` unless you set it. `predict.py` and your own programs do not.",
    ),
    "torch-export-opset-17": (
        "graphs",
        "`export` writes opset 18 or later. For a runtime that needs less, `runtime/opsets.py` lowers a copy, and the "
        "copy's outputs are compared like any other's.",
    ),
    "onnx-converter-changes-softmax": (
        "graphs",
        "A lowered copy of a graph is judged by its outputs before a bundle has it.",
    ),
    "onnx-extract-forgets-captured-values": ("graphs", ""),
    "onnx-reference-is-no-oracle": (
        "graphs",
        "The reference of the parity check is the torch network in float64. The evaluator is a second witness only.",
    ),
    "onnx-reference-sums-stop-growing": (
        "graphs",
        "Half arithmetic is computed by kernels of `runtime/half_kernels.py`, whose sums are those of hardware.",
    ),
    "softmax-before-opset-13": (
        "graphs",
        "Bundles have opset 18 or later. `verify FILE.onnx --against` compares an older file with its module.",
    ),
    "resize-scales-round-down": (
        "graphs",
        "`export` writes scales that give the right size by either rounding.",
    ),
    "timm-loads-vit-without-its-norm": (
        "graphs",
        "`--pretrained` puts the norm behind the pooling, as published: [weights](../reference/weights.md).",
    ),
    "emx-batch-called-n": ("graphs", ""),
    "onnx2tf-writes-over-its-input": (
        "graphs",
        "`litert` converts a copy, and writes `Clip` with a small floor as `Relu(x - floor) + floor` first.",
    ),
    "gelu-form-not-honored": (
        "runtimes",
        "`export` writes exact GELU in the one order of operators that ONNX Runtime merges and OpenCV takes.",
    ),
    "iree-average-pool-dynamic-batch": ("runtimes", "`export` leaves out `ceil_mode` where the windows fit."),
    "iree-uint8-is-signed": ("runtimes", ""),
    "logsumexp-overflows": (
        "runtimes",
        "Half arithmetic computes it as written too, so an overflow is seen on any machine.",
    ),
    "lp-pool-ceil-mode-two-ways": ("runtimes", ""),
    "max-pooling-of-nan-and-infinity": (
        "runtimes",
        "The parity check excepts these operators by name when it compares NaN and infinity. An image with NaN in its "
        "logits gets no label.",
    ),
    "mnn-cubic-first-pixels": (
        "runtimes",
        "`export --input photo` resizes by products with the filter's weights, not by `Resize`.",
    ),
    "mnn-l2-axes-input": ("runtimes", "`export` writes norms as sums of squares or magnitudes."),
    "mnn-pool-ignores-dilations": ("runtimes", ""),
    "mnn-remainder-is-floored": ("runtimes", "`verify --runtime mnn` names the pattern."),
    "mnn-same-lower": ("runtimes", ""),
    "onnx2tf-drops-attributes": (
        "runtimes",
        "`verify --runtime litert` names `Elu` and reductions of nothing.",
    ),
    "onnx2torch-negative-axes": (
        "runtimes",
        "`verify --runtime` names both patterns for onnx2torch, ExecuTorch and Core ML.",
    ),
    "executorch-remainder-of-integers": ("runtimes", "`verify --runtime executorch` names the pattern."),
    "ncnn-power-of-negative": (
        "runtimes",
        "For ncnn, whole powers become products, and what is raised to another power is at least the smallest positive "
        "number.",
    ),
    "pnnx-forgets-single-axis": ("runtimes", "For ncnn, a reduction over any axes becomes a global pooling."),
    "onnxruntime-pad-merged-into-pool": (
        "runtimes",
        "The graph is compared as it will run, with all optimizations. `export --debug` names `Pad_Fusion`.",
    ),
    "onnxruntime-transpose-of-two-axes": ("runtimes", ""),
    "opencv-average-pool-borders": (
        "runtimes",
        "`export` pads the map and scales each window, so that no average has partial windows.",
    ),
    "opencv-softmax-negative-scale": (
        "runtimes",
        "Calibrated graphs have no negative factor before a softmax, and `verify --runtime opencv` names the pattern.",
    ),
    "opencv-fuses-foreign-gate": ("runtimes", "`export` writes a hard sigmoid as `Clip`, which nothing fuses wrongly."),
    "openvino-nan-is-greater": ("runtimes", "`accepted` of a bundle is written so that NaN is never accepted."),
    "openvino-reduce-opset13": ("runtimes", "Bundles have opset 18 or later, and norms are sums."),
    "coremltools-drops-options": (
        "runtimes",
        "`--target coreml` converts the ONNX graph of the bundle, where none of these options is left.",
    ),
    "coremltools-reciprocal-adds-epsilon": ("runtimes", "`--target coreml` divides one by x where the graph does."),
    "coremltools-rms-norm-of-zeros": (
        "runtimes",
        "`--target coreml` converts the ONNX graph of the bundle, in which the norm is written out.",
    ),
    "resize-antialias-ignored": (
        "runtimes",
        "`export --input photo` has no `Resize`. Its pixels are compared with Pillow's, level by level.",
    ),
    "tinygrad-jit-keeps-views": ("runtimes", ""),
    "tract-global-lp-pool": ("runtimes", ""),
    "tract-refuses-half-gemm": ("runtimes", ""),
    "tract-unifies-names-of-sizes": ("runtimes", ""),
    "float16-converter-clamps-at-10000": (
        "precision",
        "`--precision fp16` keeps a node in float32 if rounding would lose a weight, an epsilon or a constant.",
    ),
    "onnxruntime-cpu-hides-half-overflow": (
        "precision",
        "`export --precision fp16` and `verify` compute the graph in half arithmetic, node by node.",
    ),
    "onnxruntime-calibration-forgets-batches": (
        "precision",
        "int8 ranges are computed inside the graph, over all batches: `export/ranges.py`.",
    ),
    "onnxruntime-quantizes-excluded-layers": (
        "precision",
        "A `Concat` of one value before a layer in float32 keeps the optimizer away from it.",
    ),
    "onnxruntime-softmax-int8-overflow": ("precision", "The same `Concat` keeps a softmax in float32."),
    "quantize-rounds-after-zero-point": ("precision", ""),
    "numpy-files-forget-bfloat16": ("precision", ""),
    "datasets-cannot-load-an-empty-split": ("files", "`hf:` and `parquet:` name the split without rows."),
    "datasets-classes-of-all-splits": (
        "files",
        "Classes are those of the training split. A class that only another split has is an error in one line.",
    ),
    "datasets-goes-by-modification-time": (
        "files",
        "The key of the cache has path, size and time in nanoseconds of every file.",
    ),
    "exif-object-loses-orientation": ("files", ""),
    "pillow-13-resizes-vertically-first": (
        "files",
        "The order is part of the resize that `export --input photo` writes into the graph.",
    ),
    "pillow-appends-no-saved-image": ("files", ""),
    "pillow-rotates-16-bit-bytes": (
        "files",
        "Images are brought to eight bits when they are read, before anything turns them.",
    ),
    "pillow-tiff-turns-twice": ("files", "The reader turns an image once: [image files](../reference/images.md)."),
    "safetensors-numpy-scrambles-transposed": (
        "files",
        "Weights are written from contiguous tensors by `safetensors.torch`, which refuses others.",
    ),
    "torch-float64-convolution-unfolds-batch": (
        "precision",
        "The reference in float64 computes batches whose unfolded input is small.",
    ),
    "torch-writes-bytes-slowly": ("files", "Batches of bytes are put together through numpy."),
    "webdataset-first-dot": (
        "files",
        "`shards:` follows the same rule, and refuses two images of one ending in a sample: [data](../how-to/data.md).",
    ),
}


def render() -> dict[str, str]:
    """The pages by name."""
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "findings").glob("*.sh"))}
    pages = {"index": _index(scripts)}
    for topic, (title, text) in TOPICS.items():
        entries = [_entry(name, scripts[name]) for name in scripts if FINDINGS.get(name, ("",))[0] == topic]
        pages[topic] = "\n".join([f"# {title}\n", f"{text}\n", *entries]).rstrip() + "\n"
    return pages


def _index(scripts: dict[str, str]) -> str:
    rows = []
    for topic, (title, _) in TOPICS.items():
        rows += [f"| **[{title}]({topic}.md)** |"]
        names = [name for name in scripts if FINDINGS.get(name, ("",))[0] == topic]
        rows += [f"| [{_escaped(_title(scripts[name]))}]({topic}.md#{name}) |" for name in names]
    others = [_entry(name, text) for name, text in scripts.items() if name not in FINDINGS]
    return (
        f"""# Surprises

{len(scripts)} things that runtimes, exporters and formats do on valid input, and that one would not guess. Each was met
while poolzoo was made. Each has a script in [findings/](../../findings/README.md), which installs the versions that it
names, shows the behavior without poolzoo, and exits with 1 once it has changed.

`python docs/make_surprises.py` generates these pages from the scripts.

| what happens |
|---|
"""
        + "\n".join(rows)
        + "\n"
        + ("\n## Others\n\n" + "\n".join(others) if others else "")
    )


def _title(script: str) -> str:
    """The second line of a script: the behavior in a sentence."""
    return script.splitlines()[1].removeprefix("# ").rstrip(".")


def fields(script: str) -> dict[str, str]:
    """The header of a script by field, each on one line."""
    found: dict[str, str] = {}
    for line in script.splitlines()[3:]:
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        key, colon, rest = text.partition(": ")
        if colon and not line.startswith("#  ") and key in FIELDS:
            found[key] = rest
        elif found:
            found[next(reversed(found))] += f" {text}"
    return found


def _entry(name: str, script: str) -> str:
    found = fields(script)
    lines = [f'### <a id="{name}"></a>{_escaped(_title(script))}\n']
    lines += [f"* **{words}**: {_escaped(found[key])}" for key, words in FIELDS.items() if key in found]
    if answer := FINDINGS.get(name, ("", ""))[1]:
        lines.append(f"* **In poolzoo**: {answer}")
    lines.append(f"* **Script**: [{name}.sh](../../findings/{name}.sh)")
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    """Text whose characters mean nothing to Markdown, but for code in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    plain = [re.sub(r"([*\[\]|$]|(?<!\w)_|_(?!\w))", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "".join(one for pair in zip(plain, [*parts[1::2], ""], strict=True) for one in pair)


if __name__ == "__main__":
    for page, content in render().items():
        (PAGES / f"{page}.md").write_text(content, encoding="utf-8")
