"""Where a network looked: closed forms for the poolings that have one, planted images, and whatever may be missing."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image, PngImagePlugin
from support.color_bundle import CLASSES, PLUGIN, SIZE, cells, color_bundle
from support.torch_free import alone

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.explain import overlay
from poolzoo.explain.saliency import Explainer
from poolzoo.parity import layers
from poolzoo.runtime import onnx_file, ort_session

DIGITS = Path(__file__).parents[1] / "data" / "digits_bundle"  # made before bundles named their map
PIXELS = np.random.default_rng(8).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
REDDISH = [[6, -3, -3], [-3, 6, -3], [-3, -3, 6], [0, 0, 0]]  # a class a primary color, and gray


@pytest.fixture(scope="module")
def avg(tmp_path_factory: pytest.TempPathFactory):
    return color_bundle(tmp_path_factory.mktemp("avg") / "bundle", "avg")


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return color_bundle(tmp_path_factory.mktemp("red") / "bundle", "avg", REDDISH)[0]


@pytest.fixture(scope="module")
def sharpest(tmp_path_factory: pytest.TempPathFactory):
    return color_bundle(tmp_path_factory.mktemp("sharpest") / "bundle", "sharpest", input_kind="float")


@pytest.fixture(scope="module")
def plugin(sharpest) -> Path:
    return sharpest[0].parent / "cells.py"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def explainer(path: Path, occluding: bool = False) -> Explainer:
    made = Explainer(path, ort_session.open_model(path / "model.onnx"), None, {})
    if occluding:
        made.head = None
    return made


def classifier(network: torch.nn.Module) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = (value.detach().double().numpy() for value in network.classifier.parameters())
    return weight, bias


def occluded(values: np.ndarray, logit) -> np.ndarray:
    """By how much `logit(map)` falls with each position at the mean of all: a loop over positions, in float64."""
    found = np.zeros(values.shape[1:])
    for y, x in itertools.product(*map(range, found.shape)):
        without = values.astype(np.float64)
        without[:, y, x] = values.mean((1, 2))
        found[y, x] = logit(values) - logit(without)
    return found


# --- Numbers -------------------------------------------------------------------------------------------------------


def test_with_average_pooling_the_gradient_is_cam(avg):
    path, network = avg
    weight, bias = classifier(network)
    made, values = explainer(path), cells(PIXELS)
    for target in range(len(CLASSES)):
        moved, method = made.contributions(PIXELS, target)
        assert method == "gradient"
        expected = np.tensordot(weight[target], values, 1) / values[0].size
        np.testing.assert_allclose(moved, expected, atol=1e-6)
        logit = made.model.run(PIXELS[None])[0][0, target]
        assert moved.sum() + bias[target] == pytest.approx(logit, abs=1e-5)


def test_with_max_pooling_only_the_largest_contribute(tmp_path):
    path, network = color_bundle(tmp_path / "bundle", "max")
    weight, _ = classifier(network)
    values = cells(PIXELS)
    for target in range(len(CLASSES)):
        moved, method = explainer(path).contributions(PIXELS, target)
        expected = np.zeros(values.shape[1:])
        for channel, one in enumerate(values):
            expected[np.unravel_index(one.argmax(), one.shape)] += weight[target, channel] * one.max()
        assert method == "gradient"
        np.testing.assert_allclose(moved, expected, atol=1e-6)
        assert np.count_nonzero(moved) <= 3


def test_gem_has_a_gradient_after_the_exporter_folds_constants(tmp_path):
    path, network = color_bundle(tmp_path / "bundle", "gem:p=2")
    weight, _ = classifier(network)
    moved, method = explainer(path).contributions(PIXELS, 1)
    values = cells(PIXELS)
    pooled = np.sqrt((values**2).mean((1, 2)))  # its derivative by a value a is a / (n · pooled)
    expected = np.tensordot(weight[1] / pooled, values**2, 1) / values[0].size
    assert method == "gradient"
    np.testing.assert_allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_large_matrices_are_found_in_the_graph(tmp_path, monkeypatch, precision):
    """Attention's are there turned round, under a name of the exporter's; the network itself tells the gradient."""
    monkeypatch.setattr("poolzoo.explain.head.MAX_STORED", 3)  # such as a bias
    path, network = color_bundle(tmp_path / "bundle", "attention:heads=1", precision=precision)
    with np.load(path / "golden.npz") as golden:
        assert [name for name in golden.files if name.startswith("head at/") and str(golden[name]).endswith(".T")]
    x = torch.from_numpy(cells(PIXELS)).float()[None].requires_grad_()
    network.head.eval()(x)[0, 1].backward()
    moved, method = explainer(path).contributions(PIXELS, 1)
    assert method == "gradient"
    np.testing.assert_allclose(moved, (x.grad * x).sum(1)[0].detach(), atol=1e-5 if precision == "fp32" else 1e-2)


def test_occlusion_with_average_pooling_is_cam_without_its_mean(avg):
    path, network = avg
    weight, _ = classifier(network)
    made, values = explainer(path, occluding=True), cells(PIXELS)
    for target in range(len(CLASSES)):
        moved, method = made.contributions(PIXELS, target)
        assert method == "occlusion"
        cam = np.tensordot(weight[target], values, 1) / values[0].size
        np.testing.assert_allclose(moved, cam - cam.mean(), atol=1e-5)


@pytest.mark.parametrize("kind", ["uint8", pytest.param("float", marks=pytest.mark.slow)])
def test_a_pooling_that_reads_the_batch_size_is_occluded(tmp_path, kind):
    path, network = color_bundle(tmp_path / "bundle", "map", input_kind=kind)
    made = explainer(path, occluding=True)
    moved, _ = made.contributions(PIXELS, 2)
    assert len(made.tail.get_inputs()) == 2  # the images too, for their number
    head = network.head.double().eval()

    def logit(values: np.ndarray) -> float:
        with torch.no_grad():
            return float(head(torch.from_numpy(values)[None])[0, 2])

    np.testing.assert_allclose(moved, occluded(cells(PIXELS), logit), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "precision", "error"),
    [
        ("float", "fp16", 2e-3),
        ("uint8", "int8", 3e-2),
        pytest.param("uint8", "fp16", 2e-3, marks=pytest.mark.slow),
        pytest.param("float", "int8", 3e-2, marks=pytest.mark.slow),
    ],
)
def test_lower_precisions_and_both_inputs_are_explained(tmp_path, kind, precision, error):
    path, network = color_bundle(tmp_path / "bundle", "avg", input_kind=kind, precision=precision)
    weight, _ = classifier(network)
    values = cells(PIXELS)
    cam = np.tensordot(weight[0], values, 1) / values[0].size
    allowed = error * np.tensordot(np.abs(weight[0]), values, 1).max() / values[0].size
    for occluding in (False, True):
        moved, method = explainer(path, occluding).contributions(PIXELS, 0)
        assert method == "occlusion" or (method == "gradient" and not occluding)  # int8 may be in the classifier too
        np.testing.assert_allclose(moved, cam - cam.mean() * (method == "occlusion"), atol=allowed)
        assert method == "gradient" or occluding or precision == "int8"


def test_more_positions_than_fit_a_batch_are_all_occluded(avg, monkeypatch):
    path, _ = avg
    at_once, _ = explainer(path, occluding=True).contributions(PIXELS, 2)
    monkeypatch.setattr("poolzoo.explain.saliency.ROWS", 5)  # for 12 positions and the map as it is
    moved, _ = explainer(path, occluding=True).contributions(PIXELS, 2)
    np.testing.assert_allclose(moved, at_once, atol=1e-6)


# --- Where it is in the picture ------------------------------------------------------------------------------------


def planted(path: Path, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    image = Image.new("RGB", size, (128, 128, 128))
    image.paste((255, 0, 0), box)
    image.save(path)


# 80 × 30 pixels lose 20 at the left and the right, 40 × 50 lose 10 at the top and the bottom; both are scaled by 0.8.
@pytest.mark.parametrize(
    ("size", "box", "cell"),
    [((32, 24), (0, 16, 8, 24), (2, 0)), ((80, 30), (50, 0, 60, 10), (0, 3)), ((40, 50), (10, 30, 20, 40), (2, 1))],
)
def test_a_planted_square_is_found_where_it_is_seen(poolzoo, red, tmp_path, size, box, cell):
    planted(tmp_path / "planted.png", size, box)
    (row,) = poolzoo("predict", red, tmp_path / "planted.png", "--saliency-dir", tmp_path, "--json").json
    assert (row["label"], row["method"]) == ("red", "gradient")
    model = ort_session.open_model(red / "model.onnx")
    from poolzoo.data import images

    moved, _ = explainer(red).contributions(images.read(tmp_path / "planted.png", SIZE, model.fit), 0)
    assert np.unravel_index(moved.argmax(), moved.shape) == cell
    picture = np.asarray(Image.open(row["saliency"]).convert("RGB")).astype(int)
    width = picture.shape[1] // 2 - 60  # the figures at the scale are not asked
    seen = (picture[..., 0] > 200) & (picture[..., 1:].max(2) < 60)  # the square in the left panel
    rows, columns = np.nonzero(seen[:, :width])
    orange = picture[..., 0] - picture[..., 2]
    panel = overlay.GAP + 12 * SIZE[1]  # 32 pixels are shown as 384, and the panels stand a gap apart
    ys, xs = np.nonzero(orange[:, panel : 2 * panel] == orange[:, panel : 2 * panel].max())
    assert rows.min() <= ys.mean() <= rows.max()
    assert columns.min() <= xs.mean() <= columns.max()


def test_for_and_against_differ_in_gray_too():
    gray = np.full((40, 40), 120, np.uint8)
    plain, pro, contra = (
        np.asarray(overlay.colored(gray, np.full((40, 40), share, np.float32)).convert("L")) for share in (0, 1, -1)
    )
    assert len(np.unique(plain)) == len(np.unique(pro)) == 1
    assert len(np.unique(contra)) == 2  # hatched


@pytest.mark.parametrize(
    ("shape", "label"),
    [
        ((8, 8), "7"),
        ((8, 8), "tench, Tinca tinca " * 20),
        ((24, 32), "two\nlines"),
        ((24, 32), "猫"),
        ((300, 40), "tench, Tinca tinca " * 20),
        ((300, 40), ""),
        ((500, 700), "7"),
    ],
)
def test_any_image_and_label_can_be_drawn(label, shape):
    pixels = np.zeros((*shape, 3), np.uint8)
    for moved in (np.zeros((2, 3)), np.array([[np.nan, 1.0]]), -np.ones((4, 4))):
        picture = Image.open(io.BytesIO(overlay.draw_overlay(pixels, moved, label, 0.5, "gradient")))
        picture.load()
        assert picture.width > 2 * max(shape[1], overlay.MIN_SIDE * shape[1] // max(shape))


# --- What is missing -----------------------------------------------------------------------------------------------


def test_without_torch_it_occludes(avg, photo, tmp_path):
    path, _ = avg
    outcome = alone("predict", path, photo, "--saliency-dir", tmp_path / "out", "--json")
    assert outcome.returncode == 0, outcome.stderr
    (row,) = json.loads(outcome.stdout)
    assert (row["method"], row["saliency"]) == ("occlusion", str(tmp_path / "out" / "photo-saliency.png"))
    assert outcome.stderr == "torch is not installed: the saliency is computed by occlusion\n"
    target = CLASSES.index(row["label"])
    moved, _ = explainer(path).contributions(PIXELS, target)  # by gradient: the same but for its mean
    expected = overlay.draw_overlay(PIXELS, moved - moved.mean(), row["label"], row["score"], "occlusion")
    found, wanted = (np.asarray(Image.open(file)).astype(int) for file in (Path(row["saliency"]), io.BytesIO(expected)))
    assert (np.abs(found - wanted) > 2).mean() < 1e-3


def test_predict_without_explain_loads_nothing_of_it(avg, photo):
    code = (
        "import sys\nfrom poolzoo.cli import run\n"
        f"assert run(['predict', {str(avg[0])!r}, {str(photo)!r}]) == 0\n"
        "assert not {'torch', 'poolzoo.explain.saliency'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_plugins_pooling_has_a_gradient_where_the_plugin_is(poolzoo, sharpest, plugin, photo, tmp_path):
    path, network = sharpest
    arguments = ("predict", path, photo, "--saliency-dir", tmp_path / "out", "--json")
    assert poolzoo(*arguments, "--plugin", plugin).json[0]["method"] == "gradient"
    without = poolzoo(*arguments)
    assert (without.code, without.json[0]["method"]) == (0, "occlusion")
    assert "no global pooling is called 'sharpest'" in without.err
    weight, bias = classifier(network)
    scale = np.array([1, 1.5, 2])[:, None, None]

    def logit(values: np.ndarray) -> float:
        return float(weight[2] @ np.log(np.exp(values * scale).sum((1, 2))) + bias[2])

    moved, method = explainer(path).contributions(PIXELS, 2)
    assert method == "occlusion"
    np.testing.assert_allclose(moved, occluded(cells(PIXELS), logit), atol=1e-5)


def checksummed(path: Path, proto: onnx.ModelProto) -> Path:
    onnx.save(proto, path / "model.onnx")
    manifest.write_manifest(path, "bundle")
    return path


@pytest.fixture
def copied(avg, tmp_path) -> Path:
    return Path(shutil.copytree(avg[0], tmp_path / "copy"))


def test_a_weight_under_another_name_is_missed_and_said_so(poolzoo, copied, photo, tmp_path):
    proto = onnx.load(copied / "model.onnx")
    for part in (*proto.graph.initializer, *proto.graph.node):
        if isinstance(part, onnx.TensorProto):
            part.name = part.name.replace("network.classifier.weight", "other")
        else:
            part.input[:] = [name.replace("network.classifier.weight", "other") for name in part.input]
    outcome = poolzoo("predict", checksummed(copied, proto), photo, "--saliency-dir", tmp_path, "--json")
    assert (outcome.code, outcome.json[0]["method"]) == (0, "occlusion")
    assert "network.classifier.weight" in outcome.err


def test_a_head_that_gives_other_logits_is_not_believed(poolzoo, copied, photo, tmp_path):
    """The graph's weights are scaled behind the classifier, which its names do not tell."""
    proto = onnx.load(copied / "model.onnx")
    (gemm,) = (node for node in proto.graph.node if "logits" in node.output)
    gemm.output[:] = ["smaller"]
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1.01), "factor"))
    at = list(proto.graph.node).index(gemm) + 1
    proto.graph.node.insert(at, helper.make_node("Mul", ["smaller", "factor"], ["logits"]))
    outcome = poolzoo("predict", checksummed(copied, proto), photo, "--saliency-dir", tmp_path, "--json")
    assert (outcome.code, outcome.json[0]["method"]) == (0, "occlusion")
    assert "other logits than the graph" in outcome.err


