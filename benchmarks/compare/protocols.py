"""The built-in protocols, from their settings and their data: writes poolzoo/compare/board/protocols/*.toml.

python -m benchmarks.compare.protocols [--images PATH] [--only NAME …] [--check]

PATH holds CIFAR-10 as image files, PATH/train/<class>/* and PATH/test/<class>/*. The backbone lite0 is
plugins/poolzoo-lite0, installed. `--check` writes nothing: it compares the files with what would be written, reference
versions left out.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from poolzoo.common import files, json_writer
from poolzoo.compare.board import pinning, protocol
from poolzoo.train.prepare import prepare
from poolzoo.train.settings import Settings
from poolzoo.train.validation import VAL_FRACTION

CIFAR: Final = "CIFAR-10 as JPEG files, train/<class>/* and test/<class>/*; other encoders give other pixels"
VERSIONS: Final = {  # what each range says: the rules of splits and training; the kernels; the random numbers
    "poolzoo": "==1.0.*",
    "torch": ">=2.9,<3",
    "timm": ">=1.0.20,<2",
    "torchvision": ">=0.24,<1",
    "numpy": ">=2,<3",
}


@dataclass(frozen=True)
class Made:
    """A protocol before its data is read; `typed` are settings that differ from the defaults."""

    name: str
    question: str
    free: str
    baseline: str
    source: str
    obtain: str
    typed: dict[str, Any]


FROZEN: Final = {"freeze": "backbone", "pretrained": True, "epochs": 5}
DIGITS: Final = "digits come with scikit-learn"
MADE: Final = (
    Made(
        "digits-heads",
        "Which global pooling is best behind a frozen network that was trained on natural images, on digits?",
        "pool",
        "avg",
        "digits",
        DIGITS,
        {"backbone": "nano/resnet", **FROZEN, "threads": 1},
    ),
    Made(
        "digits-local",
        "Which local pooling is best in a small network trained from scratch on digits?",
        "local_pool",
        "none",
        "digits",
        DIGITS,
        {"backbone": "nano/resnet", "epochs": 2, "threads": 1},
    ),
    Made(
        "cifar10-lite0",
        "Which global pooling is best behind a frozen EfficientNet-Lite0 with ImageNet weights, on CIFAR-10?",
        "pool",
        "avg",
        "folder:",
        CIFAR,
        {"backbone": "lite0", **FROZEN, "threads": 2},
    ),
    Made(
        "cifar10-local",
        "Which local pooling is best in a small network trained from scratch on 9,000 images of CIFAR-10?",
        "local_pool",
        "none",
        "folder:",
        CIFAR,
        {"backbone": "nano/resnet", "epochs": 4, "limit": 10_000, "threads": 1},
    ),
)


def main() -> int:
    """Writes or checks what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare.protocols", description=__doc__.split("\n")[0])
    parser.add_argument("--images", metavar="PATH", help="CIFAR-10 as image files")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[one.name for one in MADE])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    given = parser.parse_args()
    wanted = [one for one in MADE if one.name in (given.only or [one.name for one in MADE])]
    if given.images is None and any(one.source.endswith(":") for one in wanted):
        parser.error("--images PATH is missing: CIFAR-10 as PATH/train/<class>/* and PATH/test/<class>/*")
    differing = 0
    for one in wanted:
        text = written(one, given.images)
        protocol.parse(text)
        path = protocol.BUILT_IN / f"{one.name}.toml"
        if not given.check:
            files.write_atomically(path, text)
            print(path)
        elif content(path.read_text(encoding="utf-8")) != content(text):
            differing += 1
            print(f"{one.name} differs", file=sys.stderr)
    return 1 if differing else 0


def content(text: str) -> dict[str, Any]:
    """What a protocol says, without the versions that made its baseline."""
    found = tomllib.loads(text)
    for pin in found["versions"].values():
        del pin["reference"]
    return found


def written(made: Made, images: str | None) -> str:
    """The text of a protocol."""
    local = made.source.endswith(":")
    data = f"{made.source}{Path(images or '').absolute()}" if local else made.source
    cache = {"data_cache": "decoded"} if local else {}
    pool = made.baseline if made.free == "pool" else "avg"
    prepared = prepare(Settings(data=data, pool=pool, seed=0, split_seed=0, device="cpu", **cache, **made.typed))
    identity, typed = prepared.data.identity, json_writer.dumps
    lines = [
        f"name = {typed(made.name)}",
        "version = 2",
        f"question = {typed(made.question)}",
        f"free = {typed(made.free)}",
        f"baseline = {typed(made.baseline)}",
        "seeds = 3",
        "alpha = 0.05",
        'metrics = ["accuracy", "f1"]',
    ]
    if prepared.settings.pretrained:
        digest = pinning.backbone_sha256(prepared.assembly.network.backbone.state_dict())
        lines.append(f"backbone_sha256 = {typed(digest)}")
    lines += ["differing_images = 2  # of the test images, where weights are evaluated on another machine"]
    lines += ["state_tolerance = 0.001  # of each tensor's largest value, where a training is repeated", "", "[data]"]
    lines += [f"source = {typed(made.source)}", f"obtain = {typed(made.obtain)}"]
    lines += [f"size = {list(prepared.data.size)}", f"classes = {typed(list(identity.classes))}"]
    lines += [f"validation = {VAL_FRACTION}"]
    for name in ("train", "test"):
        split = pinning.split_digest(identity.splits[name])
        lines += ["", f"[data.{name}]", f"images = {split.images}", f'pixels = "{split.pixels}"']
        lines += [f'labels = "{split.labels}"']
    lines += ["", "[settings]"]
    for line in prepared.settings.to_toml().splitlines()[1:]:
        if line.partition(" = ")[0] not in (*protocol.FREE, made.free):
            lines.append(line)
    lines += ["", "[versions]  # the range that is allowed, and what made the baseline"]
    lines += [
        f"{package} = {{ required = {typed(pin)}, reference = {typed(version(package).partition('+')[0])} }}"
        for package, pin in VERSIONS.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
