"""Every pooling in backbones of every kind: assembled, trained for a step, exported, and compared under ONNX Runtime.

    python -m benchmarks.coverage.matrix [--backbones NAME …] [--only GLOB …] [--processes 2] [--journal FILE]
    python -m benchmarks.coverage.matrix --write [--journal FILE]

A cell is a backbone with one pooling: a global one, or a local one in place of the backbone's own pooling layers, with
`avg` as the head. Its name is `BACKBONE KIND POOLING`, which GLOB matches. Each cell is a line of JSON in FILE; cells
that passed are not run again. With --write the lines become a section of docs/results/matrix.md.

The input is the smallest on which the backbone's feature map is 2 × 2 or more. Each cell builds its network, perturbs
parameters that start at zero, trains a step, exports the whole network, and checks parity as `poolzoo export` does.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.coverage import jobs, matrix_page
from benchmarks.coverage.cells import CLASSES, DATA_SIZE, STRENGTHS, Cell, cells, use_catalog
from benchmarks.export import cases
from poolzoo.artifacts import run as runs
from poolzoo.common.errors import UsageError
from poolzoo.export import graph
from poolzoo.export.source import ExportSource
from poolzoo.model.assemble import Assembly, assemble, assemble_backbone
from poolzoo.model.config import ModelConfig
from poolzoo.model.inference import InferenceModel
from poolzoo.model.network import Preprocess
from poolzoo.parity.check import check_parity
from poolzoo.parity.reference import Reference, UnstableNetworkError
from poolzoo.runtime import ort_session

SIZES: Final = (32, 64, 96, 128, 160, 192, 224, 240, 256)  # pixels a side of the network's input
MIN_FEATURE_MAP: Final = 2  # spatial locations a side
IMAGES: Final = 10  # beside the seven edge images: a batch of 7 and a rest
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
MOST_ALLOWED: Final = 0.01  # of what a logit differs by between photographs; with more, parity would say nothing
LIMIT: Final = 900.0  # seconds for a cell; the slowest take 24 of a processor, more where others share it
# What may be refused, by a part of the message, and why that is right.
CONTRACT: Final = {
    "the layer behind takes": "it changes the number of channels, which the layer behind it fixes",
    "into a 1×1 feature map": "on a map of 1 × 1 all poolings are equal",
    "no pooling module with a stride above 1": "the backbone has no pooling layer to replace",
}
SECTION: Final = "Every pooling in backbones of every kind"


class CellError(Exception):
    """What a cell failed at, and why."""


class NothingToCompareError(CellError):
    """The network's answers are no firmer than rounding, or differ no more than it between photographs."""


# --- One cell ------------------------------------------------------------------------------------------------------


def run(text: str) -> dict[str, Any]:
    """The line of a cell, but for what the journal adds: `status` is passed, refused or failed."""
    use_catalog()
    cell = Cell.of(text)
    try:
        return {"status": "passed", **_measured_at_some_strength(cell)}
    except UsageError as error:
        right = next((why for part, why in CONTRACT.items() if part in error.message), None)
        if right:
            return {"status": "refused", "reason": error.message, "contract": right}
        return {"status": "failed", "reason": f"assemble: {error.message}"}
    except CellError as error:
        return {"status": "failed", "reason": str(error)}


def _measured_at_some_strength(cell: Cell) -> dict[str, Any]:
    """Does a cell with a network that is as awake as can be compared."""
    *stronger, weakest = STRENGTHS
    for strength in stronger:
        with suppress(NothingToCompareError):
            return measure(cell, strength)
    return measure(cell, weakest)


