"""What a bundle says of itself: its model card `README.md`, `confusion.png`, and `report.html`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolzoo.common import files, markdown
from poolzoo.export.source import ExportSource
from poolzoo.metrics import classification
from poolzoo.metrics.results import Metrics, format_score, untested_classes, untested_note
from poolzoo.report import bundle_page, bundle_words, confusion

MOST_CLASSES: Final = 50  # whose table and confusion matrix can be read
MOST_LABELS: Final = 20  # that the card names
MOST_EXAMPLES: Final = 24
# Identifiers of licenses that the Hugging Face hub accepts and that weights come with; another one is "other" there.
LICENSES: Final = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0", "openrail", "unknown"),
)


def write(
    place: Path, subject: ExportSource, report: dict[str, Any], measured: dict[str, Any], logits: np.ndarray
) -> None:
    """Writes `README.md`, `report.html`, and `confusion.png` where there are labels and few enough classes.

    Args:
        place: The bundle's directory.
        subject: The network.
        report: What the export found: precision, parity, speed, candidates and files.
        measured: The content of `speed.json`.
        logits: The graph's own, `float32[N, classes]`, on the subject's images.

    Raises:
        EnvironmentProblem: matplotlib cannot be loaded.
        OSError: A file cannot be written.
    """
    classes, labels = subject.classes, subject.image_labels
    figures = None if labels is None else classification.compute(logits, labels, classes)
    if figures and len(classes) <= MOST_CLASSES:
        confusion.draw(figures.confusion, classes, place / "confusion.png")
    made = {key: value for key, value in subject.provenance.items() if key != "poolzoo"}  # of which config has more
    page = bundle_page.Contents(
        title=subject.title,
        license=subject.license,
        report=report,
        measured=measured,
        figures=figures,
        examples=examples(subject, logits),
        provenance={**subject.config["poolzoo"], **made, **subject.origin},
        python=python(subject, report["input"]),
    )
    files.write_atomically(place / "README.md", _readme(subject, report, measured, figures))
    files.write_atomically(place / "report.html", bundle_page.html(page))


def python(subject: ExportSource, given: str) -> str:
    """How to run the graph on a photograph, without poolzoo.

    Args:
        subject: The network.
        given: What the graph takes, "uint8" or "float".
    """
    (height, width), how = subject.size, subject.fit
    fitted = f"ImageOps.fit(photo, ({width}, {height}), Image.Resampling.{how.interpolation.upper()}"
    if how.crop_pct != 1:  # an image that has the size already loses no margin
        bleed = (1 - how.crop_pct) / 2
        fitted = f"photo if photo.size == ({width}, {height}) else {fitted}, bleed={bleed!r}"
    pixels = "numpy.asarray(photo)[None]"
    if given == "float":
        pixels = "(numpy.asarray(photo, numpy.float32) / 255).transpose(2, 0, 1)[None]"
    return f"""\
