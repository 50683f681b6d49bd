"""A bundle that somebody changed and signed again: verification says what is wrong with it, and raises nothing."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.linear_bundle import linear_bundle

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.common.errors import CheckFailed
from poolzoo.explain.saliency import Explainer
from poolzoo.plugin import loader
from poolzoo.runtime import cases, ort_session, prepare, protocol
from poolzoo.runtime.builtin import sessions
from poolzoo.runtime.verify import verify

DIGITS = Path(__file__).parents[2] / "exports/digits"


@pytest.fixture
def bundle(tmp_path):
    return linear_bundle(tmp_path / "bundle", "uint8")


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images[:, :2],
        lambda images: images.astype(np.float64),
        lambda images: images[..., None],
    ],
)
def test_golden_images_that_the_graph_does_not_take_fail(bundle, change):
    golden = files.read_archive(bundle / "golden.npz")
    np.savez(bundle / "golden.npz", **{**golden, "images": change(golden["images"])})
    manifest.write_manifest(bundle, "bundle")
    (failed,) = (check for check in verify(bundle, measure_speed=False).checks if not check.passed)
    assert failed.id == "golden"
    assert "the graph cannot be run on" in failed.detail


@pytest.mark.parametrize("name", ["logits", "probabilities", "allowed"])
def test_golden_outputs_that_are_texts_are_refused(bundle, name):
    golden = files.read_archive(bundle / "golden.npz")
    np.savez(bundle / "golden.npz", **{**golden, name: golden[name].astype("U4")})
    with pytest.raises(CheckFailed, match="outputs or tolerances that are no floats"):
        cases.golden_cases(bundle)


def test_an_answer_with_an_array_of_many_sides_is_refused():
    stream = io.BytesIO()
    protocol.write(stream, {}, [np.zeros((1,) * 32, np.uint8)])
    whole = stream.getvalue()
    assert protocol.read(io.BytesIO(whole)).arrays[0].ndim == 32
    start, header = len(protocol.MAGIC) + 4, whole[len(protocol.MAGIC) + 4 :].replace(b"[1,", b"[" + b"1," * 300)
    end = header.index(b"}]}") + 3
    framed = whole[: start - 4] + end.to_bytes(4, "little") + header
    with pytest.raises(protocol.BadFrame, match="an array of uint8"):
        protocol.read(io.BytesIO(framed))


def test_a_plugin_without_a_source_is_passed_over(bundle):
    files.write_json(bundle / "config.json", {"poolzoo": {"plugins": {"pool": {"dist": "acme", "version": "1"}}}})
    manifest.write_manifest(bundle, "bundle")
    assert all(check.passed for check in verify(bundle, measure_speed=False).checks)


@pytest.mark.parametrize("targets", [None, {}, {"openvino": {"changes": 3}}])
def test_a_form_that_the_configuration_does_not_describe_is_refused(bundle, tmp_path, targets):
    prepare.target_directory(bundle, "openvino").mkdir(parents=True)
    files.write_json(bundle / "config.json", {"export": {} if targets is None else {"targets": targets}})
    with pytest.raises(CheckFailed, match=r"config\.json (says nothing of|is damaged)"):
        prepare.prepare(bundle, loader.catalog().runtime("openvino"), tmp_path / "work")


@pytest.mark.parametrize("content", [[], {}, {"kind": "uint8", "height": -1, "width": 4}, {"kind": "other"}])
def test_a_converted_graph_without_an_input_is_refused(tmp_path, content):
    files.write_json(tmp_path / sessions.INPUT, content)
    with pytest.raises(CheckFailed, match="it states no input of a graph"):
        sessions.kept_input(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda config: config.update(num_features=1 << 40), "does not hold a classifier of 1"),
        (
            lambda config: config["poolzoo"].update(map=[64, 1 << 30, 1 << 30]),
            "a far larger feature map than the graph has",
        ),
    ],
)
def test_a_head_that_the_bundle_does_not_hold_is_not_built(tmp_path, capsys, change, says):
    place = Path(shutil.copytree(DIGITS, tmp_path / "digits"))
    model = ort_session.open_model(place / "model.onnx", threads=1)
    assert _method(place, model) == "gradient"
    config = files.read_json(place / "config.json")
    change(config)
    files.write_json(place / "config.json", config)
    assert _method(place, model) == "occlusion"
    assert says in capsys.readouterr().err


def _method(place: Path, model: ort_session.OnnxModel) -> str:
    found, method = Explainer(place, model, 1, {}).contributions(np.zeros((*model.size, 3), np.uint8), 0)
    assert np.isfinite(found).all()
    return method
