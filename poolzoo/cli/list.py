"""`poolzoo list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from poolzoo.cli.groups import GroupedCommand
from poolzoo.cli.options import json_option
from poolzoo.common import output
from poolzoo.compare import board
from poolzoo.plugin import loader, spec

if TYPE_CHECKING:
    from poolzoo.runtime.availability import Availability


class _Row(NamedTuple):
    """What is listed of one name: a pooling with its kinds, a backbone, a family, a data set or a runtime."""

    name: str
    summary: str
    source: loader.Source
    kinds: tuple[str, ...] = ()
    runtime: spec.Runtime | None = None
    availability: Availability | None = None
    dataset_source: spec.DatasetSource | None = None
    missing: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        return f"{self.source.dist} {self.source.version or f'({self.source.tier})'}"

    def to_json(self) -> dict[str, object]:
        row: dict[str, object] = {"name": self.name, "summary": self.summary, "source": self.source.to_json()}
        if self.kinds:
            row["kinds"] = list(self.kinds)
        if (source := self.dataset_source) is not None:
            row |= {
                "example": source.example,
                "installed": not self.missing,
                "missing": list(self.missing),
                "install": source.install,
            }
        if self.runtime is not None and self.availability is not None:
            row |= {
                "devices": list(self.runtime.devices),
                "installed": self.availability.installed,
                "versions": self.availability.versions,
                "missing": list(self.availability.missing),
                "install": self.runtime.install,
            }
        return row

    @property
    def devices(self) -> str:
        return " ".join(self.runtime.devices) if self.runtime is not None else ""

    @property
    def usage(self) -> str:
        """What to type for a data set, or for one of a source; where that is not installed, how to get it."""
        if (source := self.dataset_source) is None:
            return self.name
        if self.missing:
            return f"not installed: {source.install or ', '.join(self.missing)}"
        return source.example or source.name

    @property
    def version(self) -> str:
        """The version of a runtime that is installed; of another one, how to get it."""
        if self.availability is None or self.runtime is None:
            return ""
        return self.availability.describe(self.runtime)


EXAMPLES: Final = (
    ("List the poolings", "poolzoo list"),
    ("List backbones of timm by a pattern", "poolzoo list backbones --filter 'timm/resnet*'"),
    ("List runtimes, and how to get those that are missing", "poolzoo list runtimes"),
    ("List everything that a plugin file adds, as JSON", "poolzoo list --plugin mine.py --json"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument(
    "what", type=click.Choice(["poolings", "backbones", "datasets", "runtimes", "protocols"]), required=False
)
@click.option("--filter", "pattern", metavar="GLOB", help="List only names that match, such as 'timm/resnet*'.")
@json_option
def command(what: str | None, pattern: str | None, as_json: bool) -> None:
    """List poolings, backbones, data sets and runtimes with the plugin that provides each, and protocols.

    Without an argument, the command lists the poolings and names the rest. `backbones` shows one row for each family;
    with --filter it lists the members of the families too. `datasets` also shows the sources of data of your own.
    `datasets` and `runtimes` show what is not installed and how to get it. `protocols` are for compare --protocol.
    """
    catalog = loader.catalog()
    listed = what or "poolings"
    rows = _LISTS[listed](catalog, pattern)
    if as_json:
        problems = [problem.to_json() for problem in catalog.problems]
        output.emit_json({listed: [row.to_json() for row in rows], "problems": problems})
        return
    if listed == "poolings":
        cells: list[Sequence[str]] = [(row.name, " ".join(row.kinds), row.summary, row.origin) for row in rows]
        output.table(("pooling", "kinds", "what it does", "from"), cells)
    elif listed == "runtimes":
        cells = [(row.name, row.summary, row.devices, row.version, row.origin) for row in rows]
        output.table(("runtime", "what it is", "devices", "version", "from"), cells)
    elif listed == "datasets":
        cells = [(row.name, row.summary, row.usage, row.origin) for row in rows]
        output.table(("dataset", "what it is", "--data", "from"), cells)
    else:
        output.table((listed[:-1], "what it is", "from"), [(row.name, row.summary, row.origin) for row in rows])
    if what is None:
        backbones, datasets = _backbones(catalog, None), _datasets(catalog, None)
        output.data("")
        output.data(f"backbones: {', '.join(row.name for row in backbones)} (poolzoo list backbones)")
        output.data(f"data sets: {', '.join(row.name for row in datasets)} (poolzoo list datasets)")
        runtimes = [entry.item.name for entry in catalog.select(spec.Runtime)]
        output.data(f"runtimes: {', '.join(runtimes)} (poolzoo list runtimes)")
        output.data(f"protocols: {', '.join(board.protocol_names())} (poolzoo list protocols)")


def _poolings(catalog: loader.Catalog, pattern: str | None) -> list[_Row]:
    """A row for each name and provider, with the kinds that it comes in."""
    found: dict[tuple[str, str], list[loader.Entry]] = {}
    for entry in catalog.select(spec.Pooling, pattern):
        found.setdefault((entry.item.name, entry.source.dist), []).append(entry)
    rows = []
    for entries in found.values():
        kinds = tuple(entry.item.kind for entry in entries if isinstance(entry.item, spec.Pooling))
        rows.append(_Row(entries[0].item.name, entries[0].item.summary, entries[0].source, kinds))
    return rows


def _backbones(catalog: loader.Catalog, pattern: str | None) -> list[_Row]:
    if pattern is not None:
        from poolzoo.plugin.listing import backbone_rows

        return [_Row(name, summary, source) for name, summary, source in backbone_rows(pattern)]
    return [_row(entry) for entry in catalog.select((spec.Backbone, spec.BackboneFamily))]


def _datasets(catalog: loader.Catalog, pattern: str | None) -> list[_Row]:
    from poolzoo.plugin.modules import missing_of

    rows = []
    for entry in catalog.select((spec.Dataset, spec.DatasetSource), pattern):
        row, item = _row(entry), entry.item
        if isinstance(item, spec.DatasetSource):
            row = row._replace(dataset_source=item, missing=missing_of(item.modules))
        rows.append(row)
    return rows


def _runtimes(catalog: loader.Catalog, pattern: str | None) -> list[_Row]:
    from poolzoo.runtime.availability import find

    found = [(entry, entry.item) for entry in catalog.select(spec.Runtime, pattern)]
    return [
        _row(entry)._replace(runtime=item, availability=find(item))
        for entry, item in found
        if isinstance(item, spec.Runtime)
    ]


def _protocols(catalog: loader.Catalog, pattern: str | None) -> list[_Row]:
    from fnmatch import fnmatchcase

    from poolzoo.compare.board import protocol

    source = next(entry.source for entry in catalog.entries if entry.source.tier == "built-in")
    names = [name for name in board.protocol_names() if fnmatchcase(name, pattern or "*")]
    return [_Row(name, protocol.find(name).question, source) for name in names]


_LISTS: Final = {
    "poolings": _poolings,
    "backbones": _backbones,
    "datasets": _datasets,
    "runtimes": _runtimes,
    "protocols": _protocols,
}


def _row(entry: loader.Entry) -> _Row:
    return _Row(entry.item.name, entry.item.summary, entry.source)