import json, numpy, onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
photo = {fitted})
logits, probabilities = session.run(["logits", "probabilities"], {{"images": {pixels}}})
print(json.loads(session.get_modelmeta().custom_metadata_map["labels"])[probabilities[0].argmax()])
"""


def examples(subject: ExportSource, logits: np.ndarray, most: int = MOST_EXAMPLES) -> list[bundle_page.Example]:
    """Mistakes, the surest first, then right answers, one of each class in turn; half of each where there are enough.

    Args:
        subject: The network, with its images. Without labels there is nothing to be right or wrong about, and no
            example.
        logits: `float32[N, classes]` for its images.
        most: How many to choose.
    """
    labels = subject.image_labels
    if labels is None:
        return []
    chosen = classification.predictions(logits)
    with np.errstate(invalid="ignore"):
        shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        sureness = np.nan_to_num((shifted / shifted.sum(1, keepdims=True)).max(1))
    surest = np.argsort(-sureness, kind="stable")
    wrong = [index for index in surest if chosen[index] not in (labels[index], classification.NO_CLASS)]
    right = [index for index in range(len(labels)) if chosen[index] == labels[index]]
    seen: dict[int, int] = {}
    turns = []
    for index in right:  # the n-th right answer of every class before the (n + 1)-th of any
        seen[labels[index]] = seen.get(labels[index], 0) + 1
        turns.append((seen[labels[index]], labels[index], index))
    mistakes = wrong[: max(most // 2, most - len(right))]
    answers = [index for *_, index in sorted(turns)[: most - len(mistakes)]]
    names = subject.classes
    return [
        bundle_page.Example(subject.images[i], int(i), names[labels[i]], names[chosen[i]], float(sureness[i]))
        for i in (*mistakes, *answers)
    ]


def _readme(subject: ExportSource, report: dict[str, Any], measured: dict[str, Any], figures: Metrics | None) -> str:
    sections = [
        _front_matter(subject, figures),
        f"# {markdown.text(subject.title)}, for ONNX Runtime",
        _what(subject, report),
        f"## Run it\n\n```python\n{python(subject, report['input'])}```",
        "Or, with what it needs of Python beside it, on many images, and to check the bundle where it is:\n\n"
        "```console\npython predict.py photo.jpg\npython predict.py --verify\n```",
        _labels(subject.classes),
    ]
    if figures:
        sections.append(_figures(figures))
    sections.append("## Parity\n\n" + markdown.text(" ".join(bundle_words.parity(report["parity"]))))
    if rows := bundle_words.speed_rows(report["speed"]):
        sections.append(
            f"## Speed\n\n{markdown.table(bundle_words.SPEED_HEADERS, rows)}\n\n"
            f"{markdown.text(bundle_words.SPEED_NOTE)}"
        )
        if before := measured.get("preprocessing"):
            sections.append(markdown.text(bundle_words.preprocessing(before)))
    if rows := bundle_words.candidate_rows(report.get("candidates", [])):
        sections.append(f"## Precision\n\n{markdown.table(bundle_words.CANDIDATE_HEADERS, rows)}")
    around = [(key, bundle_words.value(value)) for key, value in measured["environment"].items()]
    sections.append(f"## Measured on\n\n{markdown.table(('what', 'which'), around)}")
    sections.append("`report.html` shows all this with examples; `parity.json` and `speed.json` hold every figure.")
    return "\n\n".join(sections) + "\n"


def _front_matter(subject: ExportSource, figures: Metrics | None) -> str:
    """The metadata that the Hugging Face hub reads. Scalars are written as JSON, which YAML reads as it is."""
    name = markdown.scalar(subject.title)
    known = subject.license.lower() in LICENSES
    lines = ["library_name: onnx", "pipeline_tag: image-classification", "tags: [image-classification, onnx, poolzoo]"]
    lines += [f"license: {markdown.scalar(subject.license.lower() if known else 'other')}"]
    lines += [] if known else [f"license_name: {markdown.scalar(subject.license)}"]
    if figures:
        data = str(subject.config["poolzoo"].get("data", "unknown"))
        kind, _, folder = data.partition(":")
        called = markdown.scalar(Path(folder).name or kind)  # a folder by its name: the path is this machine's own
        lines += ["metrics: [accuracy, f1]", "model-index:", f"- name: {name}", "  results:"]
        lines += ["  - task:", "      type: image-classification", "    dataset:"]
        lines += [f"      name: {called}", f"      type: {called}", "      split: test", "    metrics:"]
        for key, shown, value in (("accuracy", "accuracy", figures.accuracy), ("f1", "macro F1", figures.f1)):
            lines += [f"    - type: {key}", f"      name: {shown}", f"      value: {markdown.scalar(value)}"]
    return "\n".join(["---", *lines, "---"])


def _what(subject: ExportSource, report: dict[str, Any]) -> str:
    (height, width), fit = subject.size, subject.fit
    takes = f"uint8 `[N, {height}, {width}, 3]` in RGB"
    if report["input"] == "float":
        takes = f"float32 `[N, 3, {height}, {width}]` in RGB, 0–1"
    size = bundle_words.size(report.get("files", {}).get("model.onnx"))
    needs = f"It needs ONNX Runtime {report['onnxruntime']} or newer. " if "onnxruntime" in report else ""
    return (
        f"`model.onnx` ({report['precision']}, opset {report['opset']}, {size}) takes `images`, {takes}, any N, and "
        f"gives `logits` and `probabilities`, float32 `[N, {len(subject.classes)}]`. Normalization and resizing to the "
        f"network's own size are inside. {needs}Photographs of another size are brought to this one by resizing the "
        f"central {fit.crop_pct:.1%} of their shorter side, {fit.interpolation}."
    )


def _labels(classes: Sequence[str]) -> str:
    few = "; ".join(markdown.text(name) for name in classes[:MOST_LABELS])
    more = f"; … ({len(classes)} in all, which `config.json` holds)" if len(classes) > MOST_LABELS else ""
    return f"Labels: {few}{more}."


def _figures(figures: Metrics) -> str:
    low, high = (bundle_words.percent(share) for share in figures.interval)
    text = (
        f"Accuracy {bundle_words.percent(figures.accuracy)} on {figures.n} images (95 % interval {low} to {high}), "
        f"macro F1 {figures.f1:.4f}."
    )
    if note := untested_note(untested_classes(figures.per_class)):
        text += f" {markdown.text(note)}"
    if len(figures.per_class) > MOST_CLASSES:
        return f"## Accuracy\n\n{text}"
    rows = [
        (row.name, format_score(row.precision), format_score(row.recall), format_score(row.f1), row.n)
        for row in figures.per_class
    ]
    table = markdown.table(("class", "precision", "recall", "F1", "images"), rows)
    picture = "![Confusion matrix: rows are the truth, columns the prediction](confusion.png)"
    return f"## Accuracy\n\n{text}\n\n{table}\n\n{picture}"
