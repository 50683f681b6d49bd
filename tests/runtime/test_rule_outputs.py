"""Bundles that abstain or give prediction sets: in `predict`, its files and its script, and what `verify` finds."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image
from support.linear_bundle import linear_bundle
from support.odd_images import PIXELS
from support.ruled_bundle import SETS, expected, ruled_bundle

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.metrics.output_rules import OutputRules
from poolzoo.runtime import rule_outputs


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return ruled_bundle(tmp_path / "ruled")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Images of different degrees of certainty; the last one cannot be read."""
    found = []
    for index in range(12):
        found.append(tmp_path / f"{index:02}.png")
        Image.fromarray((np.roll(PIXELS, 7 * index) * ((index + 1) / 12)).astype(np.uint8)).save(found[-1])
    (tmp_path / "99.png").write_bytes(b"no image")
    return [*found, tmp_path / "99.png"]


def answers(images: list[Path]) -> list[tuple[bool, list[str]]]:
    return expected(np.stack([np.asarray(Image.open(path)) for path in images[:-1]]))


def change(bundle: Path, edit: Callable[[onnx.ModelProto], object]) -> None:
    """Changes the graph of a bundle, whose files have their checksums again."""
    proto = onnx.load(bundle / "model.onnx")
    edit(proto)
    onnx.save(proto, bundle / "model.onnx")
    manifest.write_manifest(bundle, "bundle")


def test_predict_shows_both_as_the_definition_has_them(poolzoo, bundle, images):
    rows = poolzoo("predict", bundle, *images, "--json").json

    found = [(row["accepted"], [one["label"] for one in row["set"]]) for row in rows[:-1]]
    assert found == answers(images)
    assert {accepted for accepted, _ in found} == {True, False}
    assert len({len(members) for _, members in found}) > 1
    assert "accepted" not in rows[-1]


def test_csv_has_the_columns_accepted_and_set(poolzoo, bundle, images):
    rows = list(csv.DictReader(io.StringIO(poolzoo("predict", bundle, *images, "--csv").out)))

    assert list(rows[0]) == ["file", "label", "score", "accepted", "set", "error"]
    for row, (accepted, members) in zip(rows, answers(images), strict=False):
        assert row["accepted"] == ("yes" if accepted else "no")
        assert row["set"] == "|".join(members)
    assert (rows[-1]["accepted"], rows[-1]["set"]) == ("", "")


def test_a_bundle_without_rules_has_no_such_columns(poolzoo, tmp_path, images):
    outcome = poolzoo("predict", linear_bundle(tmp_path / "plain", "uint8"), images[0], "--csv")

    assert outcome.out.splitlines()[0] == "file,label,score,error"


def test_parquet_has_both_columns_and_a_count(poolzoo, bundle, images, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")

    assert poolzoo("predict", bundle, *images, "--out", tmp_path / "out").code == 1

    rows = parquet.read_table(tmp_path / "out" / "parts").to_pylist()
    assert [(row["accepted"], row["set"]) for row in rows] == [*answers(images), (None, None)]
    summary = files.read_json(tmp_path / "out" / "summary.json")
    assert summary["accepted"] == sum(accepted for accepted, _ in answers(images))


def test_the_script_shows_and_checks_both(bundle, images):
    def script(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, bundle / "predict.py", *arguments]
        return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)

    rows = [line.split("\t") for line in script(*images[:-1]).stdout.splitlines()]
    assert [(row[2] == "yes", row[3].split("|")) for row in rows] == answers(images)

    assert [line.split("\t")[0] for line in script("--verify").stdout.splitlines() if "prediction_set" in line] == [
        "ok"
    ]
    _set(bundle, "quantile", 0.3)
    assert [line.split("\t")[0] for line in script("--verify").stdout.splitlines() if "prediction_set" in line] == [
        "FAILED"
    ]


