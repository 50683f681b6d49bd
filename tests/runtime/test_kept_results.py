"""What `verify --runtime` finds is kept in the bundle, for people and programs, and leaves the bundle as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.runtimes import fake_runtime

from poolzoo.artifacts import manifest
from poolzoo.report.bundle_words import Speedup
from poolzoo.runtime import kept_results
from poolzoo.runtime.environment import current_environment
from poolzoo.runtime.measurements import BenchRow, Measurement
from poolzoo.runtime.runtime_results import RuntimeResult, RuntimesReport

BUNDLE = Path(__file__).parents[1] / "data" / "digits_bundle"


@pytest.fixture
def bundle(tmp_path):
    return shutil.copytree(BUNDLE, tmp_path / "bundle")


def result(name: str, **changes) -> RuntimeResult:
    return RuntimeResult(**{"runtime": name, "version": "1", "status": "agrees", "detail": "", **changes})


def keep(bundle: Path, *results: RuntimeResult, threads: int = 1) -> None:
    report = RuntimesReport(results=results, named=(), environment=current_environment(threads))
    kept_results.keep(bundle, report, "fp32")


def rows(bundle: Path) -> dict[str, dict]:
    kept = kept_results.read(bundle, manifest.file_sha256(bundle / "model.onnx"))
    return {row["runtime"]: row for row in kept}


def test_verify_keeps_its_table_beside_an_unchanged_bundle(tmp_path, bundle, poolzoo):
    before = {path.name: path.read_bytes() for path in bundle.iterdir() if path.is_file()}
    plugin = fake_runtime(tmp_path / "fake.py")
    assert poolzoo("verify", bundle, "--runtime", "fake", "--plugin", plugin, "--no-bench").code == 0
    found, page = rows(bundle)["fake"], (bundle / "runtimes.html").read_text(encoding="utf-8")
    assert (found["status"], found["threads"] > 0, found["max_abs"] <= found["allowed"]) == ("agrees", True, True)
    assert all(text in page for text in ("fake", "agrees", found["processor"], found["date"]))
    assert {name: (bundle / name).read_bytes() for name in before} == before
    assert manifest.differences(bundle) == []


def test_a_later_result_replaces_that_of_its_runtime_alone(bundle):
    keep(bundle, result("one", startup_ms=1.0), result("two"))
    keep(bundle, result("one", startup_ms=7.0), result("two", status="not installed"), result("three", status="wrong"))
    found, page = rows(bundle), (bundle / "runtimes.html").read_text(encoding="utf-8")
    assert (f"Measured {found['one']['date']} on" in page, '<th scope="col">measured' in page) == (True, False)
    assert {name: row["status"] for name, row in found.items()} == {"one": "agrees", "two": "agrees", "three": "wrong"}
    assert found["one"]["startup_ms"] == 7.0


def test_rows_say_how_they_were_measured_where_that_differs(bundle):
    keep(bundle, result("one"))
    keep(bundle, result("two"), threads=2)
    page = (bundle / "runtimes.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("measured", ", 1 thread<", ", 2 threads<"))


def test_results_of_another_graph_are_dropped(bundle):
    keep(bundle, result("one"))
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"\n")
    assert rows(bundle) == {}
    keep(bundle, result("two"))
    assert list(rows(bundle)) == ["two"]


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 1, "model_sha256": "", "runtimes": [{"runtime": 3}]}'])
def test_a_damaged_file_is_written_anew(bundle, content):
    (bundle / "runtimes.json").write_text(content)
    keep(bundle, result("one"))
    assert list(rows(bundle)) == ["one"]


def test_a_bundle_that_cannot_be_written_stays_as_it_was(bundle, capsys):
    (bundle / "runtimes.json").mkdir()
    before = sorted(bundle.iterdir())
    keep(bundle, result("one"))
    assert sorted(bundle.iterdir()) == before
    assert "warning: what was found in runtimes is not kept" in capsys.readouterr().err


def test_the_page_shows_speed_changes_and_escaped_errors(bundle):
    measured = Measurement(
        runtime="one",
        threads=1,
        median_ms=2.5,
        min_ms=2,
        p90_ms=3,
        p99_ms=4,
        rounds=9,
        speedup={"median": 1.25, "p10": 1.0, "p90": 1.5},
    )
    keep(
        bundle,
        result("one", speed=(BenchRow(measured, 32),), bytes=1_500_000, changes=("batch 1", "float input")),
        result("two", status="refused", detail="<script>alert(1)</script>"),
    )
    page = (bundle / "runtimes.html").read_text(encoding="utf-8")
    for text in ("batch 32, ms (speed)", "2.50 (1.25×)", "1.50 MB", "batch 1, float input", "&lt;script&gt;"):
        assert text in page
    assert "<script" not in page
    assert json.loads((bundle / "runtimes.json").read_text(encoding="utf-8"))["runtimes"][0]["bytes"] == 1_500_000


@pytest.mark.parametrize(
    ("median", "p10", "p90", "shown"),
    [
        (2.514, 2.4349, 2.6, "2.51× (2.43–2.60)"),
        (0.1, None, None, "0.10×"),
        (0.0512, None, None, "0.051×"),
        (0.0021, 0.00199, 0.1049, "0.0021× (0.002–0.10)"),
        (0.0, 0.0, 0.09951, "0× (0–0.10)"),
    ],
)
def test_a_slow_runtime_is_not_shown_as_zero_times_as_fast(median, p10, p90, shown):
    assert str(Speedup(median, p10, p90)) == shown
