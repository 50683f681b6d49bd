"""The matrix of layers and bundles in runtimes: its cells, their keys, and the page."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.runtimes import fake_runtime

from benchmarks.runtimes import bundles, cells, layers, page
from benchmarks.runtimes.__main__ import main
from poolzoo.plugin import loader

DIGITS = Path(__file__).parents[1] / "data" / "digits_bundle"
NAME = bundles.BUNDLES[0].name


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Path, Path]:
    """The stored bundle, and its golden images as cases."""
    bundle = Path(shutil.copytree(DIGITS, tmp_path / "bundle"))
    with np.load(bundle / "golden.npz") as golden:
        count = sum(cells.BATCHES)
        np.savez(tmp_path / "cases.npz", images=golden["images"][:count], logits=golden["logits"][:count])
    return bundle, tmp_path / "cases.npz"


def test_a_cell_agrees_or_says_how_far_it_is_off(digits: tuple[Path, Path]) -> None:
    bundle, cases = digits
    with cells.Warm("onnxruntime") as warm:
        right = cells.run(NAME, bundle, cases, warm, whole=False, measure_speed=False)
        with np.load(cases) as arrays:
            images, logits = arrays["images"], arrays["logits"]
        logits[4] += np.abs(logits).max()  # an image of the second batch
        np.savez(cases, images=images, logits=logits)
        wrong = cells.run(NAME, bundle, cases, warm, whole=False, measure_speed=False)
    assert right.status == "agrees"
    assert (wrong.status, "in batches of 3 alone" in wrong.detail) == ("wrong", True)
    assert wrong.off == pytest.approx(0.5, abs=0.2)
    assert cells.CellResult.from_json(wrong.to_json()) == wrong


def test_a_runtime_that_does_not_answer_is_too_slow(digits: tuple[Path, Path], tmp_path: Path) -> None:
    body = "def open_session(bundle, **settings): time.sleep(1000)\n"
    loader.load_plugins(fake_runtime(tmp_path / "fake.py", body), installed=False)
    with cells.Warm("fake", seconds=0.5) as warm:
        found = cells.run(NAME, *digits, warm, whole=True, measure_speed=True)
    assert (found.status, found.detail) == ("too slow", "> 0.5 s while opening")
    shown = page.render({(NAME, "opencv"): dataclasses.replace(found, runtime="opencv")})
    assert f"`{NAME}` | CNN | too slow |" in shown
    assert f"* `{NAME}`: too slow. > 0.5 s while opening." in shown


def test_the_key_changes_with_numbers_and_not_with_names(digits: tuple[Path, Path]) -> None:
    bundle, cases = digits
    entry = loader.catalog().runtime("onnxruntime")
    before = cells.key(bundle, cases, entry)
    model = onnx.load(bundle / "model.onnx")
    model.graph.node[0].name = "another"
    onnx.save(model, bundle / "model.onnx")
    assert cells.key(bundle, cases, entry) == before
    weight = next(one for one in model.graph.initializer if one.raw_data)
    weight.raw_data = bytes(len(weight.raw_data))
    onnx.save(model, bundle / "model.onnx")
    assert cells.key(bundle, cases, entry) != before


def cell(graph: str, status: cells.Status, verify: str = "") -> tuple[tuple[str, str], cells.CellResult]:
    """A cell of OpenCV, as an entry of the page's cells."""
    made = cells.CellResult(graph=graph, runtime="opencv", version="5", key="", status=status, off=0.5, verify=verify)
    return (graph, "opencv"), made


def test_the_page_names_what_verify_misses() -> None:
    assert "1 cells of bundles are wrong; `verify` with `--runtime` finds 1" in page.render(
        dict([cell(NAME, "wrong", "wrong")])
    )
    assert f"* missed: `{NAME}` in opencv" in page.render(dict([cell(NAME, "wrong", "agrees")]))


def test_a_layer_agrees_where_it_does_in_all_geometries() -> None:
    graphs = layers.graphs_of("local avg")
    assert len(graphs) == len(layers.GEOMETRIES) > 1
    right = dict(cell(graph, "agrees") for graph in graphs)
    assert "| `local avg` | ✓ |" in page.render(right)
    found = page.render(right | dict([cell(graphs[1], "wrong")]))
    assert "| `local avg` | **0.5** |" in found
    assert f"* `{graphs[1]}`: wrong." in found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "global avg"], "cells.jsonl is no file; remove it"),
        (["--only", "global avg", "--runtimes", "nope"], "no runtime is called 'nope'"),
        (["--write", "--folder", "elsewhere"], "holds no cells; run some first"),
    ],
    ids=["a directory as journal", "an unknown runtime", "nothing to write"],
)
def test_what_cannot_run_is_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "cells.jsonl").mkdir()
    if "--runtimes" in arguments:
        (tmp_path / "cells.jsonl").rmdir()
    monkeypatch.setattr(sys, "argv", ["runtimes", "--folder", str(tmp_path), *arguments])
    with pytest.raises(SystemExit):
        main()
    last = capsys.readouterr().err.splitlines()[-1]
    assert said in last
    assert last.startswith("python -m benchmarks.runtimes: error: ")
