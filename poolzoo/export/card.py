"""Writes the model card of a bundle: `README.md`, `report.html`, and their pictures.

The file is long because it has each section of the card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import numpy as np

from poolzoo.artifacts.schema import Export, Speed
from poolzoo.common import files, markdown
from poolzoo.export.source import ExportSource
from poolzoo.metrics import classification, evaluation, multilabel, reliability
from poolzoo.metrics.decisions import Decision
from poolzoo.metrics.multilabel_results import MultilabelMetrics
from poolzoo.metrics.output_rules import ACCEPTED, OutputRules
from poolzoo.metrics.reliability import ReliabilityChange
from poolzoo.metrics.results import AnyMetrics, Metrics, format_score, untested_classes, untested_note
from poolzoo.metrics.risk_coverage import risk_coverage
from poolzoo.metrics.rules_report import RulesReport
from poolzoo.report import (
    bundle_page,
    bundle_words,
    confusion,
    reliability_diagram,
    risk_coverage_diagram,
    runtime_table,
)

MAX_CLASSES: Final = 50  # whose table and confusion matrix are readable
MAX_LABELS: Final = 20  # that the card names
MAX_EXAMPLES: Final = 24
# License identifiers of the Hugging Face hub that weights come with; another license is "other" there.
LICENSES: Final = frozenset(
    [
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "gpl-3.0",
        "agpl-3.0",
        "openrail",
        "unknown",
    ]
)


def write(
    directory: Path,
    source: ExportSource,
    report: Export,
    measured: Speed,
    logits: np.ndarray,
    tested: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Writes `README.md` and `report.html`, and their pictures.

    With labels these are `reliability.png`; of one label per image `risk_coverage.svg`, and with few classes
    `confusion.png`.

    Args:
        directory: The bundle.
        source: The network.
        report: The report of the export.
        measured: The content of `speed.json`.
        logits: The graph's logits of the source's images, `float32[N, classes]`.
        tested: Calibrated probabilities `float[M, classes]` and labels of the risk–coverage curve; None for no curve.

    Raises:
        EnvironmentProblem: matplotlib cannot be loaded.
        OSError: A file cannot be written.
    """
    classes, labels = source.classes, source.image_labels
    figures = None if labels is None else evaluation.compute(logits, labels, classes, source.decision)
    if isinstance(figures, Metrics) and len(classes) <= MAX_CLASSES:
        confusion.draw(figures.confusion, classes, directory / "confusion.png")
    trusted = None if labels is None else reliability.measure(logits, labels, source.decision)
    diagram = None
    if trusted is not None:
        diagram = reliability_diagram.draw(trusted, several=source.decision.task.is_multilabel)
        files.write_atomically(directory / "reliability.png", diagram)
    curve = None
    if tested is not None:
        rules = RulesReport.from_json(cast(Mapping[str, object], report))
        curve = risk_coverage_diagram.draw(risk_coverage(*tested), rules.selective)
        files.write_atomically(directory / "risk_coverage.svg", curve)
    made = {key: value for key, value in source.provenance.items() if key != "poolzoo"}  # config.json says more of that
    page = bundle_page.Contents(
        title=source.title,
        license=source.license,
        report=report,
        measured=measured,
        figures=figures,
        reliability=trusted,
        diagram=diagram,
        curve=curve,
        examples=examples(source, logits),
        provenance={**source.config["poolzoo"], **made, **source.origin},
        python=python(source, report),
    )
    files.write_atomically(directory / "README.md", _readme(source, report, measured, figures, trusted))
    files.write_atomically(directory / "report.html", bundle_page.html(page))


def python(source: ExportSource, report: Export) -> str:
    """A Python program that runs the graph on an image file without poolzoo.

    Args:
        source: The network.
        report: The report of the export.
    """
    input_kind, rules = report["input"], OutputRules.from_json(cast(Mapping[str, object], report))
    (height, width), how = source.size, source.fit
    fitted = f"ImageOps.fit(photo, ({width}, {height}), Image.Resampling.{how.interpolation.upper()}"
    if how.crop_pct != 1:  # an image that has the size already loses no margin
        bleed = (1 - how.crop_pct) / 2
        fitted = f"photo if photo.size == ({width}, {height}) else {fitted}, bleed={bleed!r}"
    pixels = "numpy.asarray(photo)[None]"
    fit = f"photo = {fitted})\n" if input_kind != "photo" else ""
    if input_kind == "float":
        pixels = "(numpy.asarray(photo, numpy.float32) / 255).transpose(2, 0, 1)[None]"
    outputs = ["logits", "probabilities", *rules.names]
    listed = ", ".join(f'"{name}"' for name in outputs)
    return f"""\
import json, numpy, onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
{fit}{", ".join(outputs)} = session.run([{listed}], {{"images": {pixels}}})
{_printed(source.decision)}{"".join(map(_printed_rule, rules.names))}"""


