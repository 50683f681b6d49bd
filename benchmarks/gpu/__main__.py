"""What poolzoo does on a CUDA GPU, in ten minutes and without a network; one JSON file holds all of it.

python -m benchmarks.gpu --data folder:PATH [--out gpu.json] [--target 0.9] [--minutes 10] [--rehearse]

    tests      the tests that are marked gpu, as `make gpu` runs them
    accuracy   finetune --recipe fast on the photographs: accuracy, epochs and seconds to the target, images/s, memory
    streaming  a ViT and a CNN at 224 pixels, fed by photographs of 500×375 that are decoded in every epoch
    onnx       the exported network in ONNX Runtime's CUDA provider beside torch: the same images, the same outputs

Each part has a share of the time, and runs in processes of its own. A part that lacks something is skipped with a line
that says what. `--rehearse` does the same on the CPU with tiny sizes: its numbers mean nothing. Run it through
`benchmarks/gpu.sh`, which installs wheels from a folder first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import photographs
from benchmarks.gpu import processes
from poolzoo.common import files

ROOT = Path(__file__).parents[2]
VIT, CNN = "timm/vit_tiny_patch16_224", "timm/resnet50"


@dataclass(frozen=True)
class Plan:
    """The sizes of everything.

    Attributes:
        data: `folder:PATH` of small photographs in train/ and test/.
        device: "cuda", or "cpu" of a rehearsal.
        target: Validation accuracy that is aimed at.
        work: Where runs go.
        rehearse: Whether all is tiny.
    """

    data: str
    device: str
    target: float
    work: Path
    rehearse: bool

    def or_tiny(self, value: Any, tiny: Any) -> Any:
        """A value, or that of a rehearsal."""
        return tiny if self.rehearse else value


class Lacking(Exception):
    """A part cannot run here; the text says what is missing."""


def main() -> int:
    """Runs all parts, and writes what each found as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder:PATH of JPEGs in train/<class>/ and test/<class>/")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the JSON file, which is replaced")
    parser.add_argument("--target", type=float, default=0.9, help="validation accuracy to reach")
    parser.add_argument("--minutes", type=float, default=10.0, help="time for everything, not of a rehearsal")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny sizes")
    given = parser.parse_args()
    minutes = 600.0 if given.rehearse else given.minutes
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="poolzoo-gpu-") as folder:
        device = "cpu" if given.rehearse else "cuda"
        plan = Plan(given.data, device, given.target, Path(folder), given.rehearse)
        found: dict[str, Any] = {"rehearsal": given.rehearse, "data": given.data, "parts": {}}
        try:
            found["machine"] = machine(plan)
        except Lacking as error:
            print(f"error: {error}", file=sys.stderr)
            return 4
        for name, part, share in PARTS:
            processes.allow(min(end, time.monotonic() + share * 60 * minutes))
            found["parts"][name] = outcome = measured(part, plan)
            print(f"{name:10} {summary(outcome)}", flush=True)
            files.write_json(given.out, found)
    print(given.out)
    return 1 if any(part["state"] == "failed" for part in found["parts"].values()) else 0


def measured(part: Callable[[Plan], dict[str, Any]], plan: Plan) -> dict[str, Any]:
    """What a part found, or why it found nothing."""
    started = time.monotonic()
    try:
        outcome = {"state": "done", **part(plan)}
    except Lacking as error:
        outcome = {"state": "skipped", "reason": str(error)}
    except processes.Failed as error:
        outcome = {"state": "failed", "reason": str(error)}
    return {**outcome, "wall_seconds": round(time.monotonic() - started, 1)}


def summary(outcome: dict[str, Any]) -> str:
    """A part in one line."""
    shown = {key: value for key, value in outcome.items() if not isinstance(value, dict | list)}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())


def machine(plan: Plan) -> dict[str, Any]:
    """The device and the versions of what matters."""
    found = processes.call("benchmarks.gpu.parts:machine", device=plan.device)
    if not plan.rehearse and not found["cuda"]:
        raise Lacking("torch sees no CUDA device; --rehearse runs the same parts on the CPU")
    place = Path(plan.data.partition(":")[2])
    if not plan.data.startswith("folder:") or not (place / "train").is_dir() or not (place / "test").is_dir():
        raise Lacking(f"--data {plan.data} is no folder with train/ and test/")
    return found


