"""Is the rate that `--find-lr` suggests close to the best of a grid? Every rate of the grid is trained for real.

python -m benchmarks.train.find_lr [--data digits] [--limit N] [--backbones nano/plain] [--optimizers adamw sgd muon]
    [--epochs 8] [--seeds 2] [--json FILE]

The grid is the suggestion times 1/16, 1/4, 1, 4 and 16. The score is the accuracy on the validation images in the best
epoch, so that the test images play no part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from poolzoo.common import output

FACTORS: Final = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)


def accuracy(settings: Any) -> float:
    """Validation accuracy of a run; 0 where it diverges."""
    from poolzoo.common.errors import CheckFailed
    from poolzoo.train.run import finetune

    with tempfile.TemporaryDirectory() as folder:
        try:
            report = finetune(settings, Path(folder) / "run")
        except CheckFailed:
            return 0.0
    assert report is not None
    return report.val.accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--backbones", nargs="+", default=["nano/plain"])
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "sgd", "muon"])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    from poolzoo.train.lr_range import find_lr
    from poolzoo.train.settings import Settings

    rows = []
    for backbone in args.backbones:
        for optimizer in args.optimizers:
            settings = Settings(
                data=args.data,
                limit=args.limit,
                backbone=backbone,
                optimizer=optimizer,
                epochs=args.epochs,
                threads=args.threads,
            )
            with tempfile.TemporaryDirectory() as folder, output.quiet():
                found = find_lr(settings, Path(folder) / "lr")
            assert found is not None
            assert found.suggestion is not None, found.problem
            scores = {}
            for factor in FACTORS:
                lr = found.suggestion * factor
                with output.quiet():
                    runs = [accuracy(replace(settings, lr=lr, seed=seed)) for seed in range(args.seeds)]
                scores[f"{lr:.2g}"] = round(statistics.mean(runs), 4)
            row = {"backbone": backbone, "optimizer": optimizer, "suggestion": found.suggestion, "scores": scores}
            rows.append({**row, "rates": found.rates, "losses": found.losses})
            shown = "  ".join(f"{lr}: {score:.4f}" for lr, score in scores.items())
            output.data(f"{backbone} {optimizer}: suggests {found.suggestion:.2g}; validation accuracy {shown}")
            if args.json is not None:
                args.json.write_text(json.dumps(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
