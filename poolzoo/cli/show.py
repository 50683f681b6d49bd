"""`poolzoo show`."""

from __future__ import annotations

from typing import Any

import click

from poolzoo import host, options, output, spec
from poolzoo.cli.options import json_option
from poolzoo.errors import UsageError


@click.command()
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show one pooling or backbone: its options with types and defaults, equation, paper and origin."""
    catalog = host.catalog()
    found = _find(catalog, name)
    if as_json:
        output.emit_json({"name": name, "items": found})
        return
    for index, facts in enumerate(found):
        if index:
            output.data("")
        for key, value in facts.items():
            if key == "options":
                listed = [f"{o['name']}={o['default']} ({o['type']})" for o in value]
                output.data(f"{key:10} {', '.join(listed) or 'none'}")
            elif key == "source":
                output.data(f"{'from':10} {value['dist']} {value['version'] or ''} ({value['tier']})")
            elif value not in ("", None):
                output.data(f"{key:10} {value}")


def _find(catalog: host.Catalog, name: str) -> list[dict[str, Any]]:
    spelt = options.parse_spec(name)
    found = []
    for entry in catalog.select(spec.Pooling):
        item = entry.item
        if isinstance(item, spec.Pooling) and item.name == spelt.name and spelt.dist in (None, entry.source.dist):
            resolved = catalog.pooling(name, item.kind)
            facts = {"name": item.name, "kind": f"{item.kind} pooling", "summary": item.summary}
            found.append({**facts, "equation": item.equation, "paper": item.paper, **_shared(resolved)})
    for entry in catalog.select((spec.Dataset, spec.BackboneFamily)):
        if entry.item.name == name and not isinstance(entry.item, spec.Pooling):
            kind = "data set" if isinstance(entry.item, spec.Dataset) else "family of backbones"
            facts = {"name": name, "kind": kind, "summary": entry.item.summary}
            found.append({**facts, "source": entry.source.to_json()})
    if found:
        return found
    try:
        resolved = catalog.backbone(name)
    except UsageError as error:
        names = [entry.item.name for entry in catalog.entries]
        raise UsageError(f"nothing is called {name!r}", options.suggest(spelt.name, names) or error.hint) from None
    item = resolved.item
    facts = {
        "name": item.name,
        "kind": "backbone",
        "summary": item.summary,
        "input": f"{item.input_size} pixels" if item.input_size else "any size",
        "mean": list(item.mean),
        "std": list(item.std),
        "license": item.license,
    }
    return [{**facts, **_shared(resolved)}]


def _shared(resolved: host.Resolved) -> dict[str, Any]:
    listed = [
        {"name": o.name, "default": options.plain(o.default), "type": o.type_name}
        for o in options.options_of(resolved.build)
    ]
    return {"options": listed, "source": resolved.entry.source.to_json()}
