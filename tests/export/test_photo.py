"""Graphs that take photographs of any size: Pillow's resize inside, and everything that uses such a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image, ImageOps
from support.linear_bundle import linear_bundle

from poolzoo.artifacts import manifest
from poolzoo.common.errors import UsageError
from poolzoo.explain.saliency import Explainer
from poolzoo.parity import photographs
from poolzoo.plugin.spec import GraphForm
from poolzoo.runtime import cases, forms, gate, ort_session, photo_input
from poolzoo.runtime import photo_graph as photo
from poolzoo.runtime.process import Answer

SIDES = [(37, 53), (64, 96), (97, 65), (1, 1), (1, 200), (40, 1), (33, 301), (140, 131), (300, 451), (20, 20)]


def pixels_graph(size, **fit):
    """A graph of one size whose logits are the means of its rows: what it is given shows in them."""
    height, width = size
    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["levels"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", height, width, 3])
    outputs = [helper.make_tensor_value_info(name, 1, ["batch", height]) for name in ("logits", "probabilities")]
    model = helper.make_model(
        helper.make_graph(nodes, "rows", [images], outputs), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    given = {"name": "images", "kind": "uint8", "layout": "NHWC", "range": [0, 255], "channels": "RGB"}
    facts = {
        "input": {**given, "height": height, "width": width},
        "labels": [f"row {index}" for index in range(height)],
        "preprocessing": {"reader": 2, **fit},
    }
    helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    return model


def opened(model, path):
    onnx.save(model, path)
    return ort_session.open_model(path, threads=1)


def seen_by(model, picture):
    """What the network sees of a photograph, `float32[h, w, 3]`."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(helper.make_tensor_value_info(photo_input.PIXELS, TensorProto.FLOAT, None))
    session = ort_session.open_session(shown.SerializeToString(), "CPUExecutionProvider", 1)
    return session.run([photo_input.PIXELS], {"images": picture[None]})[0][0]


