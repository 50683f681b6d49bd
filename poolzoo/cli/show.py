"""`poolzoo show`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from poolzoo.cli import values
from poolzoo.cli.groups import GroupedCommand
from poolzoo.cli.options import json_option
from poolzoo.common import output
from poolzoo.common.errors import UsageError, reason
from poolzoo.plugin import grammar, loader, spec
from poolzoo.train import recipes
from poolzoo.train.settings import flag

EXAMPLES: Final = (
    ("Show a pooling and its options", "poolzoo show gem"),
    ("Show what one of its options changes", "poolzoo show gem:p=4"),
    ("Show a backbone", "poolzoo show timm/resnet18"),
    ("Show a recipe or a protocol", "poolzoo show tune"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("name", shell_complete=values.anything)
@json_option
def command(name: str, as_json: bool) -> None:
    """Show one pooling, backbone, data set, runtime, recipe or protocol: its options, defaults and origin.

    For a pooling, the command also shows the equation and the paper. It measures the output features, the number of
    parameters, and the cost on one thread of this machine.
    """
    catalog = loader.catalog()
    found = _find(catalog, name)
    if as_json:
        output.emit_json({"name": name, "items": found})
        return
    for index, facts in enumerate(found):
        if index:
            output.data("")
        for key, value in facts.items():
            text = _WORDS.get(key, str)(value)
            if text:
                output.data(f"{_TITLES.get(key, key):10} {text}")


def _by_channels(counts: dict[int, int]) -> str:
    return ", ".join(f"{count:,} for {channels} channels" for channels, count in counts.items())


def _cost(cost: dict[str, Any]) -> str:
    from poolzoo.data.sizes import show

    shape = show(cost["map"])
    return (
        f"{cost['forward_ms']:.3g} ms on a {shape} map, {cost['passes_over_the_map']:.1f} times reading it once; "
        f"{cost['training_ms']:.3g} ms with gradients (one thread)"
    )


_KINDS = {
    spec.Dataset: "data set",
    spec.DatasetSource: "source of data",
    spec.BackboneFamily: "family of backbones",
    spec.Runtime: "runtime",
}
_TITLES = {
    "source": "from",
    "out_features": "output features",
    "backbone_sha256": "weights",
    "differing_images": "images that may differ, evaluated elsewhere",
    "state_tolerance": "tolerance of weights, trained elsewhere",
}
_WORDS: dict[str, Callable[[Any], str]] = {
    "options": lambda listed: ", ".join(f"{o['name']}={o['default']} ({o['type']})" for o in listed) or "none",
    "source": lambda source: f"{source['dist']} {source['version'] or ''} ({source['tier']})",
    "settings": lambda settings: ", ".join(f"{flag(key)} {value}" for key, value in settings.items()) or "the defaults",
    "out_features": _by_channels,
    "parameters": lambda counts: _by_channels(counts) if any(counts.values()) else "none",
    "cost": _cost,
    "free": lambda name: f"{flag(name)} NAME",
    "metrics": ", ".join,
    "backbone_sha256": lambda digest: f"sha256 {digest}" if digest else "",
    "data": lambda data: f"{data['source']}, {data['test']['images']:,} test images; {data['obtain']}",
    "versions": lambda pins: ", ".join(f"{package} {pin['required']}" for package, pin in pins.items()),
    "training": lambda differs: "draws at random; eval is fixed" if differs else "",
}


def _find(catalog: loader.Catalog, name: str) -> list[dict[str, object]]:
    name = name.removesuffix(":")  # of a source, as `list datasets` has it
    spelled = grammar.parse_spec(name)
    found: list[dict[str, object]] = []
    facts: dict[str, object]
    for entry in catalog.select(spec.Pooling):
        item = entry.item
        if isinstance(item, spec.Pooling) and item.name == spelled.name and catalog.matches(spelled.dist, entry.source):
            resolved = catalog.pooling(name, item.kind)
            facts = {"name": item.name, "kind": f"{item.kind} pooling", "summary": item.summary}
            facts |= {"equation": item.equation, "paper": item.paper or "no canonical one"}
            found.append({**facts, **_measured(resolved), "training": item.stochastic, **_shared(resolved)})
    for entry in catalog.select((spec.Dataset, spec.DatasetSource, spec.BackboneFamily, spec.Runtime)):
        if name in (entry.item.name, _prefix(entry.item)) and not isinstance(entry.item, spec.Pooling):
            facts = {"name": entry.item.name, "kind": _KINDS[type(entry.item)], "summary": entry.item.summary}
            if isinstance(entry.item, spec.DatasetSource):
                facts |= _source_facts(entry.item)
            if isinstance(entry.item, spec.Runtime):
                from poolzoo.runtime import availability

                facts |= {
                    "version": availability.find(entry.item).describe(entry.item),
                    "devices": " ".join(entry.item.devices),
                }
            found.append({**facts, "source": entry.source.to_json()})
    if (recipe := recipes.find_recipe(name)) is not None:
        facts = {"name": recipe.name, "kind": "recipe of finetune", "summary": recipe.summary}
        found.append({**facts, "settings": recipe.settings})
    if (pinned := _protocol_facts(name)) is not None:
        found.append(pinned)
    if found:
        return found
    try:
        resolved = catalog.backbone(name)
    except UsageError as error:
        names = [entry.item.name for entry in catalog.entries]
        near = grammar.suggest(spelled.name, names)
        raise UsageError(f"nothing is called {name!r}", catalog.with_problems(near) if near else error.hint) from None
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


def _protocol_facts(name: str) -> dict[str, object] | None:
    """What a protocol pins, for a name or a path; None where there is none."""
    from poolzoo.compare.board import protocol, protocol_names

    if name not in protocol_names() and not name.endswith(".toml"):
        return None
    found = protocol.find(name)
    return {"name": found.name, "kind": "protocol of compare", **found.to_json()}


def _prefix(item: object) -> str | None:
    return item.prefix if isinstance(item, spec.DatasetSource) else None


def _source_facts(source: spec.DatasetSource) -> dict[str, object]:
    """What to type for a source of data, and what it needs."""
    from poolzoo.plugin.modules import missing_of

    missing = missing_of(source.modules)
    needs = ", ".join(source.modules) + (f" (not installed: {source.install})" if missing else "")
    return {"example": f"--data {source.example}" if source.example else "", "needs": needs}


def _measured(resolved: loader.Resolved) -> dict[str, object]:
    """Width, parameters and cost of a pooling, or a warning and nothing where it cannot be built."""
    from poolzoo.model import cost

    try:
        return {**cost.layer_size(resolved).to_json(), "cost": cost.layer_cost(resolved).to_json()}
    except loader.Failure as error:
        output.warn(f"{resolved.item.name} cannot be measured: {reason(error)}")
        return {}


def _shared(resolved: loader.Resolved) -> dict[str, object]:
    listed = [
        {"name": o.name, "default": grammar.plain(o.default), "type": o.type_name}
        for o in grammar.options_of(resolved.build)
    ]
    return {"options": listed, "source": resolved.entry.source.to_json()}
