"""`predict --out`: the rows of `predict` in Parquet files, whatever was interrupted on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.linear_bundle import LABELS, linear_bundle
from support.prediction_rows import repeated_images, rows_of
from support.ray_nodes import until
from support.refusals import refused

from poolzoo.runtime.prediction.cluster import PartWorker

COUNT = 600  # images, in three parts


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return linear_bundle(tmp_path / "linear", "uint8")


@pytest.fixture
def images(tmp_path: Path) -> str:
    return f"@{repeated_images(tmp_path / 'images', COUNT)}"


@pytest.fixture
def _parquet() -> None:
    pytest.importorskip("pyarrow")


# --- What cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "options", "words", "extra"),
    [("ray", ["--executor", "ray"], "Ray is not installed", "ray"), ("pyarrow", [], "--out needs pyarrow", "parquet")],
)
def test_what_is_not_installed_is_named_with_its_package(
    poolzoo, tmp_path, monkeypatch, bundle, images, module, options, words, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    outcome = poolzoo("predict", bundle, images, *options, "--out", tmp_path / "out")
    refused(outcome, 4, words, f"pip install 'poolzoo[{extra}]'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--executor", "ray"], "--out DIR"),
        (["--ray-address", "10.0.0.1:6379"], "--executor ray"),
        (["--out", "new", "--csv"], "--csv"),
        (["--out", "new", "--saliency"], "--saliency"),
        (["--resume", "new"], "--resume takes no other settings"),
    ],
)
def test_options_that_do_not_fit_are_refused(poolzoo, tmp_path, monkeypatch, bundle, images, options, word):
    monkeypatch.chdir(tmp_path)
    refused(poolzoo("predict", bundle, images, *options), 2, word)
    assert not Path("new").exists()


@pytest.mark.parametrize("given", [[], ["bundle"]])
def test_a_missing_argument_is_named(poolzoo, given):
    refused(poolzoo("predict", *given), 2, "IMAGE..." if given else "BUNDLE")


# --- In one process -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_parquet")
def test_the_files_hold_the_rows_of_the_command(poolzoo, tmp_path, bundle, images):
    expected = poolzoo("predict", bundle, images, "--top", 2, "--json")
    outcome = poolzoo("predict", bundle, images, "--top", 2, "--out", tmp_path / "out", "--json")
    assert outcome.code == expected.code == 1
    assert rows_of(tmp_path / "out") == expected.json
    assert [line for line in outcome.err.splitlines() if line.startswith(("error", "hint"))] == [
        line for line in expected.err.splitlines() if line.startswith(("error", "hint"))
    ]
    summary = outcome.json
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    labels = [row["label"] for row in expected.json if "label" in row]
    assert summary["labels"] == {label: labels.count(label) for label in LABELS if label in labels}
    assert (summary["images"], summary["unreadable"]["count"], summary["parts"]) == (COUNT, 2, 3)
    assert poolzoo("predict", "--resume", tmp_path / "out", "--skip-broken", 2).code == 0


@pytest.mark.usefixtures("_parquet")
@pytest.mark.parametrize("harm", ["missing", "cut", "empty", "of another part"])
def test_only_what_is_not_whole_is_made_again(poolzoo, tmp_path, bundle, images, harm):
    out = tmp_path / "out"
    poolzoo("predict", bundle, images, "--out", out)
    first, second, third = sorted((out / "parts").iterdir())
    expected, kept = rows_of(out), first.stat().st_mtime_ns
    if harm == "missing":
        second.unlink()
    elif harm == "of another part":
        second.write_bytes(third.read_bytes())
    else:
        second.write_bytes(second.read_bytes()[: -100 if harm == "cut" else 0])
    (out / "parts" / f".{second.name}-half").write_bytes(b"PAR1")
    outcome = poolzoo("predict", bundle, images, "--out", out)
    assert f"{COUNT - 256} of {COUNT} images are done already" in outcome.err
    assert rows_of(out) == expected
    assert sorted((out / "parts").iterdir()) == [first, second, third]
    assert first.stat().st_mtime_ns == kept


@pytest.mark.usefixtures("_parquet")
def test_relative_names_are_found_from_anywhere_later(poolzoo, tmp_path, monkeypatch, bundle, images):
    monkeypatch.chdir(tmp_path / "images")
    poolzoo("predict", bundle, "00.png", "01.png", "--out", tmp_path / "out")
    expected = rows_of(tmp_path / "out")
    (part,) = (tmp_path / "out" / "parts").iterdir()
    part.unlink()
    monkeypatch.chdir("/")
    assert poolzoo("predict", "--resume", tmp_path / "out").code == 0
    assert rows_of(tmp_path / "out") == expected
    assert [row["file"] for row in expected] == ["00.png", "01.png"]
    assert os.getcwd() == "/"


@pytest.mark.usefixtures("_parquet")
def test_a_bundle_that_has_changed_is_refused_later(poolzoo, tmp_path, bundle, images):
    out = tmp_path / "out"
    poolzoo("predict", bundle, images, "--out", out)
    next((out / "parts").iterdir()).unlink()
    bundle.rename(tmp_path / "old")
    refused_twice = poolzoo("predict", "--resume", out)
    assert (refused_twice.code, "does not see" in refused_twice.err) == (4, True)
    linear_bundle(bundle, "float")
    outcome = poolzoo("predict", "--resume", out)
    assert (outcome.code, "is another bundle than before" in outcome.err) == (4, True)


@pytest.mark.usefixtures("_parquet")
@pytest.mark.parametrize(
    ("name", "old", "new"), [("predict.json", b'"top": 5', b'"top": 3'), ("images.list", b"0", b"1")]
)
def test_an_altered_plan_or_list_is_not_resumed(poolzoo, tmp_path, bundle, images, name, old, new):
    out = tmp_path / "out"
    poolzoo("predict", bundle, images, "--out", out)
    (out / name).write_bytes((out / name).read_bytes().replace(old, new))
    for arguments in (("--resume", out), (bundle, images, "--out", out)):
        refused(poolzoo("predict", *arguments), 1, f"{name} was altered")


def test_a_worker_of_another_version_says_so(tmp_path):
    worker = PartWorker(str(tmp_path), None, "0.0", 1)
    (text,) = worker({"part": np.array([0])})["result"]
    assert " has poolzoo " in json.loads(text)["error"]
    assert json.loads(text)["hint"] == "pip install poolzoo==0.0, on every node"


# --- Deaths ---------------------------------------------------------------------------------------------------------

DEADLY = """
import os, signal, sys

