"""Peak memory and CPU time of whole commands on real-sized photographs, beside an older build of poolzoo.

python -m benchmarks.cli.resources [--before COMMIT] [--rounds 3] [--only GLOB …] [--json FILE]

The older build is a git worktree of its own. Both sides run in processes of their own, under the same interpreter, and
take turns. The images are smooth noise, saved as JPEG. The cases:

    finetune-cold    timm/test_resnet at 224 on 3,000 JPEGs of 375×500, one epoch, nothing cached
    finetune-warm    the same command again, with the decoded images in the cache
    decode-finetune  12-megapixel JPEGs to 224, CPU seconds an image: the difference between 200 and 8, without
    decode-evaluate      start-up; of `finetune --dry-run`, `evaluate` and `predict`
    decode-predict
    compare-opens    image files opened by `compare` of four poolings on a folder of 300 images, an image
    int8             `export --precision int8` of timm/convnext_atto at 224
    predict-many     peak memory of `predict --json` for 40,000 files, relative to that for 2,000

Memory is the largest resident set of the process or of one that it started and waited for; seconds are user and system
time of all of them. A ratio is after ÷ before, within a round; the median of the rounds is shown.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

ROOT: Final = Path(__file__).parents[2]
BEFORE: Final = "ddf68a2"  # the build before images were decoded by the size that is needed
FORMER_FLAGS: Final = {"--no-bench": "--no-speed", "--robustness-samples": "--robust", "--export-top": "--finalists"}
# Starts a command, and writes its exit code and usage to a file. A process counts the memory of the one that started it
# as its own, so that this one should import little.
LAUNCH: Final = """
import os, sys, time
started = time.perf_counter()
process = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(process, 0)
code, wall = os.waitstatus_to_exitcode(status), time.perf_counter() - started
with open(sys.argv[1], "w") as file:
    file.write(f"[{code}, {used.ru_maxrss * 1024}, {used.ru_utime + used.ru_stime}, {wall}]")
"""
FEW, MANY = 8, 200  # 12-megapixel photographs: enough that the noise of a start-up is small beside them


@dataclass(frozen=True)
class Usage:
    """What a process took: bytes of its largest resident set, CPU seconds, seconds by the clock."""

    peak: float
    cpu: float
    wall: float


@dataclass
class Side:
    """One of the two builds.

    Attributes:
        name: "before" or "after".
        source: The checkout that holds the package.
        work: A directory for what it writes.
        path: Directories of more packages, such as plugins.
        environment: More variables of the environment.
    """

    name: str
    source: Path
    work: Path
    path: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    made: dict[str, Path] = field(default_factory=dict)

    def run(self, *arguments: str | Path, cache: str = "cache") -> Usage:
        """Runs `poolzoo ARGUMENTS`, whose exit code must be 0; `out` and `log` have what it prints."""
        path = os.pathsep.join(map(str, (self.source, *self.path)))
        environment = {**os.environ, "PYTHONPATH": path, "POOLZOO_CACHE": str(self.work / cache), **self.environment}
        words = [FORMER_FLAGS.get(str(word), word) if self.has_former_flags else word for word in arguments]
        command = [sys.executable, "-m", "poolzoo", *map(str, words)]
        launch = [sys.executable, "-S", "-c", LAUNCH, str(self.work / "usage"), *command]
        with (self.work / "out").open("wb") as out, (self.work / "log").open("wb") as log:
            subprocess.run(launch, check=True, env=environment, cwd=self.work, stdout=out, stderr=log)
        status, *used = json.loads((self.work / "usage").read_text())
        if status:
            tail = (self.work / "log").read_text(errors="replace")[-2000:]
            raise SystemExit(f"{self.name}: poolzoo {' '.join(command[3:])} gave {status}:\n{tail}")
        return Usage(*used)

    @cached_property
    def has_former_flags(self) -> bool:
        """Whether the build is older than today's names of flags."""
        return not (self.source / "poolzoo" / "common").is_dir()

    def fresh(self, stem: str) -> Path:
        """A path that does not exist yet."""
        return Path(tempfile.mkdtemp(prefix=f"{stem}-", dir=self.work)) / stem

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """What is made at a path, once a side."""
        if name not in self.made:
            self.made[name] = self.fresh(name)
            make(self.made[name])
        return self.made[name]


