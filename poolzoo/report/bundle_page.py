"""A bundle's `report.html`: a self-contained page without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from poolzoo.artifacts.schema import CandidateRow, Export, Parity, Speed
from poolzoo.metrics import evaluation, multilabel, reliability
from poolzoo.metrics.multilabel_results import MultilabelMetrics
from poolzoo.metrics.reliability import ReliabilityChange
from poolzoo.metrics.results import AnyMetrics, Metrics, untested_classes, untested_note
from poolzoo.metrics.rules_report import RulesReport
from poolzoo.report import bundle_words as words
from poolzoo.report import runtime_table
from poolzoo.report.bundle_pieces import LogScale, bar_cell, bars, embedded, picture, shaded
from poolzoo.report.pieces import Safe, document, element, joined, properties, section, table

if TYPE_CHECKING:
    import numpy as np

STYLE: Final = Path(__file__).with_name("bundle_page.css")
# Even a class name that got past the escaping could neither run nor fetch anything.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MAX_CELLS: Final = 50  # classes whose confusion matrix and table of classes are readable
WORST: Final = 20  # classes that are shown where there are more
MAX_PAIRS: Final = 10  # of classes that are confused


@dataclass(frozen=True)
class Example:
    """A test image, `uint8[H, W, 3]`, its index, its label, its prediction, and the probability of that, 0–1."""

    image: np.ndarray
    number: int
    label: str
    prediction: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The content of the page.

    Attributes:
        title: A description of the network.
        license: That of its weights.
        report: The report of the export.
        measured: The content of `speed.json`.
        figures: The metrics of the test images; None where there are no labels.
        reliability: How far probabilities can be believed on them; None where there are no labels.
        diagram: The reliability diagram, a PNG; None likewise.
        curve: The risk–coverage curve, an SVG; None where an image has several labels, or there are none.
        examples: Wrong predictions, then right ones.
        provenance: The parts of the network, by name.
        python: Code that runs it.
    """

    title: str
    license: str
    report: Export
    measured: Speed
    figures: AnyMetrics | None
    reliability: ReliabilityChange | None
    diagram: bytes | None
    curve: str | None = None
    examples: Sequence[Example]
    provenance: Mapping[str, object]
    python: str


def html(contents: Contents) -> str:
    """The whole page."""
    parts = (
        _classes(contents.figures),
        _confusion(contents.figures),
        _calibration(contents),
        _abstention(contents),
        _parity(contents.report["parity"]),
        _speed(contents),
        _precisions(contents.report.get("candidates", [])),
        _runtimes(contents.report),
        _examples(contents.examples, several=isinstance(contents.figures, MultilabelMetrics)),
        _run(contents),
        _provenance(contents),
    )
    body = [element("header", element("p", "poolzoo bundle", class_="kind"), element("h1", contents.title))]
    body += [element("main", _headline(contents), *parts)]
    return document(contents.title, POLICY, STYLE, body)


def _headline(contents: Contents) -> Safe:
    report, figures = contents.report, contents.figures
    agreement = report["parity"]
    tiles: list[tuple[str, str, str]] = []
    if figures:
        low, high = (words.percent(share, 1) for share in figures.interval)
        name = "mAP" if isinstance(figures, MultilabelMetrics) else "accuracy"
        big = words.percent(evaluation.main_score(figures))
        tiles.append((name, big, f"{low} to {high}, {figures.n} test images"))
    same = f"of {agreement['n']} {agreement['images']} images have the prediction of torch"
    if isinstance(figures, MultilabelMetrics):
        low, high = (words.percent(share, 1) for share in figures.micro_f1_interval)
        tiles.append(("micro F1", words.percent(figures.micro_f1), f"{low} to {high}, at the thresholds"))
        same = f"of the labels of {agreement['n']} {agreement['images']} images are those of torch (Jaccard index)"
    tiles.append(("agreement", words.percent(agreement["top1_agreement"]), same))
    for batch, row in report["speed"].items():
        pair = f"{words.milliseconds(row['ort_ms'])} ms instead of {words.milliseconds(row['torch_ms'])} in torch eager"
        tiles.append((f"speed-up, batch {batch}", words.times(row["speedup"]), pair))
    size = report.get("files", {}).get("model.onnx")
    if size is not None:
        needs = f", ONNX Runtime from {report['onnxruntime']}" if "onnxruntime" in report else ""
        tiles.append(("size", words.size(size), f"model.onnx, opset {report['opset']}{needs}"))
    tiles.append(("precision", report["precision"], f"input: {report['input']} images"))
    shown = [
        element("div", element("dt", name), element("dd", element("b", big), element("span", small)))
        for name, big, small in tiles
    ]
    return element("dl", *shown, class_="tiles")


