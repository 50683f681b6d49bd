"""onnxruntime-web in node, and the page for browsers in Chromium: golden outputs, pixels, offline."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import linear_bundle
from support.color_bundle import CLASSES, cells, color_bundle

from poolzoo.common.errors import CheckFailed, EnvironmentProblem
from poolzoo.data.images import Fit, fit, read
from poolzoo.runtime import npm
from poolzoo.runtime.builtin import chromium, page, web

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "exports" / "digits"
HOSTILE = [
    "</script><script>document.title='ran'</script>",
    "<img src=x onerror=\"document.title='ran'\">",
    "&amp;",
    "ok",
]

needs_package = pytest.mark.skipif(npm.look_up("onnxruntime-web") is None, reason="onnxruntime-web is not installed")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
needs_chromium = pytest.mark.skipif(
    not any(map(shutil.which, chromium.PROGRAMS)), reason="no Chromium is on PATH, which runs the page"
)


def differences(session: object, bundle: Path) -> Iterator[float]:
    """How far a session is from a bundle's golden outputs, over what is allowed, at batches of several sizes."""
    assert callable(session)
    with np.load(bundle / "golden.npz") as golden:
        images, allowed = golden["images"], golden["allowed"]
        expected = golden["logits"], golden["probabilities"]
    for size in (1, 2, 7, len(images), 1):
        found = session(images[:size])
        for got, want in zip(found, expected, strict=True):
            assert got.shape == (size, want.shape[1])
            yield float((np.abs(got - want[:size]).max(1) / allowed[:size]).max())


@needs_node
@needs_package
def test_node_gives_the_golden_outputs_at_every_batch() -> None:
    session = web.open_session(DIGITS, threads=1, device="cpu", precision="fp32")
    try:
        assert max(differences(session, DIGITS)) <= 1
    finally:
        session.close()


@needs_node
@needs_package
def test_node_reports_bad_input_and_runs_on(tmp_path: Path) -> None:
    bundle = linear_bundle.linear_bundle(tmp_path / "bundle", "float")
    session = web.open_session(bundle, threads=1, device="cpu", precision="fp32")
    try:
        with pytest.raises(CheckFailed, match="onnxruntime-web"):
            session(np.zeros((1, 5, 5, 3), np.uint8))
        assert max(differences(session, bundle)) <= 1
    finally:
        session.close()


@needs_node
@needs_package
def test_node_refuses_a_damaged_graph(tmp_path: Path) -> None:
    bundle = linear_bundle.linear_bundle(tmp_path / "bundle", "uint8")
    content = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(content.replace(b"Flatten", b"Flutter"))
    with pytest.raises(CheckFailed, match="Flutter"):
        web.open_session(bundle, threads=1, device="cpu", precision="fp32")


@needs_node
def test_absent_npm_package_is_named_with_its_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NODE_PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="no-such-package") as caught:
        npm.find_package("no-such-package")
    assert "npm install" in caught.value.hint


