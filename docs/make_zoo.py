"""Writes docs/reference/zoo.md from the catalog, the docstrings of the layers, and docs/results/pooling_kernels.json.

python docs/make_zoo.py

A test compares the page with what this would write.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from poolzoo.model import cost
from poolzoo.plugin import grammar, loader, spec

HERE = Path(__file__).parent
TITLE = """# The pooling zoo

`python docs/make_zoo.py` generates this page from the catalog. `poolzoo show NAME` prints the same for one strategy.

* A **global** pooling is the head: `float[N, C, H, W] → float[N, D]` for any N, H, W ≥ 1.
* A **local** pooling replaces each downsampling `MaxPool2d` or `AvgPool2d` inside the backbone:
  `float[N, C, H, W] → float[N, C, h, w]`. It keeps h and w of
  `nn.MaxPool2d(kernel_size, stride, padding, ceil_mode)`. `window=`, `stride=` and `padding=` change the geometry,
  as in `--local-pool max:window=3`. Padding belongs to no window, unless the layer says otherwise.
* `depth` and `s2d` change the number of channels. The `nano/` backbones measure it; other backbones refuse it.

Tests compare every strategy with an independent implementation: timm's, torch's, scipy's, or loops in numpy. Every
strategy passes the conformance kit `poolzoo.testing` and exports with a plain `torch.onnx.export`.
"""
_CACHEABLE = "none; behind a frozen backbone its output can be cached"
FAMILIES = {
    "windowed": "Means, maxima and their mixtures",
    "power": "Power and exponential means",
    "weighted": "Exponentially weighted means",
    "antialiased": "Anti-aliased and shift-invariant",
    "attention": "Attention",
    "second_order": "Second order",
    "encoding": "Encodings",
    "regions": "Grids, pyramids, strips",
    "stochastic": "Random in training",
    "frequency": "Frequency",
    "ordering": "By rank",
    "channels": "Across channels",
    "controls": "Controls",
}


def render() -> str:
    """The whole page."""
    catalog = loader.load_plugins(installed=False)
    found = [catalog.pooling(e.item.name, e.item.kind) for e in catalog.select(spec.Pooling)]
    parts = [TITLE, _overview(found)]
    for module, title in FAMILIES.items():
        members = [r for r in found if _module(r.item) == module]
        parts.append(f"## {title}\n\n`poolzoo/poolings/{module}.py`\n")
        parts += [_section(resolved) for resolved in members]
    parts.append(_costs(json.loads((HERE / "results" / "pooling_kernels.json").read_text())))
    return "\n".join(parts)


def _module(item: spec.Pooling) -> str:
    return str(item.build).partition(":")[0].rpartition(".")[2]


def _overview(found: list[loader.Resolved]) -> str:
    """A table with a row for each strategy, by family."""
    by_name: dict[str, list[spec.Pooling]] = {}
    for resolved in found:
        by_name.setdefault(resolved.item.name, []).append(resolved.item)
    lines = [f"{len(by_name)} strategies, {len(found)} layers:\n", "| strategy | kinds | output |", "|---|---|---|"]
    for module, title in FAMILIES.items():
        members = {name: items for name, items in by_name.items() if _module(items[0]) == module}
        lines += [f"| **{title}** | | |"] if members else []
        for name, items in members.items():
            kinds = ", ".join(sorted(item.kind for item in items))
            lines.append(f"| [`{name}`](#{name}-{items[0].kind}) | {kinds} | {_escaped(items[0].summary)} |")
    return "\n".join(lines) + "\n"


def _section(resolved: loader.Resolved) -> str:
    item, sizes = resolved.item, cost.layer_size(resolved)
    listed = ", ".join(
        f"`{o.name}={grammar.plain(o.default)}` ({o.type_name})" for o in grammar.options_of(resolved.build)
    )
    out_features, parameters = (
        ", ".join(f"{n:,} for C = {c}" for c, n in counts.items()) for counts in (sizes.out_features, sizes.parameters)
    )
    rows = [
        ("computes", f"`{item.equation}`"),
        ("options", listed or "none"),
        ("output features", out_features),
        ("parameters", parameters if any(sizes.parameters.values()) else _CACHEABLE),
        ("training", "draws at random; eval is deterministic" if item.stochastic else "as in eval"),
        ("paper", item.paper or "no canonical paper"),
    ]  # fmt: skip
    if item.kind == "local" or item.stochastic:
        rows[3] = (rows[3][0], rows[3][1].split(";")[0])
    table = "\n".join(f"| {key} | {_escaped(value)} |" for key, value in rows)
    doc = inspect.cleandoc(resolved.build.__doc__ or "")
    return f"### {item.name} ({item.kind})\n\n{doc.split(chr(10) + 'Args:')[0].strip()}\n\n| | |\n|---|---|\n{table}\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _costs(measured: dict[str, Any]) -> str:
    machine = measured["machine"]
    lines = [
        "## What they cost\n",
        f"`python -m benchmarks.poolings.kernels` on one thread of an {machine['processor']}, with torch",
        f"{machine['torch']} and ONNX Runtime {machine['onnxruntime']}. Times are medians of CPU time.\n",
        "* *Of sum* is the ratio to reading the feature map once (`x.sum()`).",
        "* *Of peer* is the ratio to the fastest other implementation of the same function. Below 1 is faster. The",
        "  noise is about 0.05, and more for the smallest times.",
        "* *Training* is forward and backward. Local layers have windows of 2 × 2 and stride 2.\n",
        "| layer | feature map | forward, ms | of sum | of peer | training, ms | of peer | ONNX, ms | peer |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in measured["rows"]:
        ratios = [f"{row[key]:.2f}" if key in row else "–" for key in ("forward_of_peer", "training_of_peer")]
        lines.append(
            f"| {row['name']} ({row['kind']}) | {'×'.join(map(str, row['map']))} | {row['forward_ms']:.3g} "
            f"| {row['forward_of_sum']:.1f} | {ratios[0]} | {row['training_ms']:.3g} | {ratios[1]} "
            f"| {row['onnx_ms']:.3g} | {_peers(row)} |"
        )
    return "\n".join(lines) + "\n"


def _peers(row: dict[str, Any]) -> str:
    names = dict.fromkeys(row[key] for key in ("forward_peer", "training_peer") if key in row)
    return _escaped(", then ".join(names)) or "–"


if __name__ == "__main__":
    (HERE / "reference" / "zoo.md").write_text(render())
