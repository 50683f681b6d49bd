"""A bundle's `report.html`: one page that holds everything, asks nobody for anything and runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poolzoo.metrics.results import Metrics, untested_classes, untested_note
from poolzoo.report import bundle_words as words
from poolzoo.report.bundle_pieces import LogScale, bar_cell, bars, picture, shaded
from poolzoo.report.pieces import Safe, document, element, facts, joined, section, table

if TYPE_CHECKING:
    import numpy as np

STYLE: Final = Path(__file__).with_name("bundle_page.css")
# Even a class name that got past the escaping could neither run nor fetch anything.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MOST_CELLS: Final = 50  # classes whose confusion matrix and table of classes can be read
WORST: Final = 20  # classes that are shown where there are more
MOST_PAIRS: Final = 10  # of classes that are taken for one another


@dataclass(frozen=True)
class Example:
    """An image, `uint8[H, W, 3]`, its number, its label, what it was taken for, and how surely, 0–1."""

    image: np.ndarray
    number: int
    label: str
    prediction: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the page tells.

    Attributes:
        title: What the network is.
        license: That of its weights.
        report: What the export found: precision, parity, speed, candidates and files.
        measured: The content of `speed.json`.
        figures: Metrics on the test images; None where there are no labels.
        examples: Mistakes, then right answers.
        provenance: What the network is made of, by name.
        python: How to run it.
    """

    title: str
    license: str
    report: dict[str, Any]
    measured: dict[str, Any]
    figures: Metrics | None
    examples: Sequence[Example]
    provenance: dict[str, Any]
    python: str


def html(contents: Contents) -> str:
    """The whole page."""
    parts = (
        _classes(contents.figures),
        _confusion(contents.figures),
        _parity(contents.report["parity"]),
        _speed(contents),
        _precisions(contents.report.get("candidates", [])),
        _examples(contents.examples),
        _run(contents),
        _provenance(contents),
    )
    body = [element("header", element("p", "poolzoo bundle", class_="kind"), element("h1", contents.title))]
    body += [element("main", _headline(contents), *parts)]
    return document(contents.title, POLICY, STYLE, body)


def _headline(contents: Contents) -> Safe:
    report, figures = contents.report, contents.figures
    agreement = report["parity"]
    tiles = []
    if figures:
        low, high = (words.percent(share, 1) for share in figures.interval)
        tiles.append(("accuracy", words.percent(figures.accuracy), f"{low} to {high}, {figures.n} test images"))
    same = f"of {agreement['n']} {agreement['images']} images, first choice as in torch"
    tiles.append(("agreement", words.percent(agreement["top1_agreement"]), same))
    for batch, row in report["speed"].items():
        what = f"{words.milliseconds(row['ort_ms'])} ms instead of {words.milliseconds(row['torch_ms'])} in torch eager"
        tiles.append((f"speed-up, batch {batch}", f"{row['speedup']:.2f}×", what))
    size = report.get("files", {}).get("model.onnx")
    if size is not None:
        needs = f", ONNX Runtime from {report['onnxruntime']}" if "onnxruntime" in report else ""
        tiles.append(("size", words.size(size), f"model.onnx, opset {report['opset']}{needs}"))
    tiles.append(("precision", report["precision"], f"{report['input']} images go in"))
    shown = [
        element("div", element("dt", name), element("dd", element("b", big), element("span", small)))
        for name, big, small in tiles
    ]
    return element("dl", *shown, class_="tiles")


def _classes(figures: Metrics | None) -> Safe:
    if not figures:
        return Safe("")
    rows, caption = list(figures.per_class), "Precision, recall and F1 of each class"
    if len(rows) > MOST_CELLS:
        rows = sorted((row for row in rows if row.n), key=lambda row: row.f1 or 0.0)[:WORST]
        caption = f"The {len(rows)} of {len(figures.per_class)} classes with the lowest F1"
    cells = [[row.name, bar_cell(row.precision), bar_cell(row.recall), bar_cell(row.f1), row.n] for row in rows]
    means = ["macro mean", bar_cell(figures.precision), bar_cell(figures.recall), bar_cell(figures.f1), figures.n]
    headers = ("class", "precision", "recall", "F1", "images")
    note = untested_note(untested_classes(figures.per_class))
    told = (element("p", note, class_="note"),) if note else ()
    return section("classes", "Classes", *told, table(caption, headers, cells, "classes", foot=means))


def _confusion(figures: Metrics | None) -> Safe:
    if not figures:
        return Safe("")
    matrix, names = figures.confusion, [row.name for row in figures.per_class]
    often = _pairs(matrix, names)
    if len(names) > MOST_CELLS:
        return section("confusion", "Confusion", often)
    rows = []
    for truth, row in enumerate(matrix):
        whole = max(sum(row), 1)
        rows.append([names[truth], *(shaded(n, n / whole, truth == taken) for taken, n in enumerate(row))])
    headers = ["truth ↓ prediction →", *(element("span", name) for name in names)]
    told = "A row is a true class, a column a prediction; the stronger, the larger a share of its row."
    drawn = (table("Confusion matrix", headers, rows, "heat"), often)
    return section("confusion", "Confusion", element("p", told, class_="note"), element("div", *drawn, class_="beside"))