@needs_node
def test_page_resizes_as_pillow_does(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    sizes = [
        (50, 83, 32, 32),
        (300, 41, 16, 24),
        (333, 121, 82, 91),
        (31, 200, 64, 64),
        (9, 7, 20, 30),
        (64, 64, 64, 64),
    ]
    cases = []
    for number, (height, width, *wanted) in enumerate(sizes * 2):
        how = Fit(("bilinear", "bicubic")[number // len(sizes)], (1.0, 0.875)[number % 2])
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = np.asarray(fit(Image.fromarray(pixels), (wanted[0], wanted[1]), how))
        cases.append((pixels, wanted, how, expected))
    script = Path(page.__file__).with_name("pixels.mjs")
    (tmp_path / "run.mjs").write_text(
        f'import {{ fit }} from "{script.as_uri()}"; import {{ readFileSync }} from "node:fs";'
        "const cases = JSON.parse(readFileSync(0));"
        "console.log(JSON.stringify(cases.map(([image, how]) => "
        '[...fit({ ...image, data: new Uint8Array(Buffer.from(image.data, "base64")) }, how).data])));'
    )
    given = [
        (
            {"data": base64.b64encode(pixels).decode(), "height": pixels.shape[0], "width": pixels.shape[1]},
            {"height": wanted[0], "width": wanted[1], "interpolation": how.interpolation, "crop_pct": how.crop_pct},
        )
        for pixels, wanted, how, _ in cases
    ]
    run = subprocess.run(
        ["node", tmp_path / "run.mjs"], input=json.dumps(given).encode(), capture_output=True, check=True
    )
    for found, (*_, expected) in zip(json.loads(run.stdout), cases, strict=True):
        np.testing.assert_array_equal(np.array(found, np.uint8).reshape(expected.shape), expected)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[page.PageSession]:
    """The page of `exports/digits` in Chromium."""
    if npm.look_up("onnxruntime-web") is None or not any(map(shutil.which, chromium.PROGRAMS)):
        pytest.skip("Chromium and onnxruntime-web are needed")
    out = tmp_path_factory.mktemp("page")
    page.convert(DIGITS, out)
    assert [path.name for path in out.iterdir()] == ["index.html"]
    session = page.open_session(out, threads=1, device="cpu", precision="fp32")
    yield session
    session.close()


def test_page_gives_the_golden_outputs_at_every_batch(opened: page.PageSession) -> None:
    assert max(differences(opened, DIGITS)) <= 1


def test_page_reads_photos_as_training_does(opened: page.PageSession) -> None:
    generator = np.random.default_rng(1)
    turned = Image.Exif()
    turned[0x0112] = 6
    contents = []
    for mode, kind, options in (("RGB", "jpeg", {"exif": turned}), ("RGBA", "png", {}), ("L", "png", {})):
        shape = (11, 15) if mode == "L" else (11, 15, len(mode))
        content = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(content, kind, **options)
        contents.append(content)
    for content in contents:
        sent = base64.b64encode(content.getvalue()).decode()
        found = np.frombuffer(base64.b64decode(opened.page.evaluate(f"poolzoo.pixels('{sent}')")), np.uint8)
        expected = read(content, (8, 8)).reshape(-1)
        assert np.abs(found.astype(int) - expected).max() <= 1  # a browser blends alpha in integers of its own


def test_chosen_photo_shows_labels_and_sends_nothing(opened: page.PageSession, tmp_path: Path) -> None:
    with np.load(DIGITS / "golden.npz") as golden:
        image, best = golden["images"][-1], int(golden["logits"][-1].argmax())
    Image.fromarray(image).save(tmp_path / "digit.png")
    opened.page.evaluate(
        "shown = new Promise((done) => new MutationObserver((_, own) => { "
        "const text = document.getElementById('occluded').textContent; if (text) { own.disconnect(); done(text); } })"
        ".observe(document.getElementById('occluded'), { childList: true })), 0"
    )
    opened.page.set_file("#file", tmp_path / "digit.png")
    assert opened.page.evaluate("shown").endswith(" ms")
    first = opened.page.evaluate("document.querySelector('#labels li').innerText")
    label = json.loads((DIGITS / "config.json").read_text())["label_names"][best]
    assert first.split()[0] == label
    assert opened.page.evaluate("document.getElementById('status').textContent").startswith(f"{label}, ")
    assert opened.page.requests == []


def test_page_policy_blocks_every_request(opened: page.PageSession) -> None:
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        attempts = (
            f"fetch('{address}/fetch').then(() => 1, () => 0)",
            f"new Promise((done) => {{ const image = new Image(); image.onload = () => done(1); "
            f"image.onerror = () => done(0); image.src = '{address}/image'; }})",
            f"navigator.sendBeacon('{address}/beacon') && 0",
            f"import('{address}/script.js').then(() => 1, () => 0)",
        )
        assert [opened.page.evaluate(attempt) for attempt in attempts[:2]] == [0, 0]
        for attempt in attempts[2:]:
            opened.page.evaluate(attempt)
    finally:
        server.shutdown()
        server.server_close()
    assert seen == []


@needs_package
@needs_chromium
def test_page_shows_hostile_class_names_as_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(linear_bundle, "LABELS", HOSTILE)
    bundle = linear_bundle.linear_bundle(tmp_path / "bundle", "uint8")
    (tmp_path / "out").mkdir()
    page.convert(bundle, tmp_path / "out")
    session = page.open_session(tmp_path / "out", threads=1, device="cpu", precision="fp32")
    try:
        assert max(differences(session, bundle)) <= 1
        Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
        session.page.evaluate(
            "shown = new Promise((done) => new MutationObserver(() => "
            "document.getElementById('result').hidden || done())"
            ".observe(document.getElementById('result'), { attributes: true })), 0"
        )
        session.page.set_file("#file", tmp_path / "red.png")
        session.page.evaluate("shown")
        names = session.page.evaluate("[...document.querySelectorAll('#labels span')].map((name) => name.textContent)")
        assert sorted(names) == sorted(HOSTILE)
        assert session.page.evaluate("document.title") == "network"
        assert session.page.evaluate("document.querySelectorAll('main img').length") == 0
    finally:
        session.close()


@needs_package
@needs_chromium
def test_page_saliency_is_the_fall_of_the_logit(tmp_path: Path) -> None:
    weights = np.random.default_rng(4).normal(size=(len(CLASSES), 3)).astype(np.float32)
    bundle, _ = color_bundle(tmp_path / "bundle", "avg", weights.tolist())
    (tmp_path / "out").mkdir()
    page.convert(bundle, tmp_path / "out")
    pixels = np.random.default_rng(5).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    session = page.open_session(tmp_path / "out", threads=1, device="cpu", precision="fp32")
    try:
        found = session.page.evaluate(f"poolzoo.saliency('{base64.b64encode(pixels).decode()}', 2)")
    finally:
        session.close()
    colors = cells(pixels)  # behind average pooling, a location adds w · (its value - the mean) / locations
    expected = np.einsum("c,chw->hw", weights[2], colors - colors.mean((1, 2), keepdims=True)) / colors[0].size
    assert (found["rows"], found["columns"]) == expected.shape
    np.testing.assert_allclose(np.reshape(found["values"], expected.shape), expected, atol=1e-5)
