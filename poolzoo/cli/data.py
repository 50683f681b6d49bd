"""`poolzoo data`: about data sets, before a network is trained on them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from poolzoo.cli import numbers, values
from poolzoo.cli.groups import DATA, OUTPUT, option
from poolzoo.cli.options import CommandGroup, json_option
from poolzoo.common import output
from poolzoo.common.errors import CHECK_FAILED, OK

if TYPE_CHECKING:
    from poolzoo.data.check.findings import CheckReport, Pair

_INSTALL: Final = "pip install 'poolzoo[check]'"
_SIGNS: Final = {"exact": "=", "near": "≈", "mirrored": "≈ mirrored"}
_NAMED: Final = 5  # classes in a line
EXAMPLES: Final = (
    ("Check a folder of images, and look at what was found", "poolzoo data check folder:photos --page check.html"),
    ("Check a table whose images have several labels", "poolzoo data check csv:photos.csv --task multilabel"),
    (
        "Look for exact copies alone, in 1,000 images a split",
        "poolzoo data check folder:photos --limit 1000 --no-near",
    ),
)


@click.group(cls=CommandGroup)
def command() -> None:
    """Check data sets before a network is trained on them."""


@command.command("check", examples=EXAMPLES, short_help="Find leaks, copies, broken files and unequal classes.")
@click.argument("source", metavar="SOURCE", shell_complete=values.data)
@option(
    "--limit",
    group=DATA,
    type=numbers.IntRange(min=1),
    metavar="N",
    help="Check at most N images of each split, all classes alike.",
)
@option(
    "--task",
    group=DATA,
    type=click.Choice(["classification", "multilabel"]),
    default="classification",
    show_default=True,
    help="Whether an image has one label or several.",
)
@click.option(
    "--near/--no-near",
    default=None,
    show_default="--near where imagehash is installed",
    help="Look for near-duplicates too, or for exact ones alone.",
)
@option(
    "--page",
    group=OUTPUT,
    shell_complete=values.files(".html"),
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with the pictures to this file, which is replaced.",
)
@json_option
def check(source: str, limit: int | None, task: str, near: bool | None, page: Path | None, as_json: bool) -> int:
    """Look at every image of a data set for what spoils a training, the worst first.

    The command finds test and validation images that are training images too, and images with two labels. It also
    finds copies, unreadable files, unequal classes and odd files. What it finds of each image is kept, so that a
    second call is quick. The exit code is 1 if an image to train on is in another split.
    """
    from poolzoo.common import files
    from poolzoo.common.errors import EnvironmentProblem
    from poolzoo.data.check import look, open_source, run
    from poolzoo.data.source import cache_dir

    if page is not None:
        with _page_errors(page):  # before minutes of work
            files.require_replaceable(page)
            files.require_writable(page.absolute().parent)
    if near and not look.has_hashes():
        raise EnvironmentProblem("near-duplicates are found by imagehash, which is not installed", _INSTALL)
    opened = open_source.open_splits(source, limit, multilabel=task == "multilabel")
    found = run.check(
        opened.name, opened.splits, opened.classes, cache_dir(), near=look.has_hashes() if near is None else near
    )
    if near is None and not found.near:
        output.say(f"near-duplicates are not looked for: {_INSTALL}")
    if not (found.leaks or found.labels or found.unreadable or found.copies):
        output.say("there are no leaks, no copies and no unreadable files")
    if page is not None:
        from poolzoo.report import check_page

        with _page_errors(page):
            files.write_atomically(page, check_page.html(found, opened.splits))
        output.say(f"the pictures are in {page}")
    if as_json:
        output.emit_json(found.to_json())
    else:
        for key, text in lines(found):
            output.data(f"{key:11} {text}")
    return OK if found.passed else CHECK_FAILED


@contextmanager
def _page_errors(page: Path) -> Iterator[None]:
    """Within it, an error of the system is about the page."""
    from poolzoo.common.errors import EnvironmentProblem, reason

    try:
        yield
    except OSError as error:
        text = f"the page {page} cannot be written: {error.strerror or reason(error)}"
        raise EnvironmentProblem(text, "name another file with --page") from error


def lines(found: CheckReport) -> list[tuple[str, str]]:
    """What was found, a line each: what it is about, and the finding. The worst comes first."""
    from poolzoo.data.sizes import show

    report = []
    for name, facts in found.splits.items():
        if pairs := found.leaks_into(name):
            text = f"{len(pairs):,} of {facts.images:,} {name} images are among the training images too"
            report.append(("leakage", f"{text}: {_kinds(pairs)}; {_example(pairs)}"))
    if found.labels:
        many = len(found.labels)
        text = "1 pair of images of the same picture has" if many == 1 else f"{many:,} pairs of the same picture have"
        first = found.labels[0]
        shown = f"first {_shown(first)}, {first.first.label!r} and {first.second.label!r}"
        report.append(("labels", f"{text} different labels; {shown}"))
    if found.unreadable:
        total = sum(facts.images for facts in found.splits.values())
        first_bad = found.unreadable[0]
        text = f"{len(found.unreadable):,} of {total:,} images cannot be read"
        report.append(("unreadable", f"{text}, first {first_bad.image.name}: {first_bad.reason}"))
    if others := [pair for pair in found.leaks if pair.first.split != "train"]:
        first_name, second_name = others[0].first.split, others[0].second.split
        report.append(("overlap", f"{len(others):,} {second_name} images are in {first_name} too; {_example(others)}"))
    for name, facts in found.splits.items():
        if facts.copies:
            pairs = [pair for pair in found.copies if pair.first.split == name]
            text = f"{name}: {facts.copies:,} of {facts.images:,} images are copies of others"
            report.append(("copies", f"{text}; {_example(pairs)}"))
    for name, facts in found.splits.items():
        counts = facts.classes.values()
        text = f"{name}: {_count(facts.images, 'image')} in {_count(len(counts), 'class')} of {_range(counts)}"
        if facts.few:
            more = "" if len(facts.few) <= _NAMED else f" and {len(facts.few) - _NAMED:,} more"
            one = len(facts.few) == 1
            text += f"; {len(facts.few):,} {'class has' if one else 'classes have'} fewer than 5 images"
            text += f" ({', '.join(facts.few[:_NAMED])}{more})"
        report.append(("classes", text))
    for name, facts in found.splits.items():
        for odd in facts.odd:
            text = f"{name}: {odd.count:,} of {facts.images:,} images {odd.what}"
            report.append(("odd", f"{text}, first {odd.first[0].name}"))
    for name, facts in found.splits.items():
        if facts.sizes is not None:
            sizes = facts.sizes
            text = f"{show(sizes.smallest)} to {show(sizes.largest)}, median {show(sizes.median)}"
            text += f"; width : height {sizes.narrowest:.2f} to {sizes.widest:.2f}"
            report.append(("sizes", f"{name}: {text if sizes.distinct > 1 else 'all ' + show(sizes.largest)}"))
    for name, facts in found.splits.items():
        if facts.mean:
            mean, std = (" ".join(f"{value:.3f}" for value in values) for values in (facts.mean, facts.std))
            report.append(("channels", f"{name}: mean {mean}, standard deviation {std}"))
    return report


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def _range(counts: Collection[int]) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _kinds(pairs: list[Pair]) -> str:
    """`8 exactly, 4 nearly`."""
    counts = [sum(pair.kind == kind for pair in pairs) for kind in _SIGNS]
    words = ("exactly", "nearly", "mirrored")
    return ", ".join(f"{count:,} {word}" for count, word in zip(counts, words, strict=True) if count)


def _example(pairs: list[Pair]) -> str:
    return f"first {_shown(pairs[0])}"


def _shown(pair: Pair) -> str:
    return f"{pair.second.name} {_SIGNS[pair.kind]} {pair.first.name}"