def _pairs(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Safe:
    """The classes that are most often taken for another one."""
    cells = [(-n, truth, taken) for truth, row in enumerate(matrix) for taken, n in enumerate(row) if truth != taken]
    rows = [(names[truth], names[taken], -n) for n, truth, taken in sorted(cells)[:MOST_PAIRS] if n]
    if not rows:
        return element("p", "No image was taken for another class.")
    return table("Most often taken for another class", ("truth", "taken for", "images"), rows, "pairs")


def _parity(agreement: dict[str, Any]) -> Safe:
    # What the inputs are, the largest difference, what is allowed for them and for all images, and a remark.
    rows: list[tuple[str, float | None, float | None, float | None, str]] = []
    # Of an older bundle `tolerance` is that.
    images = agreement.get("allowed_on_images", agreement["tolerance"])
    common = images if agreement.get("gate", "noise") == "noise" else None
    if worst := agreement.get("worst"):
        rows.append((f"nearest to its limit: {worst['input']}", worst["max_abs"], worst["allowed"], None, ""))
    for size, measured in agreement.get("max_abs_by_batch", {}).items():
        pair = agreement.get("worst_by_batch", {}).get(size, {"max_abs": measured, "allowed": None})
        name = f"batch of {size}, {pair['input']}" if "input" in pair else f"batch of {size}"
        rows.append((name, pair["max_abs"], pair["allowed"], common, ""))
    for name, measured in agreement.get("max_abs_by_edge", {}).items():
        allowed = agreement.get("allowed_by_edge", {}).get(name)
        rows.append((f"edge: {name}", measured, allowed, common, ""))
    for probe in agreement.get("probes", []):
        note = "; ".join(filter(None, ["" if probe["passed"] else "failed", probe.get("note")]))
        rows.append((f"{probe['part']}: {probe['probe']}", probe["max_abs"], probe.get("allowed"), None, note))
    scale = LogScale(value for row in rows for value in row[1:4])
    cells = [
        (
            joined([name, element("small", note)]) if note else name,
            words.small(measured),
            words.small(allowed) if allowed is not None else "",
            scale.strip(measured, allowed, line),
        )
        for name, measured, allowed, line, note in rows
    ]
    marks = "dot: measured; mark: allowed" + ("; dashed: allowed on the images" if common else "")
    caption = f"Largest difference between graph and network, on a logarithmic scale ({marks})"
    drawn = table(caption, ("inputs", "measured", "allowed", scale.axis()), cells, "parity") if rows else ""
    verdict = element("p", "Passed" if agreement["passed"] else "Failed", class_="verdict")
    return section("parity", "Parity", verdict, *(element("p", said) for said in words.parity(agreement)), drawn)


def _speed(contents: Contents) -> Safe:
    arms, drawn = words.arms(contents.report["speed"]), []
    for batch in dict.fromkeys(arm["batch"] for arm in arms):
        of_batch = [arm for arm in arms if arm["batch"] == batch]
        told = [f"{arm['runtime']} {words.milliseconds(arm['median_ms'])} ms" for arm in of_batch]
        label = f"Milliseconds for a batch of {batch}: {'; '.join(told)}"
        title = element("figcaption", f"Batch of {batch}, milliseconds")
        drawn.append(element("figure", title, bars(of_batch, label)))
    if not arms:
        return Safe("")
    note = f"Bar: median; whisker: fastest to 90th percentile. {words.SPEED_NOTE}"
    rows = words.speed_rows(contents.report["speed"])
    numbers = table("Everything that was timed", words.SPEED_HEADERS, rows, "timed")
    before = contents.measured.get("preprocessing")
    return section(
        "speed", "Speed", element("div", *drawn, class_="charts"), element("p", note, class_="note"),
        element("p", words.preprocessing(before)) if before else "",
        element("details", element("summary", "All figures"), numbers),
    )  # fmt: skip


def _precisions(candidates: list[dict[str, Any]]) -> Safe:
    tried = table("What was tried", words.CANDIDATE_HEADERS, words.candidate_rows(candidates), "tried")
    return section("precision", "Precision", tried) if candidates else Safe("")


def _examples(examples: Sequence[Example]) -> Safe:
    shown = []
    for one in examples:
        right = one.label == one.prediction
        alt = f"Test image {one.number}: {one.label}, taken for {one.prediction}"
        sure = element("span", words.percent(one.probability, 1), class_="sure")
        mistake = "" if right else element("span", f"✗ {one.prediction}")
        drawn = picture(one.image, alt), element("b", one.label), mistake, sure
        shown.append(element("li", *drawn, class_="right" if right else "wrong"))
    told = "The surest mistakes first, then right answers. Bold: the label; ✗: what it was taken for."
    note, grid = element("p", told, class_="note"), element("ul", *shown, class_="examples")
    return section("examples", "Examples", note, grid) if shown else Safe("")


def _run(contents: Contents) -> Safe:
    snippet = element("pre", element("code", Safe(escape(contents.python))), tabindex=0)
    commands = Safe("python predict.py photo.jpg\npython predict.py --verify")
    return section(
        "run", "How to run it",
        element("p", "With numpy, onnxruntime and Pillow, on a photograph:"), snippet,
        element("p", "Or with the script in the bundle, on images, and to check the bundle where it is:"),
        element("pre", element("code", commands), tabindex=0),
    )  # fmt: skip


def _provenance(contents: Contents) -> Safe:
    made = {**contents.provenance, "license": contents.license}
    around = contents.measured["environment"]
    return section("provenance", "Provenance", facts("Made of", made), facts("Measured on", around))
