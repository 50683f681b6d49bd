"""Writes docs/zoo.md from the catalog, the layers' docstrings and the measurements in docs/pooling_kernels.json.

python docs/make_zoo.py

It also writes the README's table of strategies. A test compares both with what this would write.
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

Generated from the catalog by `python docs/make_zoo.py`; do not edit it by hand.

A *global* pooling is the head: `float[N, C, H, W] → float[N, D]`, any N, H, W ≥ 1. A *local* one is inside the
backbone: `float[N, C, H, W] → float[N, C, h, w]`, h and w as `nn.MaxPool2d(kernel_size, stride, padding, ceil_mode)`
gives them; what lies beyond the border belongs to no window, unless the layer says otherwise. Every strategy is
compared with an implementation that is not ours (`tests/poolings/test_oracles_*.py`), and keeps every promise of
`poolzoo.testing`.
"""
MARKS = ("<!-- strategies: written by docs/make_zoo.py -->", "<!-- end of strategies -->")
_KEPT = "none: behind a frozen backbone its output can be kept"
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
    parts.append(_costs(json.loads((HERE / "pooling_kernels.json").read_text())))
    return "\n".join(parts)


def with_table(readme: str) -> str:
    """The README with a line for each strategy between its two marks."""
    catalog = loader.load_plugins(installed=False)
    found: dict[str, list[spec.Pooling]] = {}
    for entry in catalog.select(spec.Pooling):
        found.setdefault(entry.item.name, []).append(entry.item)
    lines = ["| strategy | where | what it computes |", "|---|---|---|"]
    for module, title in FAMILIES.items():
        members = {name: of for name, of in found.items() if _module(of[0]) == module}
        lines += [f"| **{title}** | | |"] if members else []
        for name, of in members.items():
            kinds = ", ".join(sorted(item.kind for item in of))
            lines.append(f"| [`{name}`](docs/zoo.md#{name}-{of[0].kind}) | {kinds} | {_escaped(of[0].summary)} |")
    before, _, rest = readme.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return "\n".join([before + MARKS[0], *lines, MARKS[1] + after])


def _module(item: spec.Pooling) -> str:
    return str(item.build).partition(":")[0].rpartition(".")[2]


def _overview(found: list[loader.Resolved]) -> str:
    kinds: dict[str, list[str]] = {}
    for resolved in found:
        kinds.setdefault(resolved.item.name, []).append(resolved.item.kind)
    names = " · ".join(f"[`{name}`](#{name}-{of[0]}) ({', '.join(of)})" for name, of in kinds.items())
    return f"{len(kinds)} strategies, {len(found)} layers: {names}\n"


def _section(resolved: loader.Resolved) -> str:
    item, sizes = resolved.item, cost.layer_size(resolved)
    listed = ", ".join(
        f"`{o.name}={grammar.plain(o.default)}` ({o.type_name})" for o in grammar.options_of(resolved.build)
    )
    width, parameters = (
        ", ".join(f"{n:,} for C = {c}" for c, n in counts.items()) for counts in (sizes.out_features, sizes.parameters)
    )
    rows = [
        ("computes", f"`{item.equation}`"),
        ("options", listed or "none"),
        ("width", width),
        ("parameters", parameters if any(sizes.parameters.values()) else _KEPT),
        ("training", "draws at random; eval is fixed" if item.stochastic else "as eval"),
        ("paper", item.paper or "no canonical one"),
    ]  # fmt: skip
    if item.kind == "local" or item.stochastic:
        rows[3] = (rows[3][0], rows[3][1].split(":")[0])
    table = "\n".join(f"| {key} | {_escaped(value)} |" for key, value in rows)
    doc = inspect.cleandoc(resolved.build.__doc__ or "")
    return f"### {item.name} ({item.kind})\n\n{doc.split(chr(10) + 'Args:')[0].strip()}\n\n| | |\n|---|---|\n{table}\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _costs(measured: dict[str, Any]) -> str:
    machine = measured["machine"]
    lines = [
        "## What they cost\n",
        f"`python -m benchmarks.pooling_kernels`, one thread of an {machine['processor']},",
        f"torch {machine['torch']}, ONNX Runtime {machine['onnxruntime']}, CPU time, medians. *Of sum*: how many times",
        "as long as reading the map once (`x.sum()`). *Of peer*: how many times as long as the fastest other",
        "implementation that computes the same; below 1 is faster, and the noise is about 0.05, more for the smallest",
        "times. Training is forward and backward. Local layers have windows of 2 × 2 and stride 2.\n",
        "| layer | map | forward, ms | of sum | of peer | training, ms | of peer | ONNX, ms | peer |",
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
    (HERE / "zoo.md").write_text(render())
    README = HERE.parent / "README.md"
    README.write_text(with_table(README.read_text()))
