"""Writes a reduction as a folder that one can file: the graph, the arrays, a script that shows it, and a report."""

from __future__ import annotations

import io
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from poolzoo.common import files, markdown
from poolzoo.common.text import one_line, visible
from poolzoo.parity.reduction import graphs
from poolzoo.parity.reduction.difference import Difference
from poolzoo.parity.reduction.result import Lowering, Reduction

GRAPH: Final = "graph.onnx"
ARRAYS: Final = "arrays.npz"
SCRIPT: Final = "reproduce.py"
PACKAGES: Final = ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "torch")
MOST_TEXT: Final = 4000  # characters of a graph that the report shows
REFERENCES: Final = ("onnx.reference, float64", "onnx.reference")
MOST_ROWS: Final = 12  # nodes in lower precision that the report shows

_SCRIPT: Final = """\
# {title}
# Needs onnx, onnxruntime and numpy. Exits with 1 as long as the difference is there.
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
{evaluator}
here = Path(__file__).parent
model = onnx.load(here / "graph.onnx")
stored = np.load(here / "arrays.npz")
inputs = {{value.name: stored[f"input_{{i}}"] for i, value in enumerate(model.graph.input)}}
expected = stored["expected"]  # from {oracle}


def differs(name, output):
    print(f"{{name}}: {{output.ravel()[:4]}} where {{expected.ravel()[:4]}} is expected")
    return not np.allclose(output, expected, rtol=0, atol={allowed:.3g}, equal_nan=True)


found = []
{reference}for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found.append(differs(level, session.run(None, inputs)[0]))
raise SystemExit(any(found))
"""
_EVALUATOR: Final = "from onnx.reference import ReferenceEvaluator\n"
_REFERENCE: Final = 'found.append(differs("onnx.reference", ReferenceEvaluator(model).run(None, inputs)[0]))\n'

_KINDS: Final = {
    ("translation", "graph"): "**Translation.** The graph does not compute what torch computes, whatever runs it.",
    ("runtime", "runtime"): "**Runtime.** The graph is right, and the runtime computes something else.",
    (
        "non-finite",
        "graph",
    ): "**NaN or infinity, in the graph.** Whatever runs it, one of graph and torch is not finite.",
    (
        "non-finite",
        "runtime",
    ): "**NaN or infinity, in the runtime.** The graph is right; the runtime overflows or loses a NaN.",
    ("precision", "precision"): "**Precision.** The graph is right in float32; lowered, this node loses most.",
    ("non-finite", "precision"): "**NaN or infinity, from lower precision.** The graph is right in float32.",
}


def write(reduction: Reduction, folder: Path) -> None:
    """Writes the folder, whole.

    Raises:
        UsageError: It exists.
    """
    arrays = {f"input_{i}": reduction.inputs[value.name] for i, value in enumerate(reduction.graph.graph.input)}
    packed = io.BytesIO()
    np.savez_compressed(packed, expected=reduction.expected, **arrays)  # type: ignore[arg-type]  # numpy's stub
    with files.appearing(folder) as directory:
        onnx.save(graphs.without_notes(reduction.graph), directory / GRAPH)
        files.write_atomically(directory / ARRAYS, packed.getvalue())
        files.write_atomically(directory / SCRIPT, _script(reduction))
        files.write_json(directory / "report.json", {**reduction.to_json(), "versions": _versions()})
        files.write_atomically(directory / "report.md", _report(reduction))


def title(reduction: Reduction) -> str:
    """The finding in one line."""
    if reduction.lowering is not None:
        worst = reduction.lowering.nodes[0]
        name = worst.layer or worst.node
        return one_line(f"{reduction.lowering.precision} of {worst.operator} {name}: {reduction.difference.describe()}")
    operators = " + ".join(node.op_type for node in reduction.graph.graph.node)
    if len(operators) > 60:
        operators = f"{reduction.nodes} nodes"
    return one_line(f"{operators}: {reduction.difference.describe()}")


def _script(reduction: Reduction) -> str:
    runs = any(reduction.by_runtime.get(name) is not None for name in REFERENCES)
    return _SCRIPT.format(
        title=title(reduction),
        oracle=reduction.oracle,
        evaluator=_EVALUATOR if runs else "",
        reference=_REFERENCE if runs else "",
        allowed=reduction.threshold * reduction.difference.largest,
    )