# --- Bundles that do not name their map ----------------------------------------------------------------------------


def test_a_bundle_that_does_not_name_its_map_is_explained(poolzoo, tmp_path):
    from poolzoo.datasets import digits

    pixels = digits.load("test")[0][0]
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    (row,) = poolzoo("predict", DIGITS, tmp_path / "digit.png", "--saliency-dir", tmp_path, "--json").json
    assert row["saliency"] == str(tmp_path / "digit-saliency.png")
    made = explainer(DIGITS)
    moved, _ = made.contributions(pixels, int(row["label"]))
    proto = onnx.load(DIGITS / "model.onnx")
    whole = onnxruntime.InferenceSession(layers.with_outputs(proto, [made.feature_map]).SerializeToString())
    (values,) = whole.run([made.feature_map], {"images": pixels[None]})
    assert values.shape == (1, 64, 4, 4)
    assert values.min() >= 0  # behind its last ReLU
    part = layers.subgraph(proto, made.feature_map, "logits", values.shape[1:])
    session = onnxruntime.InferenceSession(part.SerializeToString())

    def logit(one: np.ndarray) -> float:
        return float(session.run(None, {made.feature_map: one[None].astype(np.float32)})[0][0, int(row["label"])])

    np.testing.assert_allclose(moved, occluded(values[0], logit), atol=1e-4)