def _set(bundle: Path, name: str, value: object) -> None:
    """Replaces a number of the rules in the graph."""

    def edit(proto: onnx.ModelProto) -> None:
        (weight,) = (one for one in proto.graph.initializer if one.name == f"poolzoo/{name}")
        kind = numpy_helper.to_array(weight).dtype
        weight.CopyFrom(numpy_helper.from_array(np.asarray(value, kind), weight.name))

    change(bundle, edit)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_verify_passes_what_was_exported(poolzoo, tmp_path, kind):
    report = poolzoo("verify", ruled_bundle(tmp_path / "ruled", kind), "--no-bench", "--json").json

    assert {check["id"]: check["passed"] for check in report["checks"]}.items() >= {
        ("accepted", True),
        ("prediction_set", True),
    }


@pytest.mark.parametrize(
    ("name", "value", "output"),
    [
        ("threshold", np.nextafter(np.float32(0.5), np.float32(1)), "accepted"),
        ("quantile", 0.79, "prediction_set"),
        ("penalties", [0.0, 0.12, 0.2, 0.3], "prediction_set"),
        ("above_one", 0.0, "prediction_set"),
    ],
)
def test_verify_names_an_output_that_breaks_its_rule(poolzoo, bundle, name, value, output):
    _set(bundle, name, value)

    outcome = poolzoo("verify", bundle, "--no-bench", "--json")

    assert outcome.code == 1
    assert [check["id"] for check in outcome.json["checks"] if not check["passed"]] == [output]


def test_verify_names_an_output_without_a_rule(poolzoo, bundle):
    change(bundle, lambda proto: onnx.helper.set_model_props(proto, _metadata(proto, "abstention")))

    outcome = poolzoo("verify", bundle, "--no-bench", "--json")

    assert [check["id"] for check in outcome.json["checks"] if not check["passed"]] == ["accepted", "config"]


def _metadata(proto: onnx.ModelProto, dropped: str) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props if entry.key != dropped}


def test_other_runtimes_get_logits_and_probabilities_alone(bundle):
    content = rule_outputs.without((bundle / "model.onnx").read_bytes())
    assert content is not None
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    plain, ruled = onnxruntime.InferenceSession(content), onnxruntime.InferenceSession(bundle / "model.onnx")
    with np.load(bundle / "golden.npz") as golden:
        images = golden["images"]

    assert [one.name for one in plain.get_outputs()] == ["logits", "probabilities"]
    for before, after in zip(ruled.run(None, {"images": images}), plain.run(None, {"images": images}), strict=False):
        np.testing.assert_array_equal(before, after)
    assert rule_outputs.without(content) is None


@pytest.mark.slow
def test_predict_in_another_runtime_shows_the_same(poolzoo, bundle, images):
    here, there = (
        poolzoo("predict", bundle, *images, "--json", *more).json for more in ((), ("--runtime", "reference"))
    )

    assert [(row["accepted"], row["set"][0]["label"]) for row in there[:-1]] == [
        (row["accepted"], row["set"][0]["label"]) for row in here[:-1]
    ]


def test_rules_that_are_none_are_refused(poolzoo, bundle, images):
    config = files.read_json(bundle / "config.json")
    config["export"]["abstention"]["threshold"] = "high"
    files.write_json(bundle / "config.json", config)
    manifest.write_manifest(bundle, "bundle")

    outcome = poolzoo("predict", bundle, images[0])

    assert outcome.code == 1
    assert "threshold between 0 and 1" in outcome.err


def test_many_classes_need_few_places(tmp_path):
    sets = replace(SETS, quantile=0.5, penalty=0.4, unpenalized=2)
    rules = OutputRules(sets=sets)
    proto = onnx.load(ruled_bundle(tmp_path / "ruled", rules=rules) / "model.onnx")

    places = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}["poolzoo/places"]
    assert places.tolist() == [3]  # the third place costs 0.4, a fourth would cost 0.8
    assert json.loads(_metadata(proto, "")["prediction_sets"])["penalty"] == 0.4
