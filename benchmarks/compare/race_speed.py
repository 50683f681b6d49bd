"""How much training a race saves: the same local poolings, trained from scratch, with `--race` and without it.

python -m benchmarks.compare.race_speed --images PATH [--limit 5000] [--epochs 4] [--seeds 3] [--out DIR] [--replay]
python -m benchmarks.compare.race_speed --whole COMPARISON [--race COMPARISON]

PATH holds CIFAR-10 as image files, PATH/train/<class>/* and PATH/test/<class>/*. The twelve poolings are from
docs/results/leaderboard.md: three that are level there, and nine that are 3 to 10 points behind, cheap and costly ones.
Training seconds are those of the trials. With `--replay` the race is not run: what it would train is taken from the
whole comparison, whose trials from the same seeds are bitwise the same. `--whole` and `--race` name finished
comparisons.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poolzoo.common import files, output
from poolzoo.compare import config as configs
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.race import Race, races_of, replay
from poolzoo.compare.records import TrialRecords
from poolzoo.compare.schedule import right_of, seconds_of
from poolzoo.compare.statistics import compare
from poolzoo.report.results import Delta

LEVEL: Final = ("none", "maxblur", "mixed")
BEHIND: Final = ("avg", "s3", "conv", "subsample", "aps", "median", "min", "lps", "s2d")
MEASURED_BY: Final = ("--robustness-samples", "0", "--export-top", "0", "--threads", "1")


@dataclass(frozen=True)
class Row:
    """One variant: its verdicts beside the baseline, its trials and their seconds, and where the race stopped it."""

    name: str
    whole: str
    race: str
    seconds: float
    race_seconds: float
    trials: int
    race_trials: int
    stopped: str


def measure(whole: Path, race: Path | None = None) -> list[Row]:
    """Compares a finished comparison of one backbone with a race of the same variants.

    Args:
        whole: A comparison without `--race`.
        race: One with it; None to replay it from `whole`.
    """
    config, records = _read(whole)
    right = right_of(config, records, config.backbone_names[0])
    baseline = config.baseline_variant.name
    of_all = compare(right, baseline, config.alpha).variants
    seconds = seconds_of(config, records, config.backbone_names[0])
    if race is None:
        run = Race(list(right), baseline, config.seed_numbers, config.alpha)
        trained = replay(right, run, seconds)
        race_seconds = {name: {seed: seconds[name][seed] for seed in rows} for name, rows in trained.items()}
    else:
        race_config, race_records = _read(race)
        (run,) = races_of(race_config, race_records).values()
        trained = right_of(race_config, race_records, race_config.backbone_names[0])
        race_seconds = seconds_of(race_config, race_records, race_config.backbone_names[0])
    found = compare(trained, baseline, config.alpha, stopped=run.stopped, level=run.level).variants
    stops = {name: one.stop.reason(config.seeds) for name, one in run.stopped.items()}
    return [
        Row(
            name=name,
            whole=_verdict(of_all[name].delta),
            race=_verdict(found[name].delta),
            seconds=sum(seconds[name].values()),
            race_seconds=sum(race_seconds[name].values()),
            trials=len(seconds[name]),
            race_trials=len(race_seconds[name]),
            stopped=stops.get(name, ""),
        )
        for name in of_all
    ]


def _read(place: Path) -> tuple[ComparisonConfig, TrialRecords]:
    content = {key: value for key, value in files.read_json(place / configs.FILE).items() if key != "provenance"}
    return ComparisonConfig.from_json(content), TrialRecords(place)


def _verdict(delta: Delta | None) -> str:
    if delta is None:
        return "baseline"
    return "better" if delta.better else "worse" if delta.worse else "not significant"


def show(rows: Sequence[Row]) -> None:
    """Prints the variants, the ratio of training seconds, and whether the verdicts are the same."""
    cells = [(r.name, r.whole, r.race, f"{r.seconds:.0f}", f"{r.race_seconds:.0f}", r.stopped) for r in rows]
    output.table(("pooling", "whole", "race", "s", "s in the race", ""), cells, right=(3, 4))
    whole, race = sum(r.seconds for r in rows), sum(r.race_seconds for r in rows)
    others = [r.name for r in rows if r.whole != r.race]
    print(f"trials: {sum(r.trials for r in rows)} without and {sum(r.race_trials for r in rows)} with a race")
    print(f"training seconds: {whole:.0f} without and {race:.0f} with a race, {whole / race:.2f} times fewer")
    print(f"verdicts: {('others for ' + ', '.join(others)) if others else 'all the same'}")


def run(given: argparse.Namespace, place: Path) -> list[Row]:
    """Trains the whole comparison, and the race unless it is replayed."""
    data = given.data or f"folder:{given.images.absolute()}"
    typed = ["--data", data, "--backbone", "nano/resnet", "--pool", "avg", "--baseline", "none", *MEASURED_BY]
    typed += ["--local-pool", given.poolings, "--epochs", str(given.epochs), "--seeds", str(given.seeds)]
    typed += ["--limit", str(given.limit)] if given.limit else []
    for name, race in (("whole", ()), ("race", ("--race",))):
        if name == "race" and given.replay:
            break
        words = ["--resume", str(place / name)] if (place / name).exists() else [*typed, *race]
        out = [] if (place / name).exists() else ["--out", str(place / name)]
        subprocess.run([sys.executable, "-P", "-m", "poolzoo", "compare", *words, *out], check=True)
    return measure(place / "whole", None if given.replay else place / "race")


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains and measures, or measures what was trained."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare.race_speed", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, metavar="PATH", help="CIFAR-10 as image files")
    parser.add_argument("--data", metavar="NAME", help="other data in their place, such as digits")
    parser.add_argument("--poolings", default=",".join((*LEVEL, *BEHIND)), metavar="NAMES", help="none among them")
    parser.add_argument("--limit", type=int, default=5000, metavar="N", help="images of each split at most; 0 for all")
    parser.add_argument("--epochs", type=int, default=4, metavar="E")
    parser.add_argument("--seeds", type=int, default=3, metavar="S")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keeps both comparisons, and resumes them")
    parser.add_argument("--replay", action="store_true", help="do not train the race again")
    parser.add_argument("--whole", type=Path, metavar="COMPARISON", help="finished, without --race")
    parser.add_argument("--race", type=Path, metavar="COMPARISON", help="finished, with --race")
    given = parser.parse_args(arguments)
    if given.whole:
        show(measure(given.whole, given.race))
    elif not (given.images or given.data):
        parser.error("give --images, --data or --whole")
    elif given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        show(run(given, given.out))
    else:
        with tempfile.TemporaryDirectory() as folder:
            show(run(given, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
