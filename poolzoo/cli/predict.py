"""`poolzoo predict`. It is long because it prints tables, CSV, JSON and parts of a large set."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from poolzoo.cli import numbers, values
from poolzoo.cli.groups import DATA, HARDWARE, OUTPUT, GroupedCommand, option
from poolzoo.cli.options import (
    json_option,
    provider_option,
    runtime_timeout_option,
    threads_option,
)
from poolzoo.common import json_writer, output, streams
from poolzoo.common.text import printable

if TYPE_CHECKING:
    from poolzoo.data.paths import Paths
    from poolzoo.metrics.output_rules import OutputRules
    from poolzoo.runtime.prediction.plan import Request
    from poolzoo.runtime.prediction.predict import Prediction
    from poolzoo.runtime.prediction.predict_parts import Runner, Summary

NAMED: Final = ("label", "score")  # the columns of what an image is …
SEVERAL: Final = ("labels", "scores")  # … where it may have several labels
SEPARATOR: Final = "|"  # between the labels of an image
ACCEPTED, SET = "accepted", "set"  # where the bundle has such rules
SALIENCY_HEADERS: Final = ("saliency", "method")  # where pictures are drawn


EXAMPLES: Final = (
    ("Label images", "poolzoo predict bundle a.jpg b.jpg"),
    ("Label a folder of images, and keep the labels as CSV", "poolzoo predict bundle photos --csv > labels.csv"),
    ("Label the files that another program names", "find photos -name '*.jpg' -print0 | poolzoo predict bundle -"),
    ("Draw where the network looks", "poolzoo predict bundle photo.jpg --saliency"),
    ("Label millions of images into Parquet files, and resume", "poolzoo predict bundle @files.txt --out labels"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument(
    "bundle",
    shell_complete=values.directory(values.BUNDLE),
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    required=False,
)
@click.argument("images", shell_complete=values.files(), metavar="IMAGE...", nargs=-1)
@click.option(
    "--top", default=5, show_default=True, type=numbers.IntRange(1), help="Number of classes to print for each image."
)
@option(
    "--csv",
    "as_csv",
    group=OUTPUT,
    is_flag=True,
    help="Print CSV with the columns file, label, score and error. Several labels are separated by |, or a JSON list "
    "where a name holds that. Bundles that abstain or give prediction sets add the columns accepted and set.",
)
@click.option(
    "--saliency",
    is_flag=True,
    help="Draw a saliency map of each image as STEM-saliency.png in the current directory. An older one is replaced.",
)
@click.option(
    "--saliency-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Directory for the saliency maps; it is created if missing. Implies --saliency.",
)
@click.option(
    "--saliency-label",
    metavar="NAME",
    show_default="the most probable label of each image",
    help="Label that the saliency maps explain. Implies --saliency.",
)
@option(
    "--out",
    group=OUTPUT,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write the rows as Parquet files into DIR/parts. The same command resumes what was interrupted.",
)
@option(
    "--resume",
    "resumed",
    group=OUTPUT,
    shell_complete=values.directory(values.PREDICTION),
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Resume the interrupted prediction in DIR. No bundle, image or setting may be given.",
)
@option(
    "--executor",
    group=HARDWARE,
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where images are labeled: in this process, or on a Ray cluster, which needs --out.",
)
@option("--ray-address", group=HARDWARE, metavar="ADDRESS", help="Address of an existing Ray cluster.")
@option(
    "--skip-broken",
    "skip",
    group=DATA,
    metavar="N|all",
    help="Exit with code 0 although up to N images, or all of them, are unreadable. The default is none.",
)
@click.option(
    "--runtime",
    shell_complete=values.runtime,
    metavar="NAME",
    show_default="the one that the bundle names, else onnxruntime",
    help="Runtime to run the bundle in.",
)
@provider_option
@threads_option
@runtime_timeout_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    bundle: Path | None,
    images: tuple[str, ...],
    top: int,
    as_csv: bool,
    saliency: bool,
    saliency_dir: Path | None,
    saliency_label: str | None,
    out: Path | None,
    resumed: Path | None,
    executor: str,
    ray_address: str | None,
    skip: str | None,
    runtime: str | None,
    provider: str,
    threads: int | None,
    runtime_timeout: float | None,
    as_json: bool,
) -> int:
    """Label images with a bundle, without torch.

    IMAGE is a file, a folder, or a list of names: @FILE, a .csv or .parquet file with a column file, or - for stdin.
    Names in @FILE and on stdin are separated by newlines or NUL. An unreadable image becomes a row with an error, and
    the exit code is 1 unless --skip-broken allows it. In the folder of a data set, the command reads the images that
    training reads.
    """
    from poolzoo.common.errors import UsageError
    from poolzoo.data.unreadable import most
    from poolzoo.runtime.prediction.plan import Request
    from poolzoo.runtime.prediction.predict import predict, recorded_rules, recorded_task

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", "leave one out")
    if executor == "local" and ray_address is not None:
        raise UsageError("--ray-address is for --executor ray", "add --executor ray")
    allowed = most(skip)
    if resumed is not None:
        typed = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
        if typed - {"resumed", "executor", "ray_address", "threads", "skip", "as_json"}:
            raise UsageError("--resume takes no other settings", f"poolzoo predict --resume {resumed}")
        return _into(resumed, None, executor, ray_address, threads, allowed, as_json)
    if bundle is None or not images:
        missing = "images" if bundle else "a bundle and images"
        raise UsageError(f"predict needs {missing}", "poolzoo predict BUNDLE IMAGE...")
    if out is not None:
        if as_csv or saliency or saliency_dir or saliency_label:
            hint = "leave out --csv, --saliency, --saliency-dir and --saliency-label"
            raise UsageError("--out writes Parquet files alone", hint)
        request = Request(bundle=bundle, images=images, top=top, provider=provider, runtime=runtime)
        return _into(out, request, executor, ray_address, threads, allowed, as_json)
    if executor == "ray":
        raise UsageError("--executor ray needs a directory for the rows", "add --out DIR, which every node sees")
    files = _all_files(images)
    folder = saliency_dir or (Path() if saliency or saliency_label else None)
    pictures = None
    if folder is not None:
        from poolzoo.explain.saliency import make_drawer

        pictures = make_drawer(bundle, files, folder, threads)
    predictions = predict(
        bundle,
        files,
        top=top,
        provider=provider,
        threads=threads,
        pictures=pictures,
        explained=saliency_label,
        runtime=runtime,
        timeout=runtime_timeout,
    )
    headers = (*_rule_headers(recorded_rules(bundle)), *(SALIENCY_HEADERS if folder else ()))
    named = SEVERAL if recorded_task(bundle).is_multilabel else NAMED
    failures = _Failures()
    label = "" if as_csv and streams.stdout_is_terminal() else "labeling images"  # a bar among the rows would tear them
    with closing(_watched(predictions, label, len(files), failures)) as rows:
        if as_json:
            output.emit_json_rows(row.to_json() for row in rows)
        elif as_csv:
            for cells in chain([("file", *named, *headers, "error")], (_csv_cells(r, headers) for r in rows)):
                output.csv_row(cells)
        else:
            output.table(("image", *named, "then", *headers), (_cells(row, headers) for row in rows), right=(2,))
    return _exit_code(len(files), failures, allowed)


def _rule_headers(rules: OutputRules) -> list[str]:
    """The columns of what the rules of a bundle give."""
    return [*([ACCEPTED] if rules.abstention else []), *([SET] if rules.sets else [])]


def _exit_code(total: int, failures: _Failures, allowed: float) -> int:
    """Says what is wrong with how many of `total` images, and gives the exit code."""
    from poolzoo.common.errors import CHECK_FAILED, OK
    from poolzoo.runtime.prediction.predict import NOT_FINITE

    if failures.not_finite:
        first = f"first {failures.first_not_finite}: {NOT_FINITE}"
        output.error(
            f"{failures.not_finite} of {total} images have no label, {first}",
            "poolzoo verify checks that the bundle is as it was exported",
        )
    if failures.unreadable:
        text = f"{failures.unreadable} of {total} images cannot be read, first {failures.first_unreadable}"
        if failures.unreadable <= allowed:
            output.warn(text)
        else:
            output.error(text, "check the files, or allow so many with --skip-broken")
    return CHECK_FAILED if failures.not_finite or failures.unreadable > allowed else OK


def _into(
    out: Path,
    request: Request | None,
    executor: str,
    address: str | None,
    threads: int | None,
    allowed: float,
    as_json: bool,
) -> int:
    """Predicts into a directory; without a request, what is missing there."""
    from poolzoo.runtime.prediction import predict_parts

    runner = _runner(executor, address)
    with _resume_hint(out, executor):
        if request is None:
            summary = predict_parts.resume(out, runner, threads=threads)
        else:
            summary = predict_parts.start(out, request, runner, threads=threads)
    return _show(summary, allowed, as_json)


def _runner(executor: str, address: str | None) -> Runner:
    """Where the parts are predicted."""
    from poolzoo.runtime.prediction import predict_parts

    if executor == "local":
        return predict_parts.run_local
    from poolzoo.runtime.prediction import cluster

    return cluster.runner(address)


@contextmanager
def _resume_hint(out: Path, executor: str) -> Iterator[None]:
    """Makes Ctrl-C say how to resume, once there is something to resume."""
    from poolzoo.runtime.prediction.plan import PLAN

    try:
        yield
    except KeyboardInterrupt as stop:
        if (out / PLAN).is_file():
            more = "" if executor == "local" else f" --executor {executor}"
            stop.args = (f"poolzoo predict --resume {out}{more} continues it",)
        raise


def _show(summary: Summary, allowed: float, as_json: bool) -> int:
    """Prints the counts of all images, and gives the exit code."""
    from poolzoo.runtime.prediction.parts import PARTS

    counts = summary.counts
    if as_json:
        output.emit_json(summary.to_json())
    else:
        shares = ((label, count, f"{count / counts.images:.1%}") for label, count in counts.labels.most_common())
        none = [("(no label)", counts.unlabeled, f"{counts.unlabeled / counts.images:.1%}")] if counts.unlabeled else []
        output.table(("label", "images", "share"), [*shares, *none], right=(1, 2))
    if counts.accepted is not None:
        output.say(f"{counts.accepted:,} of {counts.images:,} images are accepted")
    output.say(f"{counts.images:,} images in {summary.plan.parts:,} files: {summary.path / PARTS}")
    unreadable, not_finite = counts.unreadable, counts.not_finite
    failures = _Failures(unreadable.count, unreadable.first, not_finite.count, not_finite.first)
    return _exit_code(counts.images, failures, allowed)


@dataclass
class _Failures:
    """Counts images that cannot be read, and images whose outputs are not finite; keeps the first of each."""

    unreadable: int = 0
    first_unreadable: str = ""
    not_finite: int = 0
    first_not_finite: str = ""

    def add(self, prediction: Prediction) -> None:
        from poolzoo.runtime.prediction.predict import NOT_FINITE

        if prediction.error == NOT_FINITE:
            self.not_finite += 1
            self.first_not_finite = self.first_not_finite or prediction.file
        else:
            self.unreadable += 1
            self.first_unreadable = self.first_unreadable or f"{prediction.file}: {prediction.error}"


def _all_files(arguments: Sequence[str]) -> Paths:
    """The files that the arguments mean; says what in their folders is ignored."""
    from poolzoo.data.paths import Paths
    from poolzoo.data.walk import Tally
    from poolzoo.runtime.prediction.file_lists import images_in

    tally = Tally()
    files = Paths(str(Path(file)) for argument in arguments for file in images_in(argument, tally))
    if (line := tally.line()) is not None:
        output.say(line)
    return files


def _watched(
    predictions: Generator[Prediction, None, None], label: str, total: int, failures: _Failures
) -> Generator[Prediction, None, None]:
    """The predictions, with a progress bar; those with an error are also added to `failures`."""
    with output.progress(label, total) as bar, closing(predictions):
        for done, one in enumerate(predictions, 1):
            prediction = replace(one, file=printable(one.file))
            if prediction.picture is not None:
                picture = replace(prediction.picture, path=printable(prediction.picture.path))
                prediction = replace(prediction, picture=picture)
            if prediction.error is not None:
                failures.add(prediction)
            yield prediction
            bar.update(done)


def _more_cells(prediction: Prediction, headers: Sequence[str]) -> Sequence[str]:
    """What the rules of the bundle give, and the picture's path and method; empty cells where there is none."""
    picture, members = prediction.picture, prediction.set
    accepted = "" if prediction.accepted is None else "yes" if prediction.accepted else "no"
    cells = {
        ACCEPTED: accepted,
        SET: "" if members is None else _names_cell([one.label for one in members]),
        SALIENCY_HEADERS[0]: "" if picture is None else picture.path,
        SALIENCY_HEADERS[1]: "" if picture is None else picture.method,
    }
    return tuple(cells[header] for header in headers)


