"""A bundle's card and page: their figures, what runs from them, hostile names, and how a browser shows them."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from sklearn.metrics import f1_score, precision_score
from support.html_page import Page

from poolzoo.artifacts.run import load_run
from poolzoo.export import card
from poolzoo.export.source import ExportSource, from_run
from poolzoo.report import confusion

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a|b & $c$ _d_", "\udcff\u202e\x1b[31m"]


@pytest.fixture(scope="module")
def source(trained: Path) -> ExportSource:
    return from_run(load_run(trained))


def renamed(source: ExportSource, names: list[str], **changes) -> ExportSource:
    """The source with other class names, and labels from them."""
    config = {**source.config, "label_names": names}
    labels = np.arange(len(source.images)) % len(names)
    return dataclasses.replace(source, **{"config": config, "image_labels": labels, **changes})


def guesses(labels: np.ndarray, classes: int) -> np.ndarray:
    """Logits from a fixed seed, of which about half favor the label: `float32[N, classes]`."""
    random = np.random.default_rng(7)
    return (random.normal(size=(len(labels), classes)) + 2 * np.eye(classes)[labels]).astype(np.float32)


def report(**changes) -> dict:
    """The least that an export can say."""
    agreement = {"passed": True, "max_abs": 1.5e-6, "tolerance": 2e-5, "top1_agreement": 1.0, "n": 360}
    agreement |= {"images": "test", "batches": [1, 2, 7, 64]}
    least = {"bundle": "b", "opset": 18, "precision": "fp32", "input": "uint8", "provider": "CPUExecutionProvider"}
    return {**least, "parity": agreement, "speed": {}, **changes}


def full_report() -> dict:
    """All that an export can say, with numbers that occur only once."""
    found = report()
    found["parity"] |= {
        "gate": "limits",
        "limits": {"agreement": 0.987, "accuracy_drop": 0.0123},
        "cosine": 1 - 3.25e-7,
        "relative": 4.5e-7,
        "noise_floor": 1.1e-6,
        "reference": "float64",
        "optimization": "all",
        "flips": [{"input": "test image 17", "margin": 0.00321}],
        "max_abs_by_batch": {"1": 1.21e-6, "64": 1.5e-6},
        "max_abs_by_edge": {"black": 0.0, "white": None},
        "worst": {"input": "test image 3", "max_abs": 1.5e-6, "allowed": 1.9e-5},
        "accuracy": {"torch": 0.9321, "onnxruntime": 0.9311},
        "probes": [
            {"part": "core", "probe": "huge", "max_abs": 7.7e-6, "allowed": 8.8e-6, "passed": True, "note": ""},
            {"part": "core", "probe": "tiny", "max_abs": 1e-9, "allowed": 1e-6, "passed": True, "note": ""},
            {
                "part": "pooling",
                "probe": "nan",
                "max_abs": None,
                "allowed": 1e-5,
                "passed": False,
                "note": "NaN <lost>",
            },
        ],
    }
    arms = [
        {"runtime": "torch eager", "threads": 2, "median_ms": 5.55, "min_ms": 5.11, "p90_ms": 6.66, "p99_ms": 7.77},
        {"runtime": "torch.compile", "threads": 2, "median_ms": 4.44, "min_ms": 4.11, "p90_ms": 4.88, "p99_ms": 4.99},
        {"runtime": "ONNX Runtime", "threads": 2, "median_ms": 2.22, "min_ms": 2.11, "p90_ms": 2.33, "p99_ms": 2.44},
    ]
    arms[2]["speedup"] = {"median": 2.512, "p10": 2.431, "p90": 2.604}
    plain = {"torch_ms": 61.25, "ort_ms": 30.5, "speedup": 2.01, "rounds": 33}
    found["speed"] = {"1": {**plain, "threads": 2, "measurements": arms}, "32": plain}
    found["candidates"] = [
        {"precision": "fp32", "chosen": False, "passed": True, "agreement": 1.0, "accuracy": 0.93, "bytes": 1_234_567,
         "accuracy_drop": 0.0, "ort_ms": {"1": 2.2, "32": 30.5}, "speedup": {"1": 1.0, "32": 1.0}, "lost": "is slower"},
        {"precision": "int8-static", "chosen": True, "passed": True, "agreement": 0.9912, "accuracy": None,
         "bytes": 345, "accuracy_drop": None, "ort_ms": {"1": 1.1}, "speedup": {"1": 2.05}, "lost": None},
    ]  # fmt: skip
    found["files"] = {"model.onnx": 345_678, "parity.json": 900}
    fast = {"batch": 1, "median_ms": 1.37, "speedup": {"median": 1.62, "p10": 1.5, "p90": 1.7}}
    known = {"version": "2026.4", "max_abs": 2.34e-6, "allowed": 1.8e-5, "startup_ms": 432.0, "bytes": 777_000}
    odd = {"version": "5.0", "max_abs": None, "allowed": None, "startup_ms": None, "bytes": None}
    found["runtimes"] = [
        {**known, "runtime": "openvino", "status": "agrees", "detail": "", "changes": ["batch 1"], "speed": [fast]},
        {**odd, "runtime": "opencv", "status": "refused", "detail": "no <layer>", "changes": [], "speed": []},
        {**odd, "runtime": "tract", "status": "not installed", "detail": "pip", "changes": [], "speed": []},
    ]
    found["targets"] = {"mnn": {"version": "3.6", "changes": ["converted"], "bytes": 888_000, "checked": True}}
    return {**found, "runtime": "openvino"}


MEASURED = {"environment": {"processor": "A <chip>", "threads": 2, "spinning": False}}


def written(
    tmp_path: Path, source: ExportSource, found: dict, logits: np.ndarray, measured=MEASURED
) -> tuple[str, Page]:
    card.write(tmp_path, source, found, measured, logits)
    return (tmp_path / "README.md").read_text(), Page((tmp_path / "report.html").read_text())


def front_matter(readme: str) -> dict:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(readme.split("---\n")[1])


def test_figures_are_those_of_the_graphs_logits(source, tmp_path):
    labels = source.image_labels
    logits = guesses(labels, 10)
    readme, page = written(tmp_path, source, report(), logits)
    taken = logits.argmax(1)
    right = sum(int(a == b) for a, b in zip(taken, labels, strict=True))
    assert f"{100 * right / len(labels):.2f} %" in readme
    assert f"{100 * right / len(labels):.2f} %" in page.words
    precision = precision_score(labels, taken, average=None)
    table = page.tables["Precision, recall and F1 of each class"]
    assert [row[1] for row in table[1:-1]] == [f"{value:.3f}" for value in precision]
    for name in range(10):
        assert f"| {name} | {precision[name]:.3f} |" in readme
    matrix = page.tables["Confusion matrix"]
    for truth in range(10):
        for guess in range(10):
            count = int(((labels == truth) & (taken == guess)).sum())
            assert matrix[1 + truth][1 + guess] == (str(count) if count else "")
    results = front_matter(readme)["model-index"][0]["results"][0]
    assert results["dataset"]["name"] == "digits"
    assert [metric["type"] for metric in results["metrics"]] == ["accuracy", "f1"]
    values = [metric["value"] for metric in results["metrics"]]
    assert values == pytest.approx([right / len(labels), f1_score(labels, taken, average="macro")])


def test_everything_that_was_measured_is_told(source, tmp_path):
    found = full_report()
    measured = {**MEASURED, "preprocessing": {"median_ms": 0.0456, "p90_ms": 0.0567, "what": "decoding a photograph"}}
    readme, page = written(tmp_path, source, found, guesses(source.image_labels, 10), measured)
    everywhere = (
        *("1.50e-06", "4.50e-07", "1 − 3.25e-07", "test image 17", "3.21e-03", "98.70 %", "1.23 points", "93.11 %"),
        *("93.21 %", "2 of 3 probes", "torch.compile", "7.77", "2.51× (2.43–2.60)", "61.25", "2.01×", "345.7 kB"),
        *("432", "777.0 kB", "1.37 (1.62×)", "2.34e-06", "runs it in openvino", "888.0 kB"),
        "poolzoo verify BUNDLE --runtime all",
        *("1.23 MB", "is slower", "selected", "1.10 (2.05×)", "99.12 %", "decoding a photograph: 0.046 ms"),
    )
    for text in everywhere:
        assert text in page.words
        assert text in readme.replace("\\", "")
    rows = {row[0]: row for table in page.tables.values() for row in table}
    assert rows["core: huge"][1:3] == ["7.70e-06", "8.80e-06"]
    assert rows["edge case: black"][1] == "0"
    assert rows["edge case: white"][1] == "not finite"
    assert rows["pooling: nan\nfailed; NaN <lost>"][1] == "not finite"
    assert rows["processor"][1] == "A <chip>"
    assert rows["opencv"][2] == "refused: no <layer>"
    assert "tract" not in rows


def test_a_float_graph_of_lower_precision_is_described_as_such(source, tmp_path):
    found = {**full_report(), "precision": "int8", "input": "float"}
    readme, page = written(tmp_path, source, found, guesses(source.image_labels, 10))
    assert "float32 `[N, 3, 8, 8]` in RGB, 0–1" in readme
    assert "is allowed" not in readme  # the gate is another one
    assert "transpose(2, 0, 1)" in page.words


def test_names_cannot_become_markup(source, tmp_path):
    nasty = renamed(source, HOSTILE, title="<b>& 'title': #1", hint="")
    found = full_report()
    found["candidates"][0]["lost"] = HOSTILE[0]
    readme, page = written(tmp_path, nasty, found, guesses(nasty.image_labels, 4))
    tags = {tag for tag, _ in page.elements}
    assert "script" not in tags
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for key in ("src", "href"):
            if key in attributes:
                assert attributes[key].startswith("data:"), (tag, attributes)
        if tag == "img":
            assert attributes["alt"]
    for name in HOSTILE[:3]:
        assert name in page.words
    for line in readme.split("---\n", 2)[2].splitlines():
        if not line.startswith(("import", "from", "session", "photo", "logits", "print")):
            assert "<" not in line
    cells = [line for line in readme.splitlines() if "& $c" in line.replace("\\", "").replace("&amp;", "&")]
    assert any(line.startswith("| a\\|b &amp; \\$c\\$ \\_d\\_ |") for line in cells)
    assert front_matter(readme)["model-index"][0]["name"] == "<b>& 'title': #1"


@pytest.mark.parametrize(
    "text",
    [
        "a: b",
        pytest.param("#x", marks=pytest.mark.slow),
        pytest.param("- x", marks=pytest.mark.slow),
        "null",
        pytest.param("1.0", marks=pytest.mark.slow),
        "'q' \"r\"",
        pytest.param("a\\nb\\", marks=pytest.mark.slow),
        pytest.param("{x", marks=pytest.mark.slow),
        pytest.param("@at", marks=pytest.mark.slow),
        "été 数字 🐈",
        "\x7f\x85\u2028\ufeffx",
        "",
    ],
)
def test_any_title_and_license_survives_the_front_matter(source, tmp_path, text):
    config = {**source.config, "pretrained_cfg": {**source.config["pretrained_cfg"], "license": f"{text}?"}}
    config["poolzoo"] = {**config["poolzoo"], "data": f"folder:/somewhere/{text}?"}
    odd = dataclasses.replace(source, title=text, config=config)
    readme, _ = written(tmp_path, odd, report(), guesses(source.image_labels, 10))
    head = front_matter(readme)
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    assert head["model-index"][0]["name"] == shown
    assert (head["license"], head["license_name"]) == ("other", f"{shown}?")
    assert head["model-index"][0]["results"][0]["dataset"]["name"] == f"{shown}?"


def test_the_license_is_one_that_the_hub_knows(source, tmp_path):
    config = {**source.config, "pretrained_cfg": {**source.config["pretrained_cfg"], "license": "Apache-2.0"}}
    known = dataclasses.replace(source, config=config)
    readme, _ = written(tmp_path, known, report(), guesses(source.image_labels, 10))
    head = front_matter(readme)
    assert head["license"] == "apache-2.0"
    assert "license_name" not in head
    assert (head["library_name"], head["pipeline_tag"]) == ("onnx", "image-classification")


def test_without_labels_nothing_is_said_of_accuracy(source, tmp_path):
    found = report()
    found["parity"]["images"] = "synthetic"
    plain = dataclasses.replace(source, image_labels=None)
    readme, page = written(tmp_path, plain, found, guesses(source.image_labels, 10))
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "report.html"}
    assert "not measured" in readme
    assert "model-index" not in front_matter(readme)
    assert not [tag for tag, _ in page.elements if tag == "img"]


def test_many_classes_are_summed_up(source, tmp_path):
    many = renamed(source, [f"class {index}" for index in range(60)])
    logits = guesses(many.image_labels, 60)
    readme, page = written(tmp_path, many, report(), logits)
    assert not (tmp_path / "confusion.png").exists()
    assert "class 19; … (60 in all" in readme
    f1 = f1_score(many.image_labels, logits.argmax(1), average=None, labels=np.arange(60))
    shown = page.tables["The 20 of 60 classes with the lowest F1"][1:-1]
    assert [row[3] for row in shown] == [f"{value:.3f}" for value in np.sort(f1)[:20]]
    pairs = page.tables["Most often confused"][1:]
    confused = np.zeros((60, 60), int)
    np.add.at(confused, (many.image_labels, logits.argmax(1)), 1)
    np.fill_diagonal(confused, 0)
    assert [int(row[2]) for row in pairs] == sorted(confused.ravel().tolist())[::-1][:10]


def test_examples_are_confident_mistakes_and_right_answers_of_every_class(source):
    labels = source.image_labels
    logits = guesses(labels, 10)
    shown = card.examples(source, logits)
    temperature = source.config["calibration"]["temperature"]
    chances = (torch.from_numpy(logits).double() / temperature).softmax(1).numpy()
    mistakes = sorted((-chances[i].max(), i) for i in range(len(labels)) if chances[i].argmax() != labels[i])
    assert [one.number for one in shown[:12]] == [i for _, i in mistakes[:12]]
    assert [one.probability for one in shown[:12]] == pytest.approx([-p for p, _ in mistakes[:12]])
    assert len(shown) == 24
    assert {one.label for one in shown[12:]} == {str(digit) for digit in range(10)}
    for one in shown:
        assert (one.image == source.images[one.number]).all()
        assert one.label == str(labels[one.number])
        assert one.prediction == str(logits[one.number].argmax())
    perfect = 9 * np.eye(10, dtype=np.float32)[labels]
    assert all(one.label == one.prediction for one in card.examples(source, perfect))
    assert len(card.examples(source, perfect)) == 24


def test_large_images_leave_the_page_small(source, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 224, 320, 3), dtype=np.uint8)
    large = renamed(source, ["a", "b"], images=noise, image_labels=np.arange(30) % 2)
    card.write(tmp_path, large, full_report(), MEASURED, guesses(large.image_labels, 2))
    assert (tmp_path / "report.html").stat().st_size < 1_500_000


def test_the_same_export_gives_the_same_bytes(source, tmp_path):
    logits = guesses(source.image_labels, 10)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        card.write(tmp_path / name, source, full_report(), MEASURED, logits)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("classes", [1, 2, 10, 50])
def test_the_confusion_matrix_is_darkest_where_the_counts_are(tmp_path, classes):
    """The picture cut into as many cells as classes, between the first and the last column that are not white."""
    names = [f"$class_{index}^" for index in range(classes)]
    taken = (3 * np.arange(classes) + 1) % classes  # a permutation, for 3 divides none of these numbers
    confusion.draw((90 * np.eye(classes, dtype=int)[taken]).tolist(), names, tmp_path / "c.png")
    pixels = np.asarray(Image.open(tmp_path / "c.png").convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 60).nonzero()
    top, bottom, left, right = blue[0].min(), blue[0].max() + 1, blue[1].min(), blue[1].max() + 1
    rows = (top + (bottom - top) * (np.arange(classes) + 0.15) / classes).astype(int)
    columns = (left + (right - left) * (np.arange(classes) + 0.15) / classes).astype(int)
    darkest = pixels[np.ix_(rows, columns)].sum(2).argmin(1)
    assert darkest.tolist() == taken.tolist()


# --- The Python of the card ----------------------------------------------------------------------------------------


def run_python(readme: str, folder: Path, image: Image.Image) -> str:
    image.save(folder / "photo.jpg", "PNG")  # without loss; Pillow looks at the content, not at the name
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    finished = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_the_python_of_the_card_predicts_what_the_network_predicts(source, exported, tmp_path):
    shutil.copy(exported / "model.onnx", tmp_path)
    metadata = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    found = report(input=json.loads(metadata["input"])["kind"])
    readme, _ = written(tmp_path, source, found, guesses(source.image_labels, 10))
    for index in (0, 1):
        with torch.inference_mode():
            expected = int(source.model(torch.from_numpy(source.images[index : index + 1]))[0].argmax())
        assert run_python(readme, tmp_path, Image.fromarray(source.images[index])) == str(expected)


def mean_color(path: Path, kind: str) -> None:
    """A graph that names the strongest color of 8 × 8 pixels on average, or "dark" where none reaches a half."""
    scale, axes = 1.0, (2, 3)
    given, shape = TensorProto.FLOAT, ["N", 3, 8, 8]
    if kind == "uint8":
        given, shape, scale, axes = TensorProto.UINT8, ["N", 8, 8, 3], 255.0, (1, 2)
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "scale"], ["colors"]),
        helper.make_node("Pad", ["colors", "pads", "half"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    constants = {"axes": np.array(axes), "scale": np.float32(scale), "pads": np.array([0, 0, 0, 1])}
    stored = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in {**constants, "half": np.float32(0.5)}.items()]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in ("logits", "probabilities")]
    inputs = [helper.make_tensor_value_info("images", given, shape)]
    proto = helper.make_model(
        helper.make_graph(nodes, "color", inputs, outputs, stored), opset_imports=[helper.make_opsetid("", 18)]
    )
    proto.ir_version = 10
    helper.set_model_props(proto, {"labels": json.dumps(["red", "green", "blue", "dark"])})
    onnx.save(proto, path)


@pytest.mark.parametrize(
    ("kind", "crop_pct", "expected"),
    [
        ("uint8", 0.5, "red"),
        ("float", 1.0, "blue"),
        pytest.param("uint8", 1.0, "blue", marks=pytest.mark.slow),
        pytest.param("float", 0.5, "red", marks=pytest.mark.slow),
    ],
)
def test_the_python_of_the_card_scales_and_crops(source, tmp_path, kind, crop_pct, expected):
    """Blue around red around green: of the middle 40 pixels most are blue, of 20 red; of 30 none, and of 15 green."""
    mean_color(tmp_path / "model.onnx", kind)
    config = {**source.config, "label_names": ["red", "green", "blue", "dark"]}
    config["pretrained_cfg"] = {**config["pretrained_cfg"], "crop_pct": crop_pct, "interpolation": "bicubic"}
    made = dataclasses.replace(source, config=config, size=(8, 8), image_labels=source.image_labels % 4)
    readme, _ = written(tmp_path, made, report(input=kind), guesses(made.image_labels, 4))
    assert "BICUBIC" in readme
    photo = np.full((40, 80, 3), (0, 0, 250), np.uint8)
    photo[10:30, 30:50] = (250, 0, 0)
    photo[14:26, 34:46] = (0, 250, 0)
    assert run_python(readme, tmp_path, Image.fromarray(photo)) == expected
    assert run_python(readme, tmp_path, Image.fromarray(photo // 4)) == "dark"
    small = np.full((8, 8, 3), (0, 0, 250), np.uint8)
    small[1:7, 1:7] = (0, 250, 0)  # of the size that it takes: nothing is cropped; 36 of 64 pixels are green
    small[2:6, 2:6] = (250, 0, 0)  # 16 red, 20 green, 28 blue, so that none reaches a half
    assert run_python(readme, tmp_path, Image.fromarray(small)) == "dark"


# --- In a browser --------------------------------------------------------------------------------------------------


# Colors of text against what is behind it, as WCAG 2 defines contrast, for everything that holds text of its own.
CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
                      return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    let back = e;
    while (back.parentElement && rgba(getComputedStyle(back).backgroundColor)[3] < 255) back = back.parentElement;
    const style = getComputedStyle(e), ink = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(rgba(ink)), light(rgba(getComputedStyle(back).backgroundColor))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_a_complaint(browser, source, tmp_path, width, scheme):
    names = ["airplane", "<script>document.title='taken over'</script>", "x" * 300, *"3456789"]
    named = renamed(source, names, image_labels=source.image_labels)
    card.write(tmp_path, named, full_report(), MEASURED, guesses(source.image_labels, 10))
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert complaints == []
    assert [url[:30] for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.title() == source.title
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    digits = "[...document.querySelectorAll('img:not(.diagram)')].map(i => i.naturalWidth)"
    assert page.evaluate(digits) == [8] * 24
    assert page.evaluate("document.querySelectorAll('img.diagram').length") == 1
    assert page.evaluate("document.documentElement.scrollWidth") == width  # only tables and code scroll sideways
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert min(contrasts)[0] >= 4.5, min(contrasts)
    page.close()
