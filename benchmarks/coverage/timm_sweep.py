"""How many of timm's architectures can be backbones: assembled with two poolings, and run forward.

    python -m benchmarks.coverage.timm_sweep [--only GLOB …] [--processes 2] [--journal FILE]
    python -m benchmarks.coverage.timm_sweep --write [--journal FILE]

All architectures are tried, except those of more than 30 million parameters, which are counted on torch's meta device.
Images are 32 × 32, as in CIFAR-10, and poolzoo chooses the input size for them. Each architecture is a line of JSON in
FILE; --write makes a section of docs/results/matrix.md of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import timm
import torch

from benchmarks.coverage import jobs
from poolzoo.common.errors import PoolzooError
from poolzoo.model.assemble import assemble_backbone, attach_head
from poolzoo.model.config import ModelConfig

MOST: Final = 30_000_000  # parameters
POOLS: Final = ("avg", "catavgmax")
DATA_SIZE: Final = (32, 32)
CLASSES: Final = 10
BATCH: Final = 2  # the least with which batch norms can train
LIMIT: Final = 300.0  # seconds for an architecture
SECTION: Final = "timm's architectures"


def run(name: str) -> dict[str, Any]:
    """The line of an architecture, but for what the journal adds: `status` is passed, failed or large."""
    found: dict[str, Any] = {}
    try:
        found["parameters"] = parameters(name)
        if found["parameters"] > MOST:
            return {"status": "large", **found}
        found |= tried(name)
    except PoolzooError as error:
        return {"status": "failed", "reason": error.message[: jobs.KEPT], **found}
    except Exception as error:
        return {"status": "failed", "reason": jobs.reason(error), **found}
    return {"status": "passed", **found}


def parameters(name: str) -> int:
    """How many parameters an architecture has, without its classifier and without being built."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in timm.create_model(name, num_classes=0).parameters())


def tried(name: str) -> dict[str, Any]:
    """Assembles an architecture with every one of `POOLS` and runs it in both modes; returns what was measured of it.

    Raises:
        PoolzooError: The parts do not fit.
        Exception: Whatever the network raises.
    """
    torch.manual_seed(0)
    config = ModelConfig(f"timm/{name}", POOLS[0], CLASSES, DATA_SIZE)
    backbone = assemble_backbone(config)
    for pool in POOLS:
        network = attach_head(backbone, replace(config, pool=pool)).network
        x = torch.randn(BATCH, 3, *backbone.image_size)
        for mode in (True, False):
            with torch.no_grad():
                logits = network.train(mode)(x)
            words = f"{pool} in {'training' if mode else 'eval'} mode"
            if logits.shape != (BATCH, CLASSES):
                raise ValueError(f"{words} gives {list(logits.shape)}")
            if not logits.isfinite().all():
                raise ValueError(f"{words} gives NaN or infinity")
    layout = backbone.layout
    return {"pixels": backbone.image_size[0], "layout": layout.kind, "map": [layout.channels, *layout.map_size]}


# --- The page ------------------------------------------------------------------------------------------------------

WHAT: Final = f"""
The sweep assembles every architecture with at most {MOST / 1e6:g} million parameters
with `{"` and `".join(POOLS)}`. Images are 32 × 32, and poolzoo chooses the input size. Each network runs forward in
training mode and in eval mode with random weights. It passes if both modes give finite logits of the right shape.
"""


def summary(records: Sequence[dict[str, Any]]) -> str:
    """How many of how many, in words."""
    counts = Counter(record["status"] for record in records)
    tried = counts["passed"] + counts["failed"]
    share = f" ({counts['passed'] / tried:.1%})" if tried else ""
    return f"{counts['passed']} of {tried} architectures passed{share}; {counts['large']} larger ones were skipped"


def render(records: Sequence[dict[str, Any]]) -> str:
    """The section of the page."""
    passed, failed = ([one for one in records if one["status"] == status] for status in ("passed", "failed"))
    layouts = Counter(record["layout"] for record in passed)
    sizes = Counter(record["pixels"] for record in passed)
    parts = [
        WHAT.strip(),
        f"**{summary(records)}.** {jobs.circumstances(records)}",
        "Features: " + ", ".join(f"{count} {layout}" for layout, count in layouts.most_common()) + ".",
        "Inputs: " + ", ".join(f"{count} at {size} pixels" for size, count in sorted(sizes.items())) + ".",
        "### Architectures that failed",
        jobs.table(("architecture", "why"), [(f"`{one['trial']}`", one["reason"]) for one in failed])
        if failed
        else "None.",
    ]
    return "\n\n".join(parts)


KIND: Final = jobs.Kind("timm_sweep", SECTION, run, render, summary, LIMIT, "coat_*")


def main() -> None:
    parser = jobs.parser_of(KIND, __doc__)
    jobs.command(KIND, parser, parser.parse_args(), timm.list_models())


if __name__ == "__main__":
    main()