def tests(plan: Plan) -> dict[str, Any]:
    """The tests for a GPU; on the CPU all of them skip."""
    if not (ROOT / "tests").is_dir():
        raise Lacking("no tests here: run it in a checkout")
    marked = sorted(str(file) for file in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in file.read_text())
    report = plan.work / "tests.xml"
    command = ["pytest", "-m", "gpu", "-n", "0", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *marked]
    processes.run([sys.executable, "-m", *command], codes=(0, 1))
    import xml.etree.ElementTree as ElementTree

    suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    if counts["failures"] or counts["errors"]:
        raise processes.Failed(f"{counts['failures'] + counts['errors']} of {counts['tests']} tests fail")
    return counts


def accuracy(plan: Plan) -> dict[str, Any]:
    """A network from scratch on small photographs."""
    run = plan.work / "fast"
    options = plan.or_tiny((), ("--limit", "200", "--epochs", "2", "--backbone", "nano/plain"))
    finetune(plan, run, "--data", plan.data, "--recipe", "fast", *options)
    report, epochs = files.read_json(run / "metrics.json"), history(run)
    reached = next((line["epoch"] for line in epochs if line["val_accuracy"] >= plan.target), None)
    return {
        "test_accuracy": report["test"]["accuracy"],
        "val_accuracy": max(line["val_accuracy"] for line in epochs),
        "target": plan.target,
        "epochs_to_target": reached,
        "seconds_to_target": reached and round(sum(line["seconds"] for line in epochs[:reached]), 1),
        "epochs": len(epochs),
        **speed(epochs),
        "peak_memory": report["peak_memory"],
    }


def streaming(plan: Plan) -> dict[str, Any]:
    """Two networks at 224 pixels that learn from photographs which are decoded in every epoch."""
    count = plan.or_tiny(3000, 100)
    height, width = plan.or_tiny((375, 500), (75, 100))
    place = photographs.make(plan.work, Path(plan.data.partition(":")[2]), count, height, width)
    found = {}
    for name, backbone in (("vit", VIT), ("cnn", CNN)):
        run = plan.work / name
        tiny = ("--backbone", "nano/plain", "--image-size", "32", "--batch-size", "8")
        options = plan.or_tiny(("--backbone", backbone, "--image-size", "224", "--batch-size", "128"), tiny)
        finetune(plan, run, "--data", f"folder:{place}", "--data-cache", "none", "--epochs", "3", *options)
        report, epochs = files.read_json(run / "metrics.json"), history(run)
        found[name] = {"backbone": backbone, **speed(epochs), "peak_memory": report["peak_memory"]}
    return {f"{name}_images_per_s": part["images_per_s"] for name, part in found.items()} | {"networks": found}


def onnx(plan: Plan) -> dict[str, Any]:
    """The network of `accuracy` as a bundle, beside torch."""
    run, bundle = plan.work / "fast", plan.work / "bundle"
    if not (run / "manifest.json").exists():
        raise Lacking("there is no trained network to export")
    if not processes.call("benchmarks.gpu.parts:has_provider", device=plan.device):
        raise Lacking("onnxruntime here has no CUDA provider: the wheel is onnxruntime-gpu")
    poolzoo("export", str(run), "--out", str(bundle), "--provider", plan.device)
    poolzoo("verify", str(bundle), "--provider", plan.device)
    batches = plan.or_tiny([1, 32, 256], [1, 4])
    rows = processes.call(
        "benchmarks.gpu.parts:beside_torch", run=str(run), bundle=str(bundle), device=plan.device, batches=batches
    )
    return {"batches": rows}


def speed(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """Images a second once all is compiled, and what the first epoch took longer for compiling and warming up."""
    later = epochs[1:] or epochs
    seconds = statistics.median(line["seconds"] for line in later)
    return {
        "images_per_s": statistics.median(line["images_per_s"] for line in later),
        "epoch_seconds": round(seconds, 2),
        "compile_seconds": round(max(0.0, epochs[0]["seconds"] - seconds), 2),
        "train_seconds": round(sum(line["seconds"] for line in epochs), 1),
    }


def finetune(plan: Plan, run: Path, *options: str) -> None:
    poolzoo("finetune", "--device", plan.device, "--no-check-export", "--out", str(run), *options)


def poolzoo(*arguments: str) -> None:
    processes.run([sys.executable, "-m", "poolzoo", *arguments])


def history(run: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, an epoch each."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


PARTS: tuple[tuple[str, Callable[[Plan], dict[str, Any]], float], ...] = (
    ("tests", tests, 0.25),
    ("accuracy", accuracy, 0.35),
    ("streaming", streaming, 0.3),
    ("onnx", onnx, 0.2),
)  # with the share of the time that each may take


if __name__ == "__main__":
    sys.exit(main())