class Photographs:
    """Folders of made photographs: two classes, which differ in their mean color."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str, train: int, test: int, size: tuple[int, int]) -> Path:
        """`train` and `test` photographs of (height, width) in a folder, made where it is not there yet."""
        place = self.root / name
        if not place.is_dir():
            for split, count in (("train", train), ("test", test)):
                for index in range(count):
                    label = ("ant", "bee")[index % 2]
                    file = place / split / label / f"{index:05}.jpg"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    photograph(index, index % 2, size).save(file, quality=85)
        return place

    @cached_property
    def medium(self) -> Path:
        return self.folder("medium", 3000, 100, (375, 500))

    @cached_property
    def small(self) -> Path:
        return self.folder("small", 240, 60, (96, 96))

    def large(self, count: int) -> Path:
        """Twelve megapixels each, `count` links to a few files, as many to train on as to test with."""
        originals = self.folder("large", FEW // 2, FEW // 2, (3000, 4000))
        place = self.root / f"large{count}"
        for file in sorted(originals.rglob("*.jpg")) if not place.is_dir() else ():
            for copy in range(count // FEW):
                link = place / file.relative_to(originals).with_stem(f"{file.stem}-{copy:03}")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.hardlink_to(file)
        return place

    def links(self, count: int) -> Path:
        """A folder of `count` hard links to small photographs."""
        place, originals = self.root / f"links{count}", sorted(self.small.rglob("*.jpg"))
        if not place.is_dir():
            place.mkdir()
            for index in range(count):
                (place / f"photograph-{index:06}.jpg").hardlink_to(originals[index % len(originals)])
        return place


def photograph(seed: int, label: int, size: tuple[int, int]) -> Image.Image:
    """Smooth noise of (height, width) with some grain, of a class's color."""
    generator = np.random.default_rng(seed)
    height, width = size
    coarse = generator.integers(0, 200, (max(2, height // 40), max(2, width // 40), 3)).astype(np.uint8)
    coarse[..., label] = coarse[..., label] // 2 + 120
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = generator.integers(0, 12, (height, width, 1), dtype=np.uint8)
    return Image.fromarray(np.minimum(np.asarray(smooth), 243) + grain)


def finetune_medium(side: Side, photographs: Photographs, cache: str) -> Usage:
    """One epoch of the small residual network at 224 on 3,000 photographs."""
    arguments = ("--backbone", "timm/test_resnet", "--image-size", "224", "--epochs", "1")
    return side.run(
        "finetune", "--data", f"folder:{photographs.medium}", *arguments, "--out", side.fresh("run"), cache=cache
    )


def finetune_cold(side: Side, photographs: Photographs) -> dict[str, float]:
    """Each round has an empty cache of its own."""
    usage = finetune_medium(side, photographs, side.fresh("cache").name + str(time.time_ns()))
    return {"peak, GB": usage.peak / 1e9, "CPU, s": usage.cpu}


def finetune_warm(side: Side, photographs: Photographs) -> dict[str, float]:
    """The first round fills the cache."""
    side.once("warm", lambda _: finetune_medium(side, photographs, "warm"))
    usage = finetune_medium(side, photographs, "warm")
    return {"peak, GB": usage.peak / 1e9, "CPU, s": usage.cpu}


def per_image(run: Callable[[Path], Usage], photographs: Photographs, fraction: float = 1.0) -> dict[str, float]:
    """CPU seconds an image, from two folders of different size; `fraction`: the part of the images that is read."""
    few, many = (run(photographs.large(count)).cpu for count in (FEW, MANY))
    return {"CPU s an image": (many - few) / ((MANY - FEW) * fraction)}


def trained(side: Side, photographs: Photographs) -> Path:
    """A run that sees 224×224, on small photographs."""
    arguments = ("--backbone", "timm/test_resnet", "--image-size", "224", "--epochs", "1")
    command = ("finetune", "--data", f"folder:{photographs.large(FEW)}", *arguments)
    return side.once("run", lambda out: side.run(*command, "--out", out))


def exported(side: Side, photographs: Photographs) -> Path:
    """The bundle of that run."""
    run = trained(side, photographs)
    return side.once("bundle", lambda out: side.run("export", run, "--no-bench", "--out", out))


def decode_finetune(side: Side, photographs: Photographs) -> dict[str, float]:
    """`--dry-run` reads all the images, and trains on none."""
    arguments = ("--backbone", "timm/test_resnet", "--image-size", "224", "--dry-run")
    return per_image(
        lambda folder: side.run("finetune", "--data", f"folder:{folder}", *arguments, cache=str(time.time_ns())),
        photographs,
    )


def decode_evaluate(side: Side, photographs: Photographs) -> dict[str, float]:
    """Half of the images are the test part, the only one that it reads."""
    run = trained(side, photographs)
    return per_image(
        lambda folder: side.run("evaluate", run, "--data", f"folder:{folder}", cache=str(time.time_ns())),
        photographs,
        0.5,
    )


def decode_predict(side: Side, photographs: Photographs) -> dict[str, float]:
    """It reads everything under the folder."""
    bundle = exported(side, photographs)
    return per_image(lambda folder: side.run("predict", bundle, folder, "--json"), photographs)


COUNTER: Final = """
import atexit, os, sys
opened = []
def count(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".jpg"):
        opened.append(1)
sys.addaudithook(count)
@atexit.register
def write():
    with open(os.environ["OPENED"], "a") as file:
        file.write(f"{len(opened)}\\n")
"""


def compare_opens(side: Side, photographs: Photographs) -> dict[str, float]:
    """Counted by an audit hook in every process that loads plugins."""
    plugin, counts = side.work / "counter.py", side.work / f"opened{time.time_ns()}"
    plugin.write_text(COUNTER)
    os.environ["OPENED"] = str(counts)
    arguments = ("--backbone", "nano/plain", "--pool", "avg,max,avgmax,lse", "--seeds", "1", "--epochs", "1")
    plain = ("--robustness-samples", "0", "--export-top", "0", "--out", side.fresh("comparison"))
    command = ("compare", "--data", f"folder:{photographs.small}", *arguments, *plain, "--plugin", plugin)
    usage = side.run(*command, cache=str(time.time_ns()))
    return {"opens an image": sum(map(int, counts.read_text().split())) / 300, "CPU, s": usage.cpu}


def int8(side: Side, photographs: Photographs) -> dict[str, float]:
    """Of a network after one short epoch: ranges and memory do not depend on how good it is."""
    arguments = ("--backbone", "timm/convnext_atto", "--image-size", "224", "--limit", "96", "--epochs", "1")
    command = ("finetune", "--data", f"folder:{photographs.medium}", *arguments)
    run = side.once("convnext", lambda out: side.run(*command, "--out", out))
    limits = ("--min-agreement", "0", "--max-accuracy-drop", "1")
    usage = side.run("export", run, "--precision", "int8", *limits, "--no-bench", "--out", side.fresh("int8"))
    return {"peak, GB": usage.peak / 1e9, "CPU, s": usage.cpu}


def predict_many(side: Side, photographs: Photographs) -> dict[str, float]:
    """A bundle that sees the small photographs' own size."""
    command = ("finetune", "--data", f"folder:{photographs.small}", "--backbone", "nano/plain", "--epochs", "1")
    run = side.once("small-run", lambda out: side.run(*command, "--out", out))
    bundle = side.once("small-bundle", lambda out: side.run("export", run, "--no-bench", "--out", out))
    few, many = (side.run("predict", bundle, photographs.links(count), "--json").peak for count in (2_000, 40_000))
    return {"peak of 2,000, GB": few / 1e9, "40,000 ÷ 2,000": many / few}


CASES: Final[dict[str, Callable[[Side, Photographs], dict[str, float]]]] = {
    "finetune-cold": finetune_cold,
    "finetune-warm": finetune_warm,
    "decode-finetune": decode_finetune,
    "decode-evaluate": decode_evaluate,
    "decode-predict": decode_predict,
    "compare-opens": compare_opens,
    "int8": int8,
    "predict-many": predict_many,
}


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """A checkout of an older commit, removed again."""
    git = ("git", "-C", str(ROOT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=False)


def measure(names: Sequence[str], rounds: int, before: str) -> list[dict[str, object]]:
    """Runs the cases, and prints each as it is done."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="resources-") as text, worktree(before, Path(text) / "build") as older:
        work = Path(text)
        sides = [Side("before", older, work / "before"), Side("after", ROOT, work / "after")]
        for side in sides:
            side.work.mkdir()
        photographs = Photographs(work / "photographs")
        for name in names:
            found: list[list[dict[str, float]]] = [[], []]
            for turn in range(rounds):
                for index in (0, 1) if turn % 2 == 0 else (1, 0):
                    found[index].append(CASES[name](sides[index], photographs))
            for figure in found[0][0]:
                first, second = ([each[figure] for each in part] for part in found)
                ratios = [b / a for a, b in zip(first, second, strict=True)]
                row = {"case": name, "figure": figure, "before": statistics.median(first)}
                rows.append({**row, "after": statistics.median(second), "ratio": statistics.median(ratios)})
                print("{case:16} {figure:18} {before:9.3f} {after:9.3f} {ratio:7.2f}×".format(**rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE, metavar="COMMIT", help="the older build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["*"], metavar="GLOB", help="cases to run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    names = [name for name in CASES if any(fnmatch.fnmatch(name, glob) for glob in options.only)]
    if not names or options.rounds < 1:
        parser.error(f"--only matches none of {', '.join(CASES)}, or --rounds is below 1")
    print(f"{'case':16} {'figure':18} {'before':>9} {'after':>9} {'ratio':>8}")
    rows = measure(names, options.rounds, options.before)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