def _csv_cells(prediction: Prediction, headers: Sequence[str]) -> Sequence[str]:
    more = _more_cells(prediction, headers)
    if prediction.error is not None:
        return prediction.file, "", "", *more, prediction.error
    named = prediction.top[:1] if prediction.labels is None else prediction.labels
    names, scores = [one.label for one in named], [f"{one.score:.6f}" for one in named]
    cell = _names_cell(names) if prediction.labels is not None else "".join(names)
    return prediction.file, cell, SEPARATOR.join(scores), *more, ""


def _names_cell(names: list[str]) -> str:
    """Labels as `csv:` reads them back: separated, or a JSON list where a name would be read as others."""
    from poolzoo.datasets.labels import split_labels

    cell = SEPARATOR.join(names)
    return cell if split_labels(cell) == names else json_writer.dumps(names)


def _cells(prediction: Prediction, headers: Sequence[str]) -> Sequence[str]:
    """An image, its label with the score, the next classes with their scores, and the saliency picture."""
    more = _more_cells(prediction, headers)
    if prediction.error is not None:
        from poolzoo.runtime.prediction.predict import NOT_FINITE

        unread = "" if prediction.error == NOT_FINITE else "cannot be read: "
        return prediction.file, "", "", f"{unread}{prediction.error}", *more
    labels = prediction.top[:1] if prediction.labels is None else prediction.labels
    others = "; ".join(f"{one.label} {one.score:.4f}" for one in prediction.top if one not in labels)
    scores = SEPARATOR.join(f"{one.score:.4f}" for one in labels)
    return prediction.file, SEPARATOR.join(one.label for one in labels), scores, others, *more
