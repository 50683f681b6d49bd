"""How far can probabilities be believed, before calibration and after? Fine-tunes backbones from several seeds.

python -m benchmarks.export.calibration --data folder:PATH [--backbones nano/resnet timm/mobilenetv3_small_050]
    [--pretrained nano/resnet] [--plugin FILE] [--seeds 3] [--set epochs=2 image_size=64] [--json FILE]
    [--runs FOLDER]
python -m benchmarks.export.calibration --data folder:PATH --backbones lite0 --pretrained lite0
    --plugin plugins/poolzoo-lite0/src/poolzoo_lite0/__init__.py
python -m benchmarks.export.calibration --logits RUN...

Every run is a `finetune` of its own: its validation images choose the best epoch and the temperature, and the test
images judge both. Weights at the start must not have been trained on the validation images, which would look too easy:
nano's weights on CIFAR-10 need --set split_seed=0, the split that they were made with. The goal is an expected
calibration error of at most 0.015 on every seed, and no seed that is worse than before beyond chance: the 95 % interval
of the change of the NLL is not above 0.

With --logits, runs that are there already are judged: maps fitted on their `validation.npz` are scored on `test.npz`,
beside what chance gives.

Every finished run is a line of JSON in FILE, and is not run again. Its folder is kept in FOLDER, for --logits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.export import calibration_maps
from benchmarks.export.calibration_maps import GOAL
from poolzoo.common import files, output
from poolzoo.common.errors import UsageError

KEY: Final = ("data", "backbone", "pretrained", "seed", "changes")


def measure(
    data: str, backbone: str, pretrained: bool, seed: int, changes: Mapping[str, Any], runs: Path | None
) -> dict[str, Any]:
    """One run, kept in a folder if there is one: its accuracy, its calibration, and its scores on the test images."""
    from poolzoo.metrics.evaluation import main_score
    from poolzoo.train.run import finetune
    from poolzoo.train.settings import Settings

    settings = Settings(data=data, backbone=backbone, pretrained=pretrained, seed=seed, **changes)
    with tempfile.TemporaryDirectory() if runs is None else contextlib.nullcontext(runs) as folder:
        report = finetune(settings, Path(folder) / f"{files.slug(backbone)}-{seed}")
    assert report is not None
    assert report.fit is not None
    assert report.reliability is not None
    key = {"data": data, "backbone": backbone, "pretrained": pretrained, "seed": seed, "changes": dict(changes)}
    scores = {"fit": report.fit.to_json(), "reliability": report.reliability.to_json()}
    accuracies = {"val_accuracy": main_score(report.val), "accuracy": main_score(report.test)}
    return {**key, **accuracies, "seconds": report.seconds, **scores}


def summary(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    before, after = row["reliability"]["before"], row["reliability"]["after"] or row["reliability"]["before"]
    change = row["reliability"]["change"].get("nll", {"value": 0.0, "interval": (0.0, 0.0)})
    chosen = row["fit"]["chosen"]
    shown = [f"{side[name]['value']:.4f}" for name in ("ece", "adaptive_ece", "nll") for side in (before, after)]
    low, high = change["interval"]
    return (
        row["backbone"],
        str(row["seed"]),
        f"{row['val_accuracy']:.4f}",
        f"{row['accuracy']:.4f}",
        f"{row['fit']['temperature']:.3f}",
        chosen["method"] if chosen else "none",
        *shown,
        f"{after['ece_floor']:.4f}",
        f"{low:.4f} to {high:.4f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--backbones", nargs="+", default=["nano/resnet"])
    parser.add_argument("--pretrained", nargs="*", default=[], help="the backbones that start from their weights")
    parser.add_argument("--plugin", type=Path, action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="keep the runs here")
    parser.add_argument("--logits", nargs="+", type=Path, metavar="RUN", help="judge finished runs, and train nothing")
    args = parser.parse_args()
    if args.logits:
        try:
            calibration_maps.show(args.logits)
        except UsageError as error:
            parser.error(f"{error}; {error.hint}")
        return

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it, before torch is imported
    from poolzoo.plugin import loader

    loader.settings.files = args.plugin
    changes = tomllib.loads("\n".join(args.set))
    known = (
        [json.loads(line) for line in args.json.read_text().splitlines()] if args.json and args.json.exists() else []
    )
    done = {json.dumps([row[name] for name in KEY]): row for row in known}
    rows = []
    for backbone in args.backbones:
        for seed in range(args.seeds):
            pretrained = backbone in args.pretrained
            key = json.dumps([args.data, backbone, pretrained, seed, changes])
            row = done.get(key)
            if row is None:
                with output.quiet():
                    row = measure(args.data, backbone, pretrained, seed, changes, args.runs)
                if args.json is not None:
                    with args.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
            rows.append(row)
    headers = [
        "backbone",
        "seed",
        "val",
        "accuracy",
        "T",
        "method",
        "ECE",
        "after",
        "adaptive",
        "after",
        "NLL",
        "after",
    ]
    output.table((*headers, "floor of ECE", "change of NLL"), [summary(row) for row in rows])
    after = [(row["reliability"]["after"] or row["reliability"]["before"])["ece"]["value"] for row in rows]
    worse = [row for row in rows if row["reliability"]["change"].get("nll", {"interval": [0]})["interval"][0] > 0]
    output.data(f"largest ECE {max(after):.4f}, the goal is {GOAL}; {len(worse)} of {len(rows)} worse beyond chance")


if __name__ == "__main__":
    main()