def _printed(decision: Decision) -> str:
    """Code that prints the label, or the labels that reach their thresholds."""
    if decision.thresholds is None:
        return 'print(json.loads(session.get_modelmeta().custom_metadata_map["labels"])[probabilities[0].argmax()])\n'
    return """\
facts = session.get_modelmeta().custom_metadata_map
reached = probabilities[0] >= numpy.asarray(json.loads(facts["thresholds"]), numpy.float32)
print([label for label, is_reached in zip(json.loads(facts["labels"]), reached) if is_reached])
"""


def _printed_rule(name: str) -> str:
    """Code that prints whether an image is accepted, or its set."""
    if name == ACCEPTED:
        return f'print("accepted" if {name}[0] else "not accepted")\n'
    labels = 'json.loads(session.get_modelmeta().custom_metadata_map["labels"])'
    return f"print([label for label, is_in in zip({labels}, {name}[0]) if is_in])\n"


def examples(source: ExportSource, logits: np.ndarray, limit: int = MAX_EXAMPLES) -> list[bundle_page.Example]:
    """Misclassified images, the most confident first, then correct ones of each class in turn, half of each.

    Args:
        source: The network with its images; without labels there are no examples.
        logits: The logits of its images, `float32[N, classes]`.
        limit: How many examples at most.
    """
    labels = source.image_labels
    if labels is None:
        return []
    if source.decision.task.is_multilabel:
        return _multilabel_examples(source, labels, logits, limit)
    predicted = source.decision.decide(logits)
    with np.errstate(invalid="ignore"):
        confidence = np.nan_to_num(source.decision.probabilities(logits).max(1))
    order = np.argsort(-confidence, kind="stable")
    wrong = [index for index in order if predicted[index] not in (labels[index], classification.NO_CLASS)]
    right = [index for index in range(len(labels)) if predicted[index] == labels[index]]
    seen: dict[int, int] = {}
    turns = []
    for index in right:  # the n-th of every class comes before the (n + 1)-th of any
        seen[labels[index]] = seen.get(labels[index], 0) + 1
        turns.append((seen[labels[index]], labels[index], index))
    mistakes = wrong[: max(limit // 2, limit - len(right))]
    correct = [index for *_, index in sorted(turns)[: limit - len(mistakes)]]
    names = source.classes
    return [
        bundle_page.Example(source.images[i], int(i), names[labels[i]], names[predicted[i]], float(confidence[i]))
        for i in (*mistakes, *correct)
    ]


def _multilabel_examples(
    source: ExportSource, labels: np.ndarray, logits: np.ndarray, limit: int
) -> list[bundle_page.Example]:
    """Images with a wrong set of labels, those that share least with the right one first, then right ones."""
    predicted, probabilities = source.decision.decide(logits), source.decision.probabilities(logits)
    both, either = (predicted & (labels > 0)).sum(1), (predicted | (labels > 0)).sum(1)
    share = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    order = [index for index in np.argsort(share, kind="stable") if np.isfinite(logits[index]).all()]
    wrong = [index for index in order if share[index] < 1]
    right = [index for index in order if share[index] == 1]
    mistakes = wrong[: max(limit // 2, limit - len(right))]

    def named(rows: np.ndarray) -> str:
        return ", ".join(source.classes[place] for place in np.flatnonzero(rows)) or "no label"

    return [
        bundle_page.Example(
            source.images[i], int(i), named(labels[i]), named(predicted[i]), float(probabilities[i].max())
        )
        for i in (*mistakes, *right[: limit - len(mistakes)])
    ]


def _readme(
    source: ExportSource,
    report: Export,
    measured: Speed,
    figures: AnyMetrics | None,
    trusted: ReliabilityChange | None,
) -> str:
    sections = [
        _front_matter(source, figures),
        f"# {markdown.text(source.title)}, for ONNX Runtime",
        _what(source, report),
        f"## Run it\n\n```python\n{python(source, report)}```",
        "Or with the script in the bundle, on many images, and to check the bundle:\n\n"
        "```console\npython predict.py photo.jpg\npython predict.py --verify\n```",
        _labels(source.classes),
        *([_THRESHOLDS] if source.decision.task.is_multilabel else []),
    ]
    if figures:
        sections.append(_figures(figures))
    if trusted is not None:
        sections.append(_calibration(source.decision, trusted))
    if isinstance(figures, Metrics):
        sections.append(_abstention(report))
    sections.append("## Parity\n\n" + markdown.text(" ".join(bundle_words.parity(report["parity"]))))
    if rows := bundle_words.speed_rows(report["speed"]):
        sections.append(
            f"## Speed\n\n{markdown.table(bundle_words.SPEED_HEADERS, rows)}\n\n"
            f"{markdown.text(bundle_words.SPEED_NOTE)}"
        )
        if before := measured.get("preprocessing"):
            sections.append(markdown.text(bundle_words.preprocessing(before)))
    if rows := bundle_words.candidate_rows(report.get("candidates", [])):
        sections.append(f"## Precision\n\n{markdown.table(bundle_words.candidate_headers(report['candidates']), rows)}")
        sections += [markdown.text(text) for text in bundle_words.searches(report["candidates"])]
    sections.append(f"## Other runtimes\n\n{_runtimes(report)}")
    around = [(key, bundle_words.value(value)) for key, value in measured["environment"].items()]
    sections.append(f"## Measured on\n\n{markdown.table(('what', 'which'), around)}")
    sections.append("`report.html` shows all this with examples; `parity.json` and `speed.json` hold all numbers.")
    return "\n\n".join(sections) + "\n"


def _front_matter(source: ExportSource, figures: AnyMetrics | None) -> str:
    """The metadata that the Hugging Face hub reads. Scalars are JSON, which is YAML too."""
    name = markdown.scalar(source.title)
    known = source.license.lower() in LICENSES
    lines = ["library_name: onnx", "pipeline_tag: image-classification", "tags: [image-classification, onnx, poolzoo]"]
    lines += [f"license: {markdown.scalar(source.license.lower() if known else 'other')}"]
    lines += [] if known else [f"license_name: {markdown.scalar(source.license)}"]
    if figures:
        data = str(source.config["poolzoo"].get("data", "unknown"))
        kind, _, folder = data.partition(":")
        called = markdown.scalar(Path(folder).name or kind)  # not a folder's path, which is private to this machine
        score = source.decision.task.val_score
        lines += [f"metrics: [{score}, f1]", "model-index:", f"- name: {name}", "  results:"]
        lines += ["  - task:", "      type: image-classification", "    dataset:"]
        lines += [f"      name: {called}", f"      type: {called}", "      split: test", "    metrics:"]
        for key, shown, value in ((score, score, evaluation.main_score(figures)), ("f1", "macro F1", figures.f1)):
            lines += [f"    - type: {key}", f"      name: {shown}", f"      value: {markdown.scalar(value)}"]
    return "\n".join(["---", *lines, "---"])


def _what(source: ExportSource, report: Export) -> str:
    (height, width), fit = source.size, source.fit
    takes = f"uint8 `[N, {height}, {width}, 3]` in RGB"
    if report["input"] == "float":
        takes = f"float32 `[N, 3, {height}, {width}]` in RGB, 0–1"
    other = (
        f"Images of another size are resized to this one from the central {fit.crop_pct:.1%} of their shorter side, "
        f"{fit.interpolation}."
    )
    batch = "any N"
    if report["input"] == "photo":
        takes = "uint8 `[1, H, W, 3]` in RGB: a photograph as it was decoded"
        batch = "any H and W"
        other = f"{other[:-1]}, inside too."
    size = bundle_words.size(report.get("files", {}).get("model.onnx"))
    each = " (a sigmoid of each logit)" if source.decision.task.is_multilabel else ""
    needs = f"It needs ONNX Runtime {report['onnxruntime']} or newer. " if "onnxruntime" in report else ""
    return (
        f"`model.onnx` ({report['precision']}, opset {report['opset']}, {size}) takes `images`, {takes}, {batch}, and "
        f"gives `logits` and `probabilities`{each}, float32 `[N, {len(source.classes)}]`{_more(report)}. Normalization "
        f"and resizing to the network's own size are inside. {needs}{other}"
    )


def _more(report: Export) -> str:
    """The outputs beside logits and probabilities."""
    names = OutputRules.from_json(cast(Mapping[str, object], report)).names
    return f", and {bundle_words.listed([f'`{name}`' for name in names])}, bool" if names else ""


def _runtimes(report: Export) -> str:
    """What was measured in other runtimes, what the bundle holds for them, and which one `poolzoo predict` uses."""
    parts = []
    if measured := report.get("runtimes", []):
        parts.append(markdown.table(runtime_table.headers(measured), runtime_table.cells(measured)))
        parts.append(markdown.text(runtime_table.NOTE))
    if rows := bundle_words.target_rows(report.get("targets", {})):
        parts.append(
            "The directory `targets` holds a form of the graph for each of these. Each was checked on its own."
        )
        parts.append(markdown.table(bundle_words.TARGET_HEADERS, rows))
    if said := bundle_words.selected_runtime(report):
        parts.append(markdown.text(said))
    parts.append(f"`poolzoo verify BUNDLE --runtime all` {runtime_table.POINTER} in `runtimes.html`.")
    return "\n\n".join(parts)


def _labels(classes: Sequence[str]) -> str:
    few = "; ".join(markdown.text(name) for name in classes[:MAX_LABELS])
    more = f"; … ({len(classes)} in all, which `config.json` holds)" if len(classes) > MAX_LABELS else ""
    return f"Labels: {few}{more}."


_THRESHOLDS: Final = (
    "An image gets every label whose probability reaches its threshold. The thresholds are `thresholds` in "
    "`config.json` and in the metadata of `model.onnx`, in the order of the labels."
)


def _calibration(decision: Decision, trusted: ReliabilityChange) -> str:
    """What probabilities are worth, as a table and a diagram."""
    said = "`probabilities` are those of plain logits."
    if decision.calibration is not None:
        chosen = decision.calibration
        mapped = f"logits divided by a temperature of {chosen.temperature:.4g}"
        if chosen.scale is not None:
            mapped += " with a scale and bias of each class"
        if chosen.smoothing is not None:
            mapped += f", from which label smoothing of {chosen.smoothing:.4g} is taken back"
        said = (
            f"`probabilities` are those of {mapped}, which validation images chose; `logits` are plain. "
            "The metadata of `model.onnx` has it as `calibration`."
        )
    table = markdown.table(reliability.headers(trusted), reliability.rows(trusted))
    picture = "![Reliability diagram: share of right predictions by their probability](reliability.png)"
    return f"## Calibration\n\n{said} {reliability.note(trusted)}\n\n{table}\n\n{picture}"


def _abstention(report: Export) -> str:
    """The rules of the outputs beside logits and probabilities, and the risk–coverage curve."""
    said = bundle_words.rules(RulesReport.from_json(cast(Mapping[str, object], report)))
    rules = "".join(f"`{name}`: {markdown.text(' '.join(sentences))}\n\n" for name, sentences in said.items())
    title = "Abstention and prediction sets" if rules else "Risk and coverage"
    picture = f"![{bundle_words.RISK_COVERAGE}](risk_coverage.svg)"
    return f"## {title}\n\n{rules}{markdown.text(bundle_words.RISK_COVERAGE_NOTE)}\n\n{picture}"


def _figures(figures: AnyMetrics) -> str:
    if isinstance(figures, MultilabelMetrics):
        said = " ".join(map(markdown.text, multilabel.sentences(figures)))
        if len(figures.per_class) > MAX_CLASSES:
            return f"## Scores\n\n{said}"
        return f"## Scores\n\n{said}\n\n{markdown.table(multilabel.TABLE, multilabel.table_rows(figures))}"
    low, high = (bundle_words.percent(share) for share in figures.interval)
    text = (
        f"Accuracy {bundle_words.percent(figures.accuracy)} on {figures.n} images (95 % interval {low} to {high}), "
        f"macro F1 {figures.f1:.4f}."
    )
    if note := untested_note(untested_classes(figures.per_class)):
        text += f" {markdown.text(note)}"
    if len(figures.per_class) > MAX_CLASSES:
        return f"## Accuracy\n\n{text}"
    rows = [
        (row.name, format_score(row.precision), format_score(row.recall), format_score(row.f1), row.n)
        for row in figures.per_class
    ]
    table = markdown.table(("class", "precision", "recall", "F1", "images"), rows)
    picture = "![Confusion matrix: rows are the truth, columns the prediction](confusion.png)"
    return f"## Accuracy\n\n{text}\n\n{table}\n\n{picture}"