def deadly(event, arguments):
    if event == "open" and arguments[0] == {path!r}:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(deadly)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("_parquet")
def test_an_image_that_kills_the_process_becomes_a_row(poolzoo, tmp_path, bundle, images):
    expected = poolzoo("predict", bundle, images, "--json").json
    names = (tmp_path / "images" / "list.txt").read_text().split("\n")
    names[300] = str(tmp_path / "deadly.png")
    (tmp_path / "deadly.png").write_bytes((tmp_path / "images" / "00.png").read_bytes())
    (tmp_path / "images" / "list.txt").write_text("\n".join(names))
    (tmp_path / "sitecustomize.py").write_text(DEADLY.format(path=names[300]))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "poolzoo", "predict", bundle, images, "--out", tmp_path / "out"]
    codes = []
    while -signal.SIGKILL in (*codes[-1:], *([-signal.SIGKILL] if not codes else [])):
        codes.append(subprocess.run(command, env=environment, capture_output=True, check=False).returncode)
    assert codes == [-signal.SIGKILL] * 4 + [1]
    found = rows_of(tmp_path / "out")
    assert found[300] == {"file": names[300], "error": "the process that reads it ends"}
    assert [row["file"] for row in found] == names
    for row, other in zip(found, expected, strict=True):  # beside it, images ran alone: rounding may differ
        if row["file"] != names[300]:
            assert row.get("score") == pytest.approx(other.get("score"), abs=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("_parquet")
def test_a_killed_process_loses_no_part(poolzoo, tmp_path, bundle):
    images, out = f"@{repeated_images(tmp_path / 'images', 6_000)}", tmp_path / "out"
    command = [sys.executable, "-m", "poolzoo", "predict", bundle, images, "--out", out]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: len(list(out.glob("parts/*.parquet"))) >= 3, process)
        locked = poolzoo("predict", bundle, images, "--out", out)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    refused(locked, 2, "another command is at work in the predictions")
    before = len(list(out.glob("parts/*.parquet")))
    outcome = poolzoo("predict", bundle, images, "--out", out)
    assert f"{before * 256:,} of 6,000 images are done already" in outcome.err
    assert rows_of(out) == poolzoo("predict", bundle, images, "--json").json
