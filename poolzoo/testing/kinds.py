"""The kinds of items that plugins provide, and which checks each has. This is the list of all ids."""

from __future__ import annotations

from typing import Any, Final

from poolzoo.plugin import grammar, spec
from poolzoo.plugin.catalog import Entry, Resolved
from poolzoo.plugin.imports import import_build
from poolzoo.testing import backbones, datasets, indexed_datasets, poolings, runtimes
from poolzoo.testing.base import Check, Checks
from poolzoo.testing.checked_pooling import CheckedPooling
from poolzoo.testing.families import CheckedFamily, CheckedSource, family_checks, source_checks

build_checks = Checks[Entry]()


@build_checks.promise("fix the string, or install what the module needs")
def build(entry: Entry) -> None:
    """A build that is given as a string can be imported. It is listed only where it fails."""
    item = entry.item
    if isinstance(item, spec.Pooling | spec.Backbone):
        import_build(item.build, item.name, entry.source)


CHECKS: Final[dict[str, Checks[Any]]] = {
    "pooling": poolings.checks,
    "backbone": backbones.checks,
    "family of backbones": family_checks,
    "data set": datasets.checks,
    "data set of encoded images": indexed_datasets.checks,
    "source of data": source_checks,
    "runtime": runtimes.checks,
    "any item": build_checks,
}


def all_ids() -> list[str]:
    """The ids of all checks, each once."""
    return list(dict.fromkeys(check.id for checks in CHECKS.values() for check in checks))


def all_checks() -> list[tuple[str, Check[Any]]]:
    """Every check with its kind."""
    return [(kind, check) for kind, checks in CHECKS.items() for check in checks]


def kind_of(item: object) -> str:
    """What an item is, in words."""
    if isinstance(item, spec.Pooling):
        return f"{item.kind} pooling"
    if isinstance(item, spec.Backbone):
        return "backbone"
    if isinstance(item, spec.Runtime):
        return "runtime"
    if isinstance(item, spec.DatasetSource):
        return "source of data"
    return "family of backbones" if isinstance(item, spec.BackboneFamily) else "data set"


def checks_of(entry: Entry) -> tuple[Checks[Any], object]:
    """The checks for an item, and the item as they take it.

    Raises:
        PoolzooError: Its build cannot be imported.
    """
    item = entry.item
    if isinstance(item, spec.Dataset):
        return datasets.checks_of(item)
    if isinstance(item, spec.Runtime):
        return runtimes.checks, runtimes.CheckedRuntime(entry)
    if isinstance(item, spec.BackboneFamily):
        return family_checks, CheckedFamily(entry, item)
    if isinstance(item, spec.DatasetSource):
        return source_checks, CheckedSource(entry, item)
    assert isinstance(item, spec.Pooling | spec.Backbone)
    make = import_build(item.build, item.name, entry.source)
    if isinstance(item, spec.Pooling):
        return poolings.checks, CheckedPooling(item, make, {})
    return backbones.checks, backbones.CheckedBackbone(Resolved(grammar.parse_spec(item.name), entry, make, {}))