def picture_of(size, seed=0):
    """Noise over a smooth background."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size[::-1], Image.BICUBIC)
    return (np.asarray(coarse, np.int16) + generator.integers(-40, 41, (*size, 3))).clip(0, 255).astype(np.uint8)


def by_pillow(picture, size, interpolation="bilinear", crop_pct=1.0):
    """The training transform; tall photographs in the order of Pillow 13, in any release."""
    if picture.shape[:2] == size:
        return picture
    how, image = Image.Resampling[interpolation.upper()], Image.fromarray(picture)
    (height, width), (rows, columns) = size, picture.shape[:2]
    if rows <= height or rows - height <= 2 * (columns - width):
        return np.asarray(ImageOps.fit(image, (width, height), how, bleed=(1 - crop_pct) / 2))
    high = min(rows, columns * height / width) * crop_pct / 2
    wide = min(columns, rows * width / height) * crop_pct / 2
    image = image.resize((columns, height), how, (0, rows / 2 - high, columns, rows / 2 + high))
    return np.asarray(image.resize((width, height), how, (columns / 2 - wide, 0, columns / 2 + wide, height)))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(7, 10), (64, 96)])
def test_photographs_are_resized_as_pillow_resizes_them(size, interpolation, crop_pct, dense):
    model = photo.with_photo_input(pixels_graph(size, interpolation=interpolation, crop_pct=crop_pct), dense=dense)
    for sides in SIDES:
        picture = picture_of(sides)
        levels = np.abs(seen_by(model, picture) - by_pillow(picture, size, interpolation, crop_pct))
        assert levels.max() <= 2, sides  # where a value lies between two levels, in either pass
        assert levels.mean() <= 0.1, sides


@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
def test_a_photograph_of_the_stored_size_is_left_as_it_is(crop_pct):
    size = (33, 10)  # a ratio that no float32 holds
    picture = picture_of(size)
    model = photo.with_photo_input(pixels_graph(size, crop_pct=crop_pct))
    assert np.array_equal(seen_by(model, picture), picture)


def test_the_input_is_described_and_can_be_taken_away_again(tmp_path):
    before = pixels_graph((48, 64), interpolation="bicubic", crop_pct=0.9, inside="scaled to 0–1")
    made = photo.with_photo_input(before)
    given = {entry.key: json.loads(entry.value) for entry in made.metadata_props}
    assert given["input"]["kind"] == "photo"
    assert given["input"]["channels"] == "RGB"
    assert given["input"]["batch"] == 1
    assert "EXIF" in given["preprocessing"]["before"]
    assert "alpha" in given["preprocessing"]["before"]
    assert "bicubic" in given["preprocessing"]["inside"]
    assert "48×64" in given["preprocessing"]["inside"]
    dims = [dim.dim_param or dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, "height", "width", 3]
    again = photo.without_photo_input(made)
    assert again.graph.node == before.graph.node
    assert not again.graph.initializer
    images = np.stack([picture_of((48, 64), seed) for seed in range(3)])
    one, other = (opened(model, tmp_path / f"{at}.onnx").run(images)[0] for at, model in enumerate((before, again)))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda path: photo.with_photo_input(pixels_graph((8, 8))), "photo input"),
        (lambda path: onnx.load(linear_bundle(path / "b", "float") / "model.onnx"), "float input"),
        (lambda path: pixels_graph((8, 8), interpolation="lanczos"), "but 'lanczos'"),
    ],
)
def test_other_graphs_are_refused_in_one_line(model, words, tmp_path):
    with pytest.raises(UsageError, match=words) as raised:
        photo.with_photo_input(model(tmp_path))
    assert "\n" not in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize(
    ("told", "passes"), [({}, True), ({"crop_pct": 0.9}, False), ({"interpolation": "bicubic"}, False)]
)
def test_another_resize_than_that_of_training_fails_its_check(told, passes, tmp_path):
    images = np.stack([picture_of((24, 24), seed) for seed in range(12)])
    stored = opened(pixels_graph((24, 24)), tmp_path / "stored.onnx")
    graph = opened(photo.with_photo_input(pixels_graph((24, 24), **told)), tmp_path / "photo.onnx")
    found, arrays = photographs.check(graph, tmp_path / "photo.onnx", stored, images)
    assert found.passed is passes
    if passes:
        assert found.max_levels <= 1
        assert photo_input.compare(graph, arrays)[0]
    else:
        assert not photo_input.compare(graph, arrays)[0] or found.max_levels > photographs.MAX_LEVELS


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    from poolzoo import cli

    path = tmp_path_factory.mktemp("photo") / "bundle"
    assert cli.run(["export", str(trained), "--out", str(path), "--input", "photo", "--no-bench"]) == 0
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photographs of digits at three sizes, without loss."""
    folder = tmp_path_factory.mktemp("files")
    for index, size in enumerate([(8, 8), (21, 17), (40, 61)]):
        Image.fromarray(picture_of(size, index)).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_a_resize_that_fails_its_check_leaves_no_bundle(poolzoo, trained, tmp_path, monkeypatch):
    """No graph of ours fails it, so that its result is given."""
    right = photographs.check

    def fails(*given):
        found, arrays = right(*given)
        return replace(found, passed=False), arrays

    monkeypatch.setattr(photographs, "check", fails)
    outcome = poolzoo("export", trained, "--out", tmp_path / "bundle", "--input", "photo", "--no-bench")
    assert outcome.code == 1
    hint = "hint: no bundle was written; export it with --input uint8, or report it as a bug"
    assert outcome.err.splitlines()[-1] == hint
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_labels_photographs_like_the_one_for_stored_images(poolzoo, bundle, exported, files):
    ours, other = (poolzoo("predict", path, *files, "--json").json for path in (bundle, exported))
    assert [row["label"] for row in ours] == [row["label"] for row in other]
    assert [row["score"] for row in ours] == pytest.approx([row["score"] for row in other], abs=0.02)
    assert ours[0]["score"] == pytest.approx(other[0]["score"], abs=1e-6)  # of the stored size