def measure(cell: Cell, strength: float) -> dict[str, Any]:
    """Does a cell and returns its figures.

    Raises:
        UsageError: The parts do not fit.
        CellError: Anything else.
    """
    with _step("assemble"):
        torch.manual_seed(0)
        assembly = assemble(cell.model_config(smallest_size(cell.backbone)))
        preprocess = Preprocess(MEAN, STD, DATA_SIZE, assembly.image_size)
        pixels = images()
        x = preprocess(torch.from_numpy(pixels))
        cases.perturb(assembly.network, x, len(CLASSES), strength)
    with _step("train"):
        zero = train(assembly.network, x)
    source = export_source(assembly, preprocess.eval(), pixels)
    with _step("parity"):
        reference = stable_reference(source)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        with _step("export"):
            written = graph.export_graph(source, file)
            opened = ort_session.open_model(file, "cpu", 1)
        with _step("parity"):
            report = check_parity(reference, file, written.layers, opened, 1)
            if not report.passed:
                raise CellError(report.describe_failure())
    layout = assembly.layout
    return {
        "strength": strength,
        "map": [layout.channels, *layout.map_size],
        "pixels": assembly.image_size[0],
        "parameters": sum(parameter.numel() for parameter in assembly.network.parameters()),
        "replaced": len(assembly.backbone.replaced),
        "batches": list(report.outputs.batches),
        "probes": len(report.probes),
        "worst": round(report.noise.worst.max_abs / report.noise.worst.allowed, 3),
        "relative": report.outputs.relative,
        "zero_gradients": zero,
    }


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Names the step in whatever goes wrong in it; what the parts of a network refuse passes as it is."""
    try:
        yield
    except CellError as error:
        raise type(error)(f"{name}: {error}") from error
    except UsageError:
        raise
    except Exception as error:
        raise CellError(f"{name}: {jobs.reason(error)}") from error


@cache
def smallest_size(backbone: str) -> int:
    """Pixels a side of the smallest input on which a backbone leaves a map of at least 2 × 2.

    Raises:
        UsageError: There is none.
    """
    refused = UsageError(f"{backbone} takes none of {SIZES} pixels", "add one")
    for size in SIZES:
        try:
            assembled = assemble_backbone(ModelConfig(backbone, "avg", len(CLASSES), DATA_SIZE, (size, size)))
        except UsageError as error:
            refused = error
            continue
        if min(assembled.layout.map_size) >= MIN_FEATURE_MAP:
            return size
    raise refused


@cache
def images() -> np.ndarray:
    """Crops of photographs, `uint8[N, h, w, 3]`."""
    return np.stack([np.asarray(photo) for photo in cases.photographs(None, DATA_SIZE)[:IMAGES]])


def train(network: nn.Module, x: torch.Tensor) -> list[str]:
    """One step on images, `float[N, 3, H, W]`, with any labels.

    Returns:
        The names of the parameters whose gradients are zero everywhere.

    Raises:
        CellError: A parameter got no gradient, or one that is not finite.
    """
    network.train()
    loss = F.cross_entropy(network(x), torch.arange(len(x)) % len(CLASSES))
    loss.backward()
    found = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    for what, names in (
        ("has no gradient", [name for name, gradient in found.items() if gradient is None]),
        (
            "has a gradient that is not finite",
            [n for n, g in found.items() if g is not None and not g.isfinite().all()],
        ),
    ):
        if names:
            raise CellError(f"{names[0]} {what}" + (f", and {len(names) - 1} more" if len(names) > 1 else ""))
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)  # else one step may take a deep network to where it is chaotic
    torch.optim.SGD(network.parameters(), lr=1e-3).step()
    network.zero_grad()
    network.eval()
    return [name for name, gradient in found.items() if gradient is not None and not gradient.any()]


def stable_reference(source: ExportSource) -> Reference:
    """What the network itself answers.

    Raises:
        NothingToCompareError: Rounding alone decides it, or it is nearly the same for all photographs.
    """
    try:
        reference = Reference.compute(source.model, source.images, None)
    except UnstableNetworkError as error:
        raise NothingToCompareError(error.message) from error
    spread = float(np.ptp(reference.expected[0][reference.regular], 0).max())
    allowed = float(reference.allowed[reference.regular].max())
    if allowed > MOST_ALLOWED * spread:
        text = f"logits differ by {spread:.1e} between photographs, and {allowed:.1e} would be allowed"
        raise NothingToCompareError(text)
    return reference


def export_source(assembly: Assembly, preprocess: Preprocess, pixels: np.ndarray) -> ExportSource:
    """What `poolzoo export` would make of a run of this network."""
    config = runs.configuration(assembly, preprocess, CLASSES, "photographs")
    return ExportSource(
        title=f"{assembly.config.backbone} with {assembly.config.pool}",
        origin={"run": "matrix benchmark"},
        model=InferenceModel(preprocess, assembly.network).eval(),
        size=DATA_SIZE,
        config=config,
        weights_sha256=hashlib.sha256(runs.weights_bytes(assembly.network.state_dict())).hexdigest(),
        images=pixels,
        image_labels=None,
        calibration=pixels,
        hint="try another pooling",
    )


# --- All of them ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Runs the cells that are asked for, or writes the page."""
    kind = jobs.Kind("matrix", SECTION, run, matrix_page.render, matrix_page.summary, LIMIT, "nano/* local *")
    parser = jobs.parser_of(kind, __doc__)
    parser.add_argument(
        "--backbones", nargs="+", default=[], metavar="NAME", help="others instead of those of the page"
    )
    given = parser.parse_args()
    if given.write and given.backbones:
        parser.error("--write writes of the page's own backbones")
    torch.set_num_threads(1)
    jobs.command(kind, parser, given, cells(given.backbones))


if __name__ == "__main__":
    main()
