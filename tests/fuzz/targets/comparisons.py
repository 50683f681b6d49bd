"""The files of a comparison, of a choice, and what the cache remembers of comparisons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from unittest import mock

from fuzz.harness import Disagreement, Target
from fuzz.targets.runs import EARLIER, mutated_json, mutated_lines
from poolzoo.common import files, json_reader
from poolzoo.compare import comparison, earlier, records, table
from poolzoo.compare.across import several, together
from poolzoo.compare.choosing.plan import Plan
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.journal import Journal
from poolzoo.compare.resolution import VarianceComponents
from poolzoo.report import compare_page
from poolzoo.report.results import ComparisonResult


def targets(folder: Path) -> Iterator[Target]:
    place = folder / "comparison"
    shutil.copytree(EARLIER / "comparison", place)
    plan, journal, result = ((place / name).read_bytes() for name in ("plan.json", "journal.jsonl", "compare.json"))

    def config(content: bytes) -> object:
        (place / "plan.json").write_bytes(content)
        found = ComparisonConfig.from_json(json_reader.mapping(files.read_json(place / "plan.json")))
        again = ComparisonConfig.from_json(json.loads(files.json_text(found.to_json())))
        if again != found:
            raise Disagreement("to_json is read as another config")
        return found.baseline_variant, found.trials, found.split_seed

    def resumed(content: bytes) -> object:
        (place / "plan.json").write_bytes(content)
        try:
            with chdir(folder):
                return comparison.resume(place, _no_runner)
        finally:
            (place / "plan.json").write_bytes(plan)

    def lines(content: bytes) -> object:
        (place / records.FILE).write_bytes(content)
        known = Journal(place / records.FILE).records
        for line in content.split(b"\n"):
            if line.rstrip(b"\r") in whole and json.loads(line)["trial"] not in known:
                raise Disagreement(f"a whole record is not read: {line!r}")
        return records.TrialRecords(place).trials

    whole = set(journal.splitlines())
    settled = ComparisonConfig.from_json({key: value for key, value in json.loads(plan).items() if key != "provenance"})

    def concluded(content: bytes) -> object:
        (place / "plan.json").write_bytes(plan)
        (place / records.FILE).write_bytes(content)
        known = records.TrialRecords(place)
        with chdir(folder):
            return compare_page.csv(table.comparison_result(settled, known, command=None, started=None))

    def shown(content: bytes) -> object:
        (folder / "compare.json").write_bytes(content)
        (source, *_) = several.read([folder / "compare.json"])
        found = ComparisonResult.from_json(json.loads(files.json_text(source.result.to_json())))
        return (
            compare_page.html(found),
            compare_page.csv(found),
            source.accuracies,
            source.errors,
            source.cells(found.baseline, 0.05) if found.baseline in source.rows else None,
        )

    def many(content: bytes) -> object:
        (folder / "several.json").write_bytes(content)
        return together.report([folder / "several.json"], None, 0.05, resamples=20).to_json()

    def chosen(content: bytes) -> object:
        (folder / "choose.json").write_bytes(content)
        found = Plan.load(folder)
        found.save(folder)
        if Plan.load(folder) != found:
            raise Disagreement("save is read as another plan")
        return [one.name for one in found.comparisons]

    kept = folder / "cache"
    (kept / "variances").mkdir(parents=True)
    conditions = earlier.Conditions("digits", "0" * 16, "nano/plain", "from scratch", "global poolings", {"epochs": 2})

    def remembered(content: bytes) -> object:
        (kept / "variances/a.json").write_bytes(content)
        (kept / "variances/b.json").write_bytes(variance)
        with mock.patch.dict("os.environ", POOLZOO_CACHE=str(kept)):
            found = earlier.alike(conditions)
        if "/valid" not in [one.path for one, _ in found]:
            raise Disagreement("a whole file beside it is not read")
        return [(one.name, differences.describe(), one.to_json()) for one, differences in found]

    components = VarianceComponents(seed=1e-4, image=1e-3, residual=0.1, images=100, df=4.0)
    known = earlier.EarlierComparison("/valid", "2026", 3, 2, conditions, components)
    variance = files.json_text(known.to_json()).encode()
    data = {"digits": json.loads(result), "again": {**json.loads(result), "started": "2026"}}
    choice = {"request": {"time_budget": 60.0, "target": None, "max_latency_ms": None, "alpha": 0.05}}
    choice |= {
        "comparisons": [{"regime": "frozen", "config": settled.to_json()}],
        "left_out": ["a"],
        "command": "poolzoo choose",
    }
    yield Target("plan", [plan], mutated_json, config)
    yield Target("plan-resumed", [plan], mutated_json, resumed, 0.02)
    yield Target("journal", [journal], mutated_lines, lines)
    yield Target("journal-concluded", [journal], mutated_lines, concluded, 0.05)
    yield Target("compare-json", [result], mutated_json, shown, 0.1)
    yield Target("several-comparisons", [json.dumps(data).encode()], mutated_json, many, 0.1)
    yield Target("choose", [files.json_text(choice).encode()], mutated_json, chosen)
    yield Target("variances", [variance], mutated_json, remembered)


def _no_runner(*_: object, **__: object) -> list[records.TrialRecord]:
    return []