def test_an_older_bundle_of_average_pooling_is_explained_by_gradient(avg, copied):
    config = json.loads((copied / "config.json").read_text())
    assert config["export"].pop("map")
    files.write_json(copied / "config.json", config)
    manifest.write_manifest(copied, "bundle")
    found, method = explainer(copied).contributions(PIXELS, 0)
    assert method == "gradient"
    np.testing.assert_array_equal(found, explainer(avg[0]).contributions(PIXELS, 0)[0])


def test_a_published_network_that_averages_its_map_is_explained(poolzoo, tmp_path):
    (tmp_path / "cells.py").write_text(PLUGIN)
    arguments = ("--pretrained", "--no-bench", "--plugin", tmp_path / "cells.py", "-q")
    assert poolzoo("export", "cells", *arguments, "--out", tmp_path / "b").code == 0
    pixels = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    moved, method = explainer(tmp_path / "b").contributions(pixels, 3)
    torch.manual_seed(5)
    torch.nn.Conv2d(3, 3, 8, 8)  # which draws before the classifier
    weight = torch.nn.Linear(3, 4).weight[3].detach().double().numpy()
    cam = np.tensordot(weight, cells(pixels), 1) / 16
    assert method == "occlusion"
    np.testing.assert_allclose(moved, cam - cam.mean(), atol=1e-5)