def _classes(figures: AnyMetrics | None) -> Safe:
    if not figures:
        return Safe("")
    if isinstance(figures, MultilabelMetrics):
        return _labels(figures)
    rows, caption = list(figures.per_class), "Precision, recall and F1 of each class"
    if len(rows) > MAX_CELLS:
        rows = sorted((row for row in rows if row.n), key=lambda row: row.f1 or 0.0)[:WORST]
        caption = f"The {len(rows)} of {len(figures.per_class)} classes with the lowest F1"
    cells = [[row.name, bar_cell(row.precision), bar_cell(row.recall), bar_cell(row.f1), row.n] for row in rows]
    means = ["macro mean", bar_cell(figures.precision), bar_cell(figures.recall), bar_cell(figures.f1), figures.n]
    headers = ("class", "precision", "recall", "F1", "images")
    sentence = untested_note(untested_classes(figures.per_class))
    note = element("p", sentence, class_="note") if sentence else ""
    return section("classes", "Classes", note, table(caption, headers, cells, "classes", foot=means))


def _labels(figures: MultilabelMetrics) -> Safe:
    rows, caption = list(figures.per_class), "Threshold, average precision, precision, recall and F1 of each label"
    if len(rows) > MAX_CELLS:
        rows = sorted((row for row in rows if row.n), key=lambda row: row.ap or 0.0)[:WORST]
        caption = f"The {len(rows)} of {len(figures.per_class)} labels with the lowest average precision"
    cells = [
        [row.name, f"{row.threshold:.3f}", *map(bar_cell, (row.ap, row.precision, row.recall, row.f1)), row.n]
        for row in rows
    ]
    means = [bar_cell(mean) for mean in (figures.map, figures.precision, figures.recall, figures.f1)]
    headers = ("label", "threshold", "AP", "precision", "recall", "F1", "images")
    notes = [element("p", said, class_="note") for said in multilabel.sentences(figures)]
    foot = ["macro mean", "", *means, figures.n]
    return section("classes", "Labels", *notes, table(caption, headers, cells, "classes", foot=foot))


def _confusion(figures: AnyMetrics | None) -> Safe:
    if not isinstance(figures, Metrics):
        return Safe("")
    matrix, names = figures.confusion, [row.name for row in figures.per_class]
    confused = _pairs(matrix, names)
    if len(names) > MAX_CELLS:
        return section("confusion", "Confusion", confused)
    rows = []
    for truth, row in enumerate(matrix):
        whole = max(sum(row), 1)
        rows.append([names[truth], *(shaded(n, n / whole, truth == other) for other, n in enumerate(row))])
    headers = ["truth ↓ prediction →", *(element("span", name) for name in names)]
    note = "A row is a true class, a column a prediction. The stronger the shade, the larger the share of the row."
    drawn = (table("Confusion matrix", headers, rows, "heat"), confused)
    return section("confusion", "Confusion", element("p", note, class_="note"), element("div", *drawn, class_="beside"))


