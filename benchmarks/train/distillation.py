"""What `--distill-from` gives: a small student alone and with teachers, on the same images, over several seeds.

python -m benchmarks.train.distillation --data folder:PATH [--images 2000] [--epochs 10] [--seeds 3] [--out DIR]
    [--temperature 4] [--weight 0.7]

The student is `nano/plain`, from scratch. The teacher is `nano/resnet` with its published weights, which saw all
training images of CIFAR-10, and a head that learns from the images of the student. Test images are others. Temperature
and weight are given, not chosen on the test images. Runs that are finished in DIR are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from poolzoo.common import output


def run(settings: Any, place: Path) -> float:
    """Test accuracy of a run, which is trained, resumed or read."""
    from poolzoo.artifacts import manifest
    from poolzoo.artifacts.run_report import RunReport
    from poolzoo.train.run import finetune, resume

    if (place / manifest.MANIFEST).is_file():
        return RunReport.load(place).test.accuracy
    report = resume(place) if (place / "run.toml").is_file() else finetune(settings, place)
    assert report is not None
    return report.test.accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=2000, help="training images of student and teacher")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--weight", type=float, default=0.7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("distillation"))
    args = parser.parse_args()

    from poolzoo.train.settings import Settings

    args.out.mkdir(parents=True, exist_ok=True)
    student = Settings(
        data=args.data, backbone="nano/plain", limit=args.images, epochs=args.epochs, threads=args.threads, split_seed=0
    )
    teacher = replace(student, backbone="nano/resnet", pretrained=True, freeze="backbone")
    rows: list[dict[str, Any]] = [{"what": "teacher", "accuracies": [run(teacher, args.out / "teacher")]}]
    taught = replace(
        student,
        distill_from=str((args.out / "teacher").absolute()),
        distill_temperature=args.temperature,
        distill_weight=args.weight,
    )
    variants = {"student alone": student, "student with the teacher": taught}
    found: dict[str, list[float]] = {name: [] for name in variants}
    for seed in range(args.seeds):  # interleaved, so that an early stop leaves whole comparisons
        for index, (name, settings) in enumerate(variants.items()):
            found[name].append(run(replace(settings, seed=seed), args.out / f"student-{index}-{seed}"))
    rows += [{"what": name, "accuracies": accuracies} for name, accuracies in found.items()]
    for row in rows:
        values = row["accuracies"]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        output.data(f"{row['what']}: {statistics.mean(values):.4f}{spread} ({len(values)} seeds)")
    (args.out / "result.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