def test_verify_repeats_the_photographs_and_finds_altered_ones(poolzoo, bundle, tmp_path):
    checks = {one["id"]: one for one in poolzoo("verify", bundle, "--no-bench", "--json").json["checks"]}
    assert all(one["passed"] for one in checks.values())
    assert "golden-photographs" in checks
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in bundle.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    with np.load(copy / "golden.npz") as golden:
        arrays = {name: golden[name] for name in golden.files}
    arrays["photo/3"] = 255 - arrays["photo/3"]
    np.savez(copy / "golden.npz", **arrays)
    manifest.write_manifest(copy, "bundle")
    outcome = poolzoo("verify", copy, "--no-bench", "--json")
    failed = [one["id"] for one in outcome.json["checks"] if not one["passed"]]
    assert outcome.code == 1
    assert failed == ["golden-photographs"]


def test_the_script_of_a_bundle_takes_photographs_too(poolzoo, bundle, files):
    def script(*arguments):
        command = [sys.executable, bundle / "predict.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert sum(line.startswith("ok\tphotograph of") for line in script("--verify")) == 5
    expected = [f"{row['label']}\t{row['score']:.6f}" for row in poolzoo("predict", bundle, *files, "--json").json]
    assert script(*files) == expected


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_saliency_is_that_of_the_resized_photograph(bundle, exported, files, tmp_path, method):
    found = []
    for path in (bundle, exported):
        model = ort_session.open_model(path / "model.onnx", threads=1)
        explainer = Explainer(path, model, 1, {file: tmp_path / f"{file.stem}.png" for file in files})
        if method == "occlusion":
            explainer.head = None
        found.append((explainer, explainer.contributions(np.asarray(Image.open(files[0])), 3)))
    (ours, (values, how)), (_, (expected, same)) = found
    assert how == same == method
    assert values == pytest.approx(expected, abs=1e-4 * float(np.abs(expected).max()))
    picture = ours.draw(files[2], np.asarray(Image.open(files[2])), 3, ort_session.ClassScore("3", 0.5))
    assert Path(picture.path).is_file()
    assert picture.method == method


def test_evaluate_and_bench_take_such_a_bundle(poolzoo, bundle, exported):
    ours, other = (poolzoo("evaluate", path, "--onnx", "--json").json for path in (bundle, exported))
    assert ours["accuracy"] == other["accuracy"]
    outcome = poolzoo("bench", bundle, "--threads", 1, "--json")
    assert outcome.code == 0
    assert all(one["passed"] for one in outcome.json["agreement"])


def test_a_runtime_without_dynamic_slices_gets_whole_products(tmp_path):
    given = photo.with_photo_input(pixels_graph((7, 10)))
    content, changes = forms.adapt(given.SerializeToString(), GraphForm(dynamic_slices=False))
    changed = onnx.load_from_string(content)
    assert changes == ("resize without slices",)
    assert "Slice" not in {node.op_type for node in changed.graph.node}
    picture = picture_of((40, 61))
    np.testing.assert_array_equal(seen_by(changed, picture), seen_by(given, picture))


def test_a_runtime_is_judged_on_photographs(bundle):
    made = cases.make_cases(bundle)
    assert len({one.images.shape for one in made.photographs}) > 2
    model = ort_session.open_model(bundle / "model.onnx", threads=1)
    sizes = set()

    def run(images, *, resize):
        sizes.add(images.shape[1:3])
        if resize and images.shape[1:3] != model.size:  # another filter than the graph's
            nearest = Image.fromarray(images[0]).resize(model.size[::-1], Image.Resampling.NEAREST)
            images = np.asarray(nearest)[None]
        logits, probabilities = model.run(images)
        return Answer(logits=logits, probabilities=probabilities, ms=1.0, changed=False)

    assert gate.judge(partial(run, resize=False), made).failure is None
    assert "photograph" in gate.judge(partial(run, resize=True), made).failure.id
    assert len(sizes) > 2