def _pairs(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Safe:
    """The classes that are most often confused."""
    cells = [(-n, truth, other) for truth, row in enumerate(matrix) for other, n in enumerate(row) if truth != other]
    rows = [(names[truth], names[other], -n) for n, truth, other in sorted(cells)[:MAX_PAIRS] if n]
    if not rows:
        return element("p", "No image has a wrong prediction.")
    return table("Most often confused", ("truth", "prediction", "images"), rows, "pairs")


def _calibration(contents: Contents) -> Safe:
    found = contents.reliability
    if found is None or contents.diagram is None:
        return Safe("")
    drawn = embedded(contents.diagram, "Reliability diagram: share of right predictions by their probability")
    scores = table("Errors of the probabilities", reliability.headers(found), reliability.rows(found), "reliability")
    return section(
        "calibration", "Calibration", element("p", reliability.note(found), class_="note"),
        element("div", drawn, scores, class_="beside"),
    )  # fmt: skip


def _abstention(contents: Contents) -> Safe:
    if contents.curve is None:
        return Safe("")
    report = RulesReport.from_json(cast(Mapping[str, object], contents.report))
    rules = [
        element("p", element("code", name), ": ", " ".join(sentences))
        for name, sentences in words.rules(report).items()
    ]
    drawn = embedded(contents.curve.encode(), words.RISK_COVERAGE, "svg+xml")
    note = element("p", words.RISK_COVERAGE_NOTE, class_="note")
    return section(
        "abstention", "Abstention and prediction sets" if rules else "Risk and coverage", *rules, note, drawn
    )


def _parity(agreement: Parity) -> Safe:
    # The inputs, the largest difference, its own limit and that of all images, and a remark.
    rows: list[tuple[str, float | None, float | None, float | None, str]] = []
    images = agreement.get("allowed_on_images", agreement["tolerance"])
    common = images if agreement.get("gate", "noise") == "noise" else None
    if worst := agreement.get("worst"):
        rows.append((f"closest to its limit: {worst['input']}", worst["max_abs"], worst["allowed"], None, ""))
    for size, measured in agreement.get("max_abs_by_batch", {}).items():
        pair = agreement.get("worst_by_batch", {}).get(size, {"max_abs": measured, "allowed": None})
        name = f"batch of {size}, {pair['input']}" if "input" in pair else f"batch of {size}"
        rows.append((name, pair["max_abs"], pair["allowed"], common, ""))
    for name, measured in agreement.get("max_abs_by_edge", {}).items():
        allowed = agreement.get("allowed_by_edge", {}).get(name)
        rows.append((f"edge case: {name}", measured, allowed, common, ""))
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
    marks = "dot: measured; mark: limit" + ("; dashed: limit on the images" if common else "")
    caption = f"Largest difference between graph and network, on a logarithmic scale ({marks})"
    drawn = table(caption, ("inputs", "measured", "limit", scale.axis()), cells, "parity") if rows else ""
    outcome = element("p", "Passed" if agreement["passed"] else "Failed", class_="outcome")
    return section("parity", "Parity", outcome, *(element("p", said) for said in words.parity(agreement)), drawn)


def _speed(contents: Contents) -> Safe:
    timed, drawn = words.timed_rows(contents.report["speed"]), []
    for batch in dict.fromkeys(row.batch for row in timed):
        of_batch = [row for row in timed if row.batch == batch]
        medians = [f"{row.runtime} {words.milliseconds(row.median_ms)} ms" for row in of_batch]
        label = f"Milliseconds for a batch of {batch}: {'; '.join(medians)}"
        title = element("figcaption", f"Batch of {batch}, milliseconds")
        drawn.append(element("figure", title, bars(of_batch, label)))
    if not timed:
        return Safe("")
    note = f"Bar: median; whisker: minimum to 90th percentile. {words.SPEED_NOTE}"
    rows = words.speed_rows(contents.report["speed"])
    numbers = table("Everything that was timed", words.SPEED_HEADERS, rows, "timed")
    before = contents.measured.get("preprocessing")
    return section(
        "speed", "Speed", element("div", *drawn, class_="charts"), element("p", note, class_="note"),
        element("p", words.preprocessing(before)) if before else "",
        element("details", element("summary", "All figures"), numbers),
    )  # fmt: skip


def _precisions(candidates: Sequence[CandidateRow]) -> Safe:
    tried = table(
        "Precisions that were tried", words.candidate_headers(candidates), words.candidate_rows(candidates), "tried"
    )
    notes = [element("p", text, class_="note") for text in words.searches(candidates)]
    for one in candidates:
        if rows := words.layer_rows(one):
            layers = table(
                f"Layers of {one['precision']} in float32", words.LAYER_HEADERS, rows, f"{one['precision']}-layers"
            )
            notes.append(element("details", element("summary", f"All layers of {one['precision']} in float32"), layers))
    return section("precision", "Precision", tried, *notes) if candidates else Safe("")


def _runtimes(report: Export) -> Safe:
    """What the bundle holds for other runtimes, what was measured in them, and where `verify --runtime` adds to it."""
    parts: list[Safe] = []
    if rows := report.get("runtimes", []):
        cells = runtime_table.cells(rows)
        parts.append(table("Runtimes, at the export", runtime_table.headers(rows), cells, "runtimes"))
        parts += [element("p", text, class_="note") for text in (words.selected_runtime(report), runtime_table.NOTE)]
    if targets := words.target_rows(report.get("targets", {})):
        parts.append(table("Forms of the graph in targets/", words.TARGET_HEADERS, targets, "targets"))
    command, kept = element("code", "poolzoo verify BUNDLE --runtime all"), element("code", "runtimes.html")
    pointer = element("p", command, f" {runtime_table.POINTER} in ", kept, ".")
    return section("runtimes", "Other runtimes", *parts, pointer)


def _examples(examples: Sequence[Example], *, several: bool) -> Safe:
    shown = []
    for one in examples:
        right = one.label == one.prediction
        alt = f"Test image {one.number}: {one.label}, predicted {one.prediction}"
        sure = element("span", words.percent(one.probability, 1), class_="sure")
        mistake = "" if right else element("span", f"✗ {one.prediction}")
        drawn = picture(one.image, alt), element("b", one.label), mistake, sure
        shown.append(element("li", *drawn, class_="right" if right else "wrong"))
    text = "Wrong predictions with the highest probability first, then right ones. Bold: the label; ✗: the prediction."
    if several:
        text = "Images with wrong labels first, then right ones. Bold: the labels; ✗: what the network gives instead."
    note, grid = element("p", text, class_="note"), element("ul", *shown, class_="examples")
    return section("examples", "Examples", note, grid) if shown else Safe("")


def _run(contents: Contents) -> Safe:
    snippet = element("pre", element("code", Safe(escape(contents.python))), tabindex=0)
    commands = Safe("python predict.py photo.jpg\npython predict.py --verify")
    return section(
        "run", "How to run it",
        element("p", "In Python, with numpy, onnxruntime and Pillow:"), snippet,
        element("p", "Or with the script in the bundle, which also verifies the bundle on this machine:"),
        element("pre", element("code", commands), tabindex=0),
    )  # fmt: skip


def _provenance(contents: Contents) -> Safe:
    made = {**contents.provenance, "license": contents.license}
    around = contents.measured["environment"]
    return section("provenance", "Provenance", properties("Parts", made), properties("Measured on", around))
