"""A web page that holds a bundle's graph and the runtime: a photo becomes labels, offline, in any browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolzoo.common import files
from poolzoo.common.json_writer import dumps
from poolzoo.common.text import one_line
from poolzoo.report.pieces import Safe, document, element
from poolzoo.runtime import npm, onnx_file, ort_session
from poolzoo.runtime.builtin import chromium

PACKAGE: Final = "onnxruntime-web"
RUNTIME: Final = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")  # of the package's dist folder
HERE: Final = Path(__file__).parent
STYLE: Final = HERE / "page.css"
TOP: Final = 5  # labels that are shown
# Nothing may be fetched or sent, whatever a class name holds: only this very script runs, and what it makes of the
# runtime's code, which the page holds.
POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{}' 'wasm-unsafe-eval' blob:; "
    "form-action 'none'; base-uri 'none'"
)


@dataclass(frozen=True)
class Saliency:
    """What occlusion of the feature map needs: its name, the graph that also gives it, and the part behind it."""

    feature_map: str
    graph: bytes
    tail: bytes


def convert(bundle: Path, out: Path) -> None:
    """Writes `index.html`, a page that needs no other file and no network.

    Args:
        bundle: The directory of a bundle.
        out: An empty directory.

    Raises:
        EnvironmentProblem: The npm package onnxruntime-web is not installed.
        CheckFailed: The graph cannot be read.
        OSError: The page cannot be written.
    """
    package = npm.find_package(PACKAGE)
    path = bundle / "model.onnx"
    model = ort_session.open_model(path, threads=1)
    graph = onnx_file.read_bundled(path)
    config = files.read_json(bundle / "config.json") if (bundle / "config.json").is_file() else {}
    saliency = _saliency(graph, config, model)
    code, wasm = ((package / "dist" / name).read_bytes() for name in RUNTIME)
    blocks = {"runtime": code, "wasm": wasm, "model": saliency.graph if saliency else path.read_bytes()}
    if saliency:
        blocks["tail"] = saliency.tail
    page = _page(config, model, saliency, npm.package_version(package), blocks)
    files.write_atomically(out / "index.html", page.encode())


def _saliency(graph: onnx_file.Graph, config: dict[str, Any], model: ort_session.OnnxModel) -> Saliency | None:
    """None where the bundle names no feature map: a network with a pooling of its own, or an older bundle."""
    name = config.get("export", {}).get("map")
    if name is None or name not in graph.bottlenecks("logits"):
        return None
    content = graph.with_outputs([name])
    session = ort_session.open_session(content, model.provider, threads=1)
    blank = model.to_input(np.zeros((1, *model.size, 3), np.uint8))
    (values,) = session.run([name], {"images": blank})
    if values.ndim != 4 or values.dtype != np.float32 or max(values.shape[2:]) == 1:
        return None
    return Saliency(name, content, graph.subgraph(name, "logits", values))


def _page(
    config: dict[str, Any],
    model: ort_session.OnnxModel,
    saliency: Saliency | None,
    version: str,
    blocks: dict[str, bytes],
) -> str:
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in ("pixels.mjs", "page.js"))
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    height, width = model.size
    facts = {
        "labels": [one_line(label) for label in model.labels],
        "size": [height, width],
        "fit": {"interpolation": model.fit.interpolation, "crop_pct": model.fit.crop_pct},
        "batch": 1 if model.takes_photos else None,  # it takes one image at a time
        "map": saliency.feature_map if saliency else None,
        "top": TOP,
        "thresholds": list(model.decision.thresholds) if model.decision.thresholds is not None else None,
    }
    title = _title(config)
    body = [
        element("header", element("p", "poolzoo", class_="kind"), element("h1", title)),
        element("main", _form(), _result(with_saliency=saliency is not None)),
        element("footer", *_notes(model, version, with_saliency=saliency is not None)),
        _data("facts", "application/json", dumps(facts).replace("<", "\\u003c")),
        *(_data(name, "application/gzip", _packed(content)) for name, content in blocks.items()),
        Safe(f'<script type="module">{script}</script>'),
    ]
    return document(title, POLICY.format(checksum), STYLE, body)


def _form() -> Safe:
    choice = Safe('<input type="file" id="file" accept="image/*">')
    return Safe(
        element("label", element("b", "Drop a photo here, or choose one"), choice, class_="drop")
        + element("p", "Opening the network …", id="status", role="status", aria_live="polite")
        + element("noscript", element("p", "This page needs JavaScript: the network runs in it."))
    )


def _result(*, with_saliency: bool) -> Safe:
    pictures = [_figure("seen", "The photo as the network sees it", "What the network sees")]
    times = [("reading and resizing", "read"), ("network", "ran")]
    if with_saliency:
        pictures.append(_figure("saliency", "Saliency", "", caption_id="explained"))
        times.append(("saliency", "occluded"))
    terms = [element("dt", name) + element("dd", "", id=identity) for name, identity in times]
    right = element("div", element("ol", id="labels", aria_label="Most probable classes"), _times(terms))
    left = element("div", *pictures, class_="pictures")
    return Safe(f'<section id="result" aria-label="Result" hidden>{left}{right}</section>')


def _times(terms: list[str]) -> Safe:
    return element("dl", *map(Safe, terms), class_="times")


def _figure(identity: str, label: str, caption: str, *, caption_id: str = "") -> Safe:
    canvas = element("canvas", id=identity, role="img", aria_label=label)
    return element("figure", canvas, element("figcaption", caption, id=caption_id or f"{identity}-caption"))


def _notes(model: ort_session.OnnxModel, version: str, *, with_saliency: bool) -> list[Safe]:
    height, width = model.size
    kept = f"{model.fit.crop_pct:.3%}".rstrip("0%").rstrip(".")
    notes = [
        "The photo stays on this device. The page works offline, and its policy lets it send and fetch nothing.",
        f"The network sees {height} × {width} pixels: the photo turned upright, transparent areas white, the shorter "
        f"side resized ({model.fit.interpolation}), the center cropped ({kept}%), with the same levels as in training. "
        "A large JPEG may differ by a level or so: training decodes it at a part of its size.",
        f"Runs in ONNX Runtime Web {version}, © Microsoft Corporation, MIT License.",
    ]
    if model.decision.task.is_multilabel:
        notes.insert(2, "An image may have several labels: those that reach their thresholds are marked ✓.")
    if with_saliency:
        notes.insert(2, "Saliency is how far the logit of a class falls without each location of the feature map.")
    return [element("p", note, class_="note") for note in notes]


def _title(config: dict[str, Any]) -> str:
    network = config.get("poolzoo", {})
    backbone = str(network.get("backbone", "network"))
    pool = network.get("pool")
    return f"{backbone} with {pool}" if pool else backbone


def _data(identity: str, kind: str, content: str) -> Safe:
    """A block of data, which a browser does not run."""
    return Safe(f'<script type="{escape(kind)}" id="{escape(identity)}">{content}</script>')


def _packed(content: bytes) -> str:
    return _text(gzip.compress(content, 9, mtime=0))


class PageSession:
    """The page in headless Chromium.

    Args:
        file: The page.

    Raises:
        EnvironmentProblem: Chromium is not installed.
        CheckFailed: The page cannot open the graph.
    """

    def __init__(self, file: Path) -> None:
        self.page = chromium.Page(file)
        try:
            self.page.evaluate("poolzoo.ready")
        except BaseException:
            self.page.close()
            raise

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs a batch.

        Args:
            images: `uint8[N, h, w, 3]`.

        Returns:
            Logits and probabilities, `float32[N, K]` each.

        Raises:
            CheckFailed: The page reports an error, or Chromium ended.
        """
        height, width = images.shape[1:3]
        parts = self.page.evaluate(f"poolzoo.run('{_text(images.tobytes())}', {height}, {width})")
        logits, probabilities = (
            np.frombuffer(b"".join(base64.b64decode(part[name]) for part in parts), "<f4").reshape(len(images), -1)
            for name in ("logits", "probabilities")
        )
        return logits, probabilities

    def close(self) -> None:
        """Ends Chromium."""
        self.page.close()


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> PageSession:
    """Opens the page that `convert` wrote.

    Args:
        bundle: The directory.
        threads: One: a page from a file cannot have more.
        device: "cpu".
        precision: Any: WebAssembly computes the graph as it is.

    Raises:
        EnvironmentProblem: Chromium is not installed.
        CheckFailed: The page cannot open the graph.
    """
    return PageSession(bundle / "index.html")


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
