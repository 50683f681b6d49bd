"""The `README.md` of a run: a model card made of its configuration, settings and metrics."""

from __future__ import annotations

from collections.abc import Mapping

from poolzoo.artifacts.run_report import RunReport
from poolzoo.artifacts.schema import Config, NetworkConfig
from poolzoo.common import files, markdown
from poolzoo.common.text import data_title
from poolzoo.data import sizes
from poolzoo.metrics import multilabel
from poolzoo.metrics.multilabel_results import MultilabelMetrics
from poolzoo.metrics.results import AnyMetrics, format_score, untested_classes, untested_note


def render(config: Config, settings: Mapping[str, object], report: RunReport) -> str:
    """The Markdown of a run's `README.md`, with front matter.

    Args:
        config: `config.json`.
        settings: The arguments of the run, by name; those that are None are left out.
        report: The result of the run.
    """
    ours = config["poolzoo"]
    arguments = [(key, value) for key, value in settings.items() if value is not None]
    return f"""---
library_name: poolzoo
tags: [image-classification, pooling, {markdown.scalar(files.slug(str(ours["pool"])))}]
license: {markdown.scalar(config["pretrained_cfg"]["license"] or "unknown")}
metrics: [{"mAP" if report.task.is_multilabel else "accuracy"}, precision, recall, f1]
---

# {markdown.text(f"{ours['backbone']} with {ours['pool']} pooling on {data_title(ours['data'])}")}

Images of {sizes.show(ours["data_size"])} pixels (height × width) enter the network at
{sizes.show(ours["image_size"])}; its {sizes.show(ours["map"])} feature map is pooled to
{config["num_features"]} features.

{_weights(ours)}

{_results(report)}

![learning curves](curves.png)

{_table(report.test)}

{markdown.table(("argument", "value"), arguments)}

Repeat it with `poolzoo finetune --config run.toml`; export it with `poolzoo export` and this directory.
"""


def _weights(ours: NetworkConfig) -> str:
    """Where the weights came from, and what changed in the published network's last layers, in sentences."""
    weights, head = ours["weights"], ours["published_head"]
    lines = [f"Weights at the start: {markdown.text(weights['text'])}."]
    if head["changes"]:
        lines.append(f"Published head: {markdown.text(head['text'])}.")
    if (teacher := ours.get("teacher")) is not None:
        lines.append(
            f"Distilled from {markdown.text(teacher['name'])} at temperature {teacher['temperature']:g}, with weight "
            f"{teacher['weight']:g}."
        )
    return "\n".join(lines)


def _table(metrics: AnyMetrics) -> str:
    """The scores of every class or label."""
    if isinstance(metrics, MultilabelMetrics):
        return markdown.table(multilabel.TABLE, multilabel.table_rows(metrics))
    rows = [
        (row.name, row.n, format_score(row.precision), format_score(row.recall), format_score(row.f1))
        for row in metrics.per_class
    ]
    return markdown.table(("class", "n", "precision", "recall", "F1"), rows)


def _scores(test: AnyMetrics) -> list[str]:
    """What the test images say, in sentences."""
    if isinstance(test, MultilabelMetrics):
        return [markdown.text(line) for line in multilabel.sentences(test)]
    low, high = test.interval
    lines = [
        f"Accuracy {test.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}), macro F1 {test.f1:.4f} on "
        f"{test.n} test images."
    ]
    if note := untested_note(untested_classes(test.per_class)):
        lines.append(markdown.text(note))
    if test.top5 is not None:
        lines.append(f"Top-5 accuracy {test.top5:.4f}.")
    return lines


def _trust(report: RunReport) -> list[str]:
    """How far the probabilities can be believed, in sentences."""
    found, lines = report.reliability, []
    if found is not None and found.after is not None:
        lines.append(
            f"Expected calibration error {found.after.ece}, without the calibration {found.before.ece}; "
            f"negative log-likelihood {found.after.nll.value:.4f} and {found.before.nll.value:.4f}."
        )
    elif report.test.ece is not None and not report.task.is_multilabel:  # whose sentences have it
        lines.append(f"Expected calibration error {report.test.ece:.4f}.")
    if report.fit is not None:
        said = report.fit.describe()
        lines.append(f"{said[0].upper()}{said[1:]}.")
    return lines


def _results(report: RunReport) -> str:
    """The test results and the cost of training, in sentences."""
    lines = [*_scores(report.test), *_trust(report)]
    if report.task.is_multilabel:
        lines.append("A label is predicted where its probability reaches its threshold, chosen on validation images.")
    if report.test_flip_tta is not None:
        lines.append(
            f"Averaged over each image and its mirror image: {report.test_flip_tta:.4f}. "
            "The exported model does not average."
        )
    if report.skipped:
        lines.append(f"{len(report.skipped)} images could not be read and were left out; metrics.json names them.")
    if report.ending is not None and report.ending.by is not None:
        lines.append(f"The {report.ending.by} ended training after {report.ending.epochs} epochs.")
    peak = report.peak_memory.device_bytes or report.peak_memory.host_bytes
    memory = f", peak memory {peak / 1e9:.1f} GB" if peak else ""
    lines.append(f"Training took {report.seconds:.0f} s at {report.images_per_s:.0f} images/s{memory}.")
    return "\n".join(lines)
