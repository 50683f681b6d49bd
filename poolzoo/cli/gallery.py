"""`poolzoo gallery`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from poolzoo.cli import values
from poolzoo.cli.groups import OUTPUT, GroupedCommand, option
from poolzoo.cli.options import json_option
from poolzoo.common import files, output
from poolzoo.common.errors import UsageError

NAME: Final = Path("gallery.html")


EXAMPLES: Final = (
    ("Write gallery.html, with a photograph that comes with scikit-learn", "poolzoo gallery"),
    ("Show a photograph of your own", "poolzoo gallery photo.jpg --out photo.html"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument(
    "image", metavar="[IMAGE]", required=False, type=click.Path(path_type=Path), shell_complete=values.files()
)
@option(
    "--out",
    group=OUTPUT,
    shell_complete=values.files(".html"),
    type=click.Path(path_type=Path),
    metavar="FILE",
    default=NAME,
    show_default=True,
    help="HTML page to write; it must not exist.",
)
@json_option
def command(image: Path | None, out: Path, as_json: bool) -> None:
    """Write one HTML page that shows what every pooling does to a photograph.

    IMAGE is the photograph; the default is one that scikit-learn ships. For a local pooling, the page shows its output
    and what changes in it when the photograph moves by one pixel. For a global pooling, it shows the weight of each
    spatial location. Each card also gives the equation, the paper and the measurements.
    """
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{str(out.parent)!r} is no directory", "make it first, or choose another --out")
    files.require_free(out)
    from poolzoo.report.gallery import cards, page, photograph

    shown = photograph.read(image) if image is not None else photograph.shipped()
    all_cards = cards.cards(shown.pixels)
    content = page.html(shown, all_cards)
    files.require_free(out)
    files.write_atomically(out, content)
    if failed := [card.item.name for card in all_cards if card.failed]:
        text = f"{len(failed)} of {len(all_cards)} poolings show nothing: {', '.join(failed)}"
        output.warn(text, "their cards show the error")
    if as_json:
        found = [card.to_json() for card in all_cards]
        output.emit_json({"gallery": str(out), "photograph": shown.credit, "poolings": found})
    else:
        output.data(str(out))
