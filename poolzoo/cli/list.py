"""`poolzoo list`."""

from __future__ import annotations

from typing import Any

import click

from poolzoo.cli.options import json_option
from poolzoo.common import output
from poolzoo.plugin import loader, spec


@click.command()
@click.argument("what", type=click.Choice(["poolings", "backbones", "datasets"]), required=False)
@click.option("--filter", "pattern", metavar="GLOB", help="List only names that match, such as 'timm/resnet*'.")
@json_option
def command(what: str | None, pattern: str | None, as_json: bool) -> None:
    """List poolings, backbones and data sets with the plugin that provides each.

    Without an argument, the command lists the poolings and names the rest. `backbones` shows one row for each family;
    with --filter it lists the members of the families too.
    """
    catalog = loader.catalog()
    rows = {"poolings": _poolings, "backbones": _backbones, "datasets": _datasets}[what or "poolings"](catalog, pattern)
    if as_json:
        output.emit_json({what or "poolings": rows, "problems": [problem.to_json() for problem in catalog.problems]})
        return
    cells = [(r["name"], " ".join(r.get("kinds", [])), r["summary"], _origin(r["source"])) for r in rows]
    if (what or "poolings") == "poolings":
        output.table(("pooling", "kinds", "what it does", "from"), cells)
    else:
        output.table(
            ((what or "")[:-1], "what it is", "from"), [(name, summary, origin) for name, _, summary, origin in cells]
        )
    if what is None:
        backbones, datasets = _backbones(catalog, None), _datasets(catalog, None)
        output.data("")
        output.data(f"backbones: {', '.join(row['name'] for row in backbones)} (poolzoo list backbones)")
        output.data(f"data sets: {', '.join(row['name'] for row in datasets)}, folder:PATH (poolzoo list datasets)")


def _origin(source: dict[str, Any]) -> str:
    return f"{source['dist']} {source['version']}" if source["version"] else f"{source['dist']} ({source['tier']})"


def _row(name: str, summary: str, source: loader.Source) -> dict[str, Any]:
    return {"name": name, "summary": summary, "source": source.to_json()}


def _poolings(catalog: loader.Catalog, pattern: str | None) -> list[dict[str, Any]]:
    """A row a name and provider, with the kinds that it comes in."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in catalog.select(spec.Pooling, pattern):
        assert isinstance(entry.item, spec.Pooling)
        row = rows.setdefault(
            (entry.item.name, entry.source.dist),
            {**_row(entry.item.name, entry.item.summary, entry.source), "kinds": []},
        )
        row["kinds"].append(entry.item.kind)
    return list(rows.values())


def _backbones(catalog: loader.Catalog, pattern: str | None) -> list[dict[str, Any]]:
    if pattern is not None:
        from poolzoo.plugin.listing import backbone_rows

        return [_row(*row) for row in backbone_rows(pattern)]
    entries = catalog.select((spec.Backbone, spec.BackboneFamily))
    return [_row(e.item.name, e.item.summary, e.source) for e in entries if not isinstance(e.item, spec.Pooling)]


def _datasets(catalog: loader.Catalog, pattern: str | None) -> list[dict[str, Any]]:
    return [_row(e.item.name, getattr(e.item, "summary", ""), e.source) for e in catalog.select(spec.Dataset, pattern)]
