"""The `predict.py` that a bundle carries, run as its user would."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.linear_bundle import LABELS, chances, linear_bundle
from support.odd_images import ODD, PIXELS, png

from poolzoo.artifacts import manifest as bundle
from poolzoo.export import script, standalone


def carrying(directory: Path) -> Path:
    """A bundle with its script, sealed again."""
    (directory / "predict.py").write_text(script.render())
    bundle.write_manifest(directory, "bundle")
    return directory


@pytest.fixture(params=["uint8", "float"])
def linear(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return carrying(linear_bundle(tmp_path / "linear", request.param))


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    return carrying(linear_bundle(tmp_path / "linear", "uint8"))


def run(directory: Path, *arguments: object, cwd: Path | str = "/") -> subprocess.CompletedProcess[str]:
    """The script, where warnings are errors and poolzoo is nowhere to be found."""
    alone = (
        "import runpy, sys; sys.modules['poolzoo'] = None; sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-W", "error", "-c", alone, str(directory / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


# --- The file ------------------------------------------------------------------------------------------------------


def test_it_needs_three_packages_and_is_short():
    tree = ast.parse(script.render())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in names}
    optional = {"simplejpeg"}  # imported where it is installed
    assert packages - sys.stdlib_module_names - optional == {"numpy", "onnxruntime", "PIL"}
    assert len(script.render().splitlines()) < 720


def test_it_is_clean(tmp_path):
    ruff = shutil.which("ruff", path=Path(sys.executable).parent)
    if ruff is None:
        pytest.skip("ruff is not installed")
    settings = Path(__file__).parents[2] / "pyproject.toml"
    (tmp_path / "predict.py").write_text(script.render())
    for command in (["check", "--ignore", "TID251,TID253"], ["format", "--check"]):
        found = subprocess.run(
            [ruff, *command, "--no-cache", "--config", settings, "predict.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout


def test_it_wants_the_files_that_a_bundle_must_list():
    assert set(standalone.REQUIRED) == set(bundle.REQUIRED["bundle"])


# --- Labels --------------------------------------------------------------------------------------------------------


def test_a_line_an_image_whatever_the_image_is(linear, tmp_path):
    (tmp_path / "odd").mkdir()
    expected = chances(np.stack([save(tmp_path / "odd" / f"{index:02}") for index, save in enumerate(ODD)]))
    outcome = run(linear, *sorted((tmp_path / "odd").iterdir()))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    lines = [line.split("\t") for line in outcome.stdout.splitlines()]
    assert [label for label, _ in lines] == [LABELS[index] for index in expected.argmax(1)]
    np.testing.assert_allclose([float(score) for _, score in lines], expected.max(1), atol=1e-5)


def test_a_photograph_is_resized_as_the_bundle_says(tmp_path):
    directory = carrying(linear_bundle(tmp_path / "b", "uint8", interpolation="bicubic", crop_pct=0.75))
    photo = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    by_hand = photo.resize((6, 4), Image.Resampling.BICUBIC, box=(7.5, 5, 52.5, 35))  # the central 45 × 30
    best = chances(np.asarray(by_hand))
    label, score = run(directory, tmp_path / "photo.png").stdout.rstrip("\n").split("\t")
    assert label == LABELS[best.argmax()]
    assert float(score) == pytest.approx(best.max(), abs=1e-5)


def test_a_broken_image_is_one_line_among_the_others(simple, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "good.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "bomb.png").write_bytes(png(20_000, 10_000, 8, 2, b""))
    outcome = run(simple, "good.png", "half.png", "bomb.png", "missing.png", "linear", "good.png", cwd=tmp_path)
    good = f"{LABELS[chances(PIXELS).argmax()]}\t{chances(PIXELS).max():.6f}"[:-2]  # the last digits may round
    lines = outcome.stdout.splitlines()
    assert outcome.returncode == 1
    assert outcome.stderr == ""
    assert [lines[0].startswith(good), lines[5].startswith(good)] == [True, True]
    assert lines[1].startswith("error\t")
    assert "bomb" in lines[2]
    assert lines[3:5] == ["error\tNo such file or directory", "error\tIs a directory"]
    assert len(lines) == 6


def test_top_names_several(simple, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "good.png")
    cells = run(simple, "--top", 3, tmp_path / "good.png").stdout.rstrip("\n").split("\t")
    order = np.argsort(-chances(PIXELS))[:3]
    assert cells[::2] == [LABELS[index] for index in order]
    np.testing.assert_allclose([float(cell) for cell in cells[1::2]], chances(PIXELS)[order], atol=1e-5)


@pytest.mark.parametrize("arguments", [(), ("--verify", "x.png"), ("--top", "0", "x.png")])
def test_what_makes_no_sense_is_a_usage_error(simple, arguments):
    outcome = run(simple, *arguments)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert "Traceback" not in outcome.stderr


# --- Verification --------------------------------------------------------------------------------------------------


def failed(directory: Path) -> dict[str, str]:
    """The checks that fail, with what they say."""
    outcome = run(directory, "--verify")
    lines = [line.split("\t") for line in outcome.stdout.splitlines()]
    assert outcome.stderr == ""
    assert {state for state, *_ in lines} <= {"ok", "FAILED"}
    found = {name: detail for state, name, detail in lines if state == "FAILED"}
    assert outcome.returncode == (1 if found else 0)
    return found


def test_a_whole_bundle_passes_every_check(linear):
    assert failed(linear) == {}
    names = [line.split("\t")[1] for line in run(linear, "--verify").stdout.splitlines()]
    files = sorted(path.name for path in linear.iterdir() if path.name != "manifest.json")
    batches = [f"outputs at batch {size}" for size in (1, 2, 7, 9)]
    assert names == ["manifest.json", *files, *batches, "probabilities"]


def test_an_exported_bundle_passes_every_check(bundle_copy):
    assert failed(carrying(bundle_copy)) == {}


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "config.json", "parity.json", "predict.py"])
def test_an_altered_or_missing_file_is_found(simple, name):
    raw = bytearray((simple / name).read_bytes())
    raw[min(5, len(raw) - 1)] ^= 0x20  # in predict.py, a letter of its docstring
    (simple / name).write_bytes(raw)
    assert failed(simple) == {name: "altered"}
    if name != "predict.py":
        (simple / name).unlink()
        assert failed(simple) == {name: "missing"}


def manifest_of(directory: Path, **changes: object) -> str:
    """A manifest with a seal, by its definition rather than by our code."""
    files = json.loads((directory / "manifest.json").read_text())["files"]
    value = {"schema": 2, "kind": "bundle", "files": files, **changes}
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    sealed = {**value, "seal": hashlib.sha256(text.encode()).hexdigest()}
    return json.dumps(sealed, indent=2, ensure_ascii=False) + "\n"


def test_a_manifest_vouches_for_itself(simple):
    manifest = simple / "manifest.json"
    whole = manifest_of(simple)
    manifest.write_text(whole)
    assert failed(simple) == {}
    value = json.loads(whole)
    unsealed = {key: value[key] for key in ("schema", "kind", "files")}
    manifest.write_text(json.dumps({**unsealed, "schema": 1}))  # as they were before
    assert failed(simple) == {}
    for text in (
        whole.replace("  ", " "),
        whole + "\n",
        whole.replace('"bytes": ', '"bytes": 1'),
        json.dumps(unsealed, indent=2) + "\n",
        json.dumps({**value, "schema": 1}, indent=2) + "\n",
        manifest_of(simple, kind="run"),
    ):
        assert text != whole
        manifest.write_text(text)
        assert "manifest.json" in failed(simple)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1, "kind": "bundle", "files": []}', "null", "\xff"])
def test_a_damaged_manifest_fails(simple, text):
    (simple / "manifest.json").write_text(text, encoding="latin-1")
    assert "manifest.json" in failed(simple) or "model.onnx" in failed(simple)


def test_a_manifest_that_lists_too_little_or_points_outside_fails(simple, tmp_path):
    (simple / "manifest.json").write_text(manifest_of(simple, files={}))
    assert failed(simple) == dict.fromkeys(standalone.REQUIRED, "not listed")
    bundle.write_manifest(simple, "bundle")
    (tmp_path / "secret").write_text("x")
    digest = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
    files = json.loads((simple / "manifest.json").read_text())["files"]
    (simple / "manifest.json").write_text(manifest_of(simple, files={**files, "../secret": digest}))
    assert failed(simple) == {"../secret": "points outside"}
    (simple / "link").symlink_to(tmp_path / "secret")
    (simple / "manifest.json").write_text(manifest_of(simple, files={**files, "link": digest}))
    assert failed(simple) == {"link": "points outside"}


def change(directory: Path, **arrays: np.ndarray) -> None:
    """Other golden outputs, sealed as if they were the right ones."""
    with np.load(directory / "golden.npz") as stored:
        whole = dict(stored)
    np.savez(directory / "golden.npz", **{**whole, **arrays})
    bundle.write_manifest(directory, "bundle")


@pytest.mark.parametrize("name", ["logits", "probabilities"])
def test_other_outputs_than_those_that_were_stored_fail(simple, name):
    with np.load(simple / "golden.npz") as stored:
        values = stored[name].copy()
    values[8, 1] += 2e-4  # where 1e-4 is allowed
    change(simple, **{name: values})
    assert set(failed(simple)) == {f"outputs at batch {size}" for size in (1, 2, 7, 9)}
    values[8, 1] = np.nan
    change(simple, **{name: values})
    assert len(failed(simple)) == 4


def test_unusable_golden_outputs_and_graphs_fail_in_one_line(simple):
    change(simple, images=np.zeros((0, 4, 6, 3), np.uint8))
    assert set(failed(simple)) == {"golden.npz"}
    (simple / "golden.npz").write_bytes(b"PK no archive")
    bundle.write_manifest(simple, "bundle")
    assert set(failed(simple)) == {"golden.npz"}
    (simple / "model.onnx").write_bytes(os.urandom(100))
    bundle.write_manifest(simple, "bundle")
    assert set(failed(simple)) == {"golden.npz"}
