"""How long whole commands take beside the least that could do the same, in processes of their own.

python -m benchmarks.cli.startup            each command beside its bare counterpart, interleaved
python -m benchmarks.cli.startup --rounds 31

`--help` and the lists are timed beside `import click, pluggy`. `predict` on one image is timed beside a script with
onnxruntime and Pillow that reads the metadata, resizes, crops, runs the graph and prints the label. Both sides run
under this interpreter. Ratios are the median over the rounds: of the wall clock, and of the processor's time, which
other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

ROUNDS: Final = 21
BUNDLE: Final = Path(__file__).parents[2] / "exports" / "digits"
IMPORTS: Final = ["-c", "import click, pluggy"]
PREDICT: Final = """
import json, sys
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", options, providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
given, labels = json.loads(metadata["input"]), json.loads(metadata["labels"])
image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
image = ImageOps.fit(image, (given["width"], given["height"]), Image.Resampling.BILINEAR)
pixels = np.asarray(image)[None]
if given["kind"] == "float":
    pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
scores = session.run(["probabilities"], {"images": pixels})[0][0]
print(sys.argv[2], labels[scores.argmax()], scores.max())
"""


POOLZOO: Final = ["-c", "from poolzoo.__main__ import main; main()"]  # what the installed script does


def environment_in(folder: Path) -> dict[str, str]:
    """As after an installation: bytecode is kept, here in `folder`, and the user has disabled no plugin."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "POOLZOO_CONFIG": str(folder / "config")}


def timed(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds of the wall clock and of the processor that a process of this interpreter takes."""
    before, started = _processor_time(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - started, _processor_time() - before


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(
    bare: Sequence[str], command: Sequence[str], rounds: int, environment: Mapping[str, str]
) -> list[tuple[float, float, float, float]]:
    """Wall and processor seconds of the bare side, then of the command, a row a round; the first side alternates."""
    for side in (bare, command):  # each writes its bytecode, then reads it from the disk
        for _ in range(2):
            timed(side, environment)
    rows = []
    for done in range(rounds):
        if done % 2:
            second, first = timed(command, environment), timed(bare, environment)
        else:
            first, second = timed(bare, environment), timed(command, environment)
        rows.append((*first, *second))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default {ROUNDS}")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, metavar="DIR", help="for predict")
    parser.add_argument("--image", type=Path, metavar="FILE", help="for predict; default: noise of 32×32 pixels")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = arguments.image or Path(folder) / "noise.png"
        if arguments.image is None:
            noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(image)
        bundle = str(arguments.bundle)
        pairs: dict[str, tuple[list[str], list[str]]] = {
            "poolzoo --help": (IMPORTS, [*POOLZOO, "--help"]),
            "poolzoo list": (IMPORTS, [*POOLZOO, "list"]),
            "poolzoo plugin list": (IMPORTS, [*POOLZOO, "plugin", "list"]),
            "poolzoo predict": (
                ["-c", PREDICT, bundle, str(image)],
                [*POOLZOO, "predict", bundle, str(image)],
            ),
        }
        print(
            f"{'':22} {'bare, ms':>10} {'ours, ms':>10} {'wall':>7} {'cpu':>7}   ratios over {arguments.rounds} rounds"
        )
        for name, (bare, command) in pairs.items():
            rows = compare(bare, command, arguments.rounds, environment_in(Path(folder)))
            first, second = (statistics.median(row[at] for row in rows) * 1e3 for at in (0, 2))
            wall, spent = (statistics.median(row[at + 2] / row[at] for row in rows) for at in (0, 1))
            print(f"{name:22} {first:10.0f} {second:10.0f} {wall:6.2f}× {spent:6.2f}×", flush=True)


if __name__ == "__main__":
    main()