def _report(reduction: Reduction) -> str:
    lines = [
        f"# {_words(title(reduction))}",
        "",
        _KINDS[reduction.kind, reduction.fault],
        "",
        *_findings(reduction),
        "",
    ]
    lines += ["| run by | differs from what is expected by |", "|---|---|"]
    lines += [f"| {name} | {_cell(found, reduction)} |" for name, found in reduction.by_runtime.items()]
    lines += ["", f"`python {SCRIPT}` shows it. It needs onnx, onnxruntime and numpy. The expected values are those of"]
    lines += [f"{reduction.oracle}.", f"The tolerance is {reduction.threshold:.2g} of the largest one.", ""]
    if reduction.lowering is not None:
        lines += _ranking(reduction.lowering)
    lines += ["## The graph", "", "```", _text(reduction.graph), "```", ""]
    lines += [f"Made with {', '.join(f'{name} {one}' for name, one in _versions().items())}.", ""]
    return "\n".join(lines)


def _ranking(lowering: Lowering) -> list[str]:
    """The most harmful nodes as a table."""
    text = (
        f"Each node in {lowering.precision} alone, with exact inputs. The change is that of `{lowering.result}`, as a"
    )
    lines = ["## Nodes by harm", "", text, "fraction of its standard deviation.", ""]
    lines += ["| node | layer | change | its own output |", "|---|---|---|---|"]
    for one in lowering.nodes[:MOST_ROWS]:
        names = f"{_words(one.operator)} {_words(one.node)} | {_words(one.layer)}"
        lines.append(f"| {names} | {one.harm:.2g} | {one.difference.describe()} |")
    return [*lines, ""]


def _findings(reduction: Reduction) -> list[str]:
    found = [f"* **By how much:** {reduction.difference.describe()}."]
    repair, source = reduction.repair, reduction.source
    if repair is not None and reduction.fault == "graph":
        whole = {True: " The whole graph then agrees with torch.", False: " The whole graph has another fault, too."}
        end = whole.get(reduction.repairs_all, "") if reduction.repairs_all is not None else ""
        found.append(f"* **Culprit:** {_words(repair.describe())}.{end}")
    elif repair is not None:
        found.append(f"* **Attribute:** {_words(repair.describe())} with the runtime.")
    elif reduction.fault == "graph":
        found.append("* **Culprit:** no other attribute, constant or operator of a single node agrees with torch.")
    if reduction.optimizer is not None:
        text = f'ONNX Runtime agrees with `disabled_optimizers=["{reduction.optimizer}"]`.'
        found.append(f"* **Optimizer:** {text}")
    if source is not None:
        place = f"`{source.line}`: `{source.code}`" if source.line else "unknown"
        found.append(f"* **Layer:** `{source.layer or 'the outermost module'}`, the first that differs.")
        found.append(f"* **Line of Python:** {place}")
        found.append(f"* **In torch:** `{source.operation}`")
    for tensor in reduction.graph.graph.initializer:
        odd = ~np.isfinite(np.asarray(onnx.numpy_helper.to_array(tensor), np.float64))
        if odd.any():
            text = f"{odd.sum()} of {odd.size} numbers of the constant {_words(tensor.name)}"
            found.append(f"* **Not finite:** {text}.")
    found.append(f"* **Size:** {reduction.nodes} of {reduction.nodes_before} nodes, {reduction.bytes} bytes of input.")
    if not reduction.complete:
        found.append("* The search was ended before it was done; a smaller graph may show it too.")
    return found


def _words(text: str) -> str:
    """Foreign text in a line of Markdown; an underscore within a word is no markup."""
    return re.sub(r"(?<=\w)\\_(?=\w)", "_", markdown.text(text))


def _cell(found: Difference | None, reduction: Reduction) -> str:
    if found is None:
        return "cannot run it"
    agrees = not found.non_finite and found.relative <= reduction.threshold
    return "agrees" if agrees else found.describe()


def _text(graph: onnx.ModelProto) -> str:
    lines = onnx.printer.to_text(graph).replace("`", "'").split("\n")  # no name ends the block
    text = "\n".join(visible(line.expandtabs(2)) for line in lines)
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}\n…"


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "machine": platform.machine()}
