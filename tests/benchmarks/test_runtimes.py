"""The matrix of layers and bundles in runtimes: its cells, their keys, and the page."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.runtimes import bundles, cells, page
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


def test_the_page_names_what_verify_misses() -> None:
    def cell(status: cells.Status, verify: str) -> cells.CellResult:
        return cells.CellResult(graph=NAME, runtime="opencv", key="", status=status, off=0.5, verify=verify)

    found = {(NAME, "opencv"): cell("wrong", "wrong")}
    assert "1 cells of bundles are wrong; `verify` with `--runtime` finds 1" in page.render(found)
    found = {(NAME, "opencv"): cell("wrong", "agrees")}
    assert f"* missed: `{NAME}` in opencv" in page.render(found)