def test_a_network_without_a_pooled_map_is_refused(poolzoo, photo, tmp_path):
    (tmp_path / "cells.py").write_text(PLUGIN)
    arguments = ("--pretrained", "--no-bench", "--plugin", tmp_path / "cells.py", "-q")
    assert poolzoo("export", "flat-cells", *arguments, "--out", tmp_path / "b").code == 0
    outcome = poolzoo("predict", tmp_path / "b", photo, "--saliency-dir", tmp_path / "out")
    assert (outcome.code, outcome.out) == (2, "")
    assert [line.split(": ")[0] for line in outcome.err.splitlines()] == ["error", "hint"]
    assert "no feature map" in outcome.err
    assert not (tmp_path / "out").exists()


# --- Files ---------------------------------------------------------------------------------------------------------


def test_pictures_go_to_the_current_directory_and_are_drawn_anew(poolzoo, avg, photo, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first = poolzoo("predict", avg[0], photo, "--saliency", "--json")
    assert first.json[0]["saliency"] == "photo-saliency.png"
    before = (tmp_path / "here" / "photo-saliency.png").read_bytes()
    Image.fromarray(PIXELS[::-1].copy()).save(photo)
    again = poolzoo("predict", avg[0], photo, "--saliency", "--json")
    assert (again.code, again.json[0]["saliency"]) == (0, "photo-saliency.png")
    assert [file.name for file in Path().iterdir()] == ["photo-saliency.png"]
    assert (tmp_path / "here" / "photo-saliency.png").read_bytes() != before


def test_a_picture_of_an_earlier_version_may_be_replaced(poolzoo, avg, photo, tmp_path):
    earlier = PngImagePlugin.PngInfo()
    earlier.add_text("Software", "poolzoo predict --explain")
    Image.fromarray(PIXELS).save(tmp_path / "photo-saliency.png", pnginfo=earlier)
    assert poolzoo("predict", avg[0], photo, "--saliency-dir", tmp_path).code == 0
    with Image.open(tmp_path / "photo-saliency.png") as picture:
        assert picture.info["Software"] == "poolzoo predict --saliency"


def test_images_of_one_name_do_not_share_a_picture(poolzoo, avg, photo, tmp_path):
    for name in ("cat/1.png", "dog/1.png", "dog/1.PNG", "1-saliency-2.png", "1.bmp"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(tmp_path / "in" / name)
    rows = poolzoo("predict", avg[0], tmp_path / "in", photo, photo, "--saliency-dir", tmp_path / "out", "--json").json
    names = [row["saliency"] for row in rows]
    assert len(rows) == 7
    assert len({name.lower() for name in names}) == 6  # the same photograph twice has the same picture
    assert sorted(names[:-1]) == sorted(str(file) for file in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("content", [b"mine", "picture", "link", "folder"])
def test_a_file_of_somebody_else_is_never_replaced(poolzoo, avg, photo, tmp_path, content):
    place = tmp_path / "photo-saliency.png"
    if content == "picture":
        Image.fromarray(PIXELS).save(place)
    elif content == "link":
        place.symlink_to(tmp_path / "nowhere")
    elif content == "folder":
        place.mkdir()
    else:
        place.write_bytes(content)
    before = place.read_bytes() if place.is_file() else None
    outcome = poolzoo("predict", avg[0], photo, "--saliency-dir", tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert "exists already" in outcome.err
    assert "--saliency-dir" in outcome.err
    assert before == (place.read_bytes() if place.is_file() else None)


def test_an_image_that_is_given_is_never_replaced(poolzoo, avg, photo, tmp_path):
    assert poolzoo("predict", avg[0], photo, "--saliency-dir", tmp_path).code == 0
    before = (tmp_path / "photo-saliency.png").read_bytes()
    outcome = poolzoo("predict", avg[0], photo, tmp_path / "." / "photo-saliency.png", "--saliency-dir", tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert "is one of the images" in outcome.err
    assert (tmp_path / "photo-saliency.png").read_bytes() == before


def test_a_place_that_is_no_directory_is_refused(poolzoo, avg, photo):
    assert poolzoo("predict", avg[0], photo, "--saliency-dir", photo).code == 2


def test_an_unreadable_image_is_a_row_and_has_no_picture(poolzoo, avg, photo, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    arguments = ("predict", avg[0], tmp_path / "broken.png", photo, "--saliency-dir", tmp_path / "out")
    outcome = poolzoo(*arguments, "--csv")
    header, broken, good = csv.reader(io.StringIO(outcome.out))
    assert outcome.code == 1
    assert header == ["file", "label", "score", "saliency", "method", "error"]
    assert broken[1:5] == [""] * 4
    assert broken[5]
    assert good[3:] == [str(tmp_path / "out" / "photo-saliency.png"), "gradient", ""]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photo-saliency.png"]
    table = [line.split("\t") for line in poolzoo(*arguments).out.splitlines()]
    assert table[0] == ["image", "label", "score", "then", "saliency", "method"]
    assert table[2][4:] == good[3:5]
    assert len(table[1]) == len(table[2])
    assert "method" not in poolzoo(*arguments, "--json").json[0]


def test_nothing_is_left_half_written(poolzoo, avg, photo, tmp_path, monkeypatch):
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_atomically", full)
    outcome = poolzoo("predict", avg[0], photo, "--saliency-dir", tmp_path / "out")
    assert outcome.code == 4
    assert "No space left on device" in outcome.err
    assert not list((tmp_path / "out").iterdir())


# --- Files of graphs, against the onnx package ---------------------------------------------------------------------


def test_a_graph_is_read_as_onnx_reads_it(exported):
    for path in (exported, DIGITS):
        proto, graph = onnx.load(path / "model.onnx"), onnx_file.read(path / "model.onnx")
        assert [(one.op_type, *one.output) for one in proto.graph.node] == [(n.type, *n.outputs) for n in graph.nodes]
        assert [[name for name in one.input if name] for one in proto.graph.node] == [
            list(n.inputs) for n in graph.nodes
        ]
        assert set(graph.weights) == {one.name for one in proto.graph.initializer}
        for one in proto.graph.initializer:
            expected = numpy_helper.to_array(one)
            if expected.dtype in (np.float32, np.float16, np.int64):
                np.testing.assert_array_equal(graph.weight(one.name), expected)
        onnx.checker.check_model(onnx.load_from_string(graph.with_outputs([])), full_check=True)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64])
@pytest.mark.parametrize("raw", [True, False])
def test_weights_are_read_in_every_form(kind, raw):
    array = np.array([[-3, 0, 7], [300, -70_000 if kind == np.int64 else 2.5, 1]], kind)
    number = helper.np_dtype_to_tensor_dtype(array.dtype)
    content = array.tobytes() if raw else array.ravel()
    tensor = helper.make_tensor("w", number, array.shape, content, raw=raw)
    graph = onnx_file.Graph(helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString())
    found = graph.weight("w")
    if kind == np.float16 and not raw:  # which nobody writes; they are told as missing
        assert found is None
    else:
        np.testing.assert_array_equal(found, array)
    assert graph.weight("v") is None


def test_bottlenecks_are_where_every_way_leads_through(exported):
    """Against a search of all ways from the images to the logits that avoid a value."""
    graph = onnx_file.read(exported / "model.onnx")

    def avoidable(value: str) -> bool:
        reached = {"images"} - {value}
        for node in graph.nodes:
            if reached & set(node.inputs) and node.type != "Shape":
                reached |= set(node.outputs) - {value}
        return "logits" in reached

    every = [name for node in graph.nodes for name in node.outputs]
    assert graph.bottlenecks("logits") == [name for name in every if not avoidable(name) and name != "probabilities"]


@pytest.mark.parametrize("content", [b"", b"text", b"\x3a\xff\xff", bytes(range(256)) * 4])
def test_what_is_no_graph_is_refused(content):
    with pytest.raises((ValueError, IndexError)):
        onnx_file.Graph(content)
