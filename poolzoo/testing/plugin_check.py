"""`poolzoo plugin check`: loads one plugin alone and holds everything that it offers against the conformance kit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from poolzoo.common.errors import PoolzooError, UsageError, reason
from poolzoo.plugin import grammar, loader, spec
from poolzoo.plugin.catalog import Entry, Resolved, import_build
from poolzoo.plugin.discovery import Candidate, find
from poolzoo.plugin.health import health_of
from poolzoo.testing import backbones, datasets, poolings
from poolzoo.testing.base import Checks


def check_plugin(target: str, advance: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Checks one plugin.

    Args:
        target: The path of a plugin's file, or the name of an installed distribution.
        advance: Told what is being checked.

    Returns:
        `passed`, the `problems` of loading, and for each item its `checks`, each with what was `found`, what was
        `expected` and how to `mend` it where it did not pass.

    Raises:
        UsageError: There is no such file or plugin.
    """
    chosen = _candidates(target)
    catalog = loader.load([*find(installed=False), *chosen])
    loader.use(catalog)
    problems = [fault.to_json() for health in health_of(catalog, chosen) for fault in health.faults]
    names = {(c.source.dist, c.source.path) for c in chosen}
    items = []
    for entry in catalog.entries:
        if (entry.source.dist, entry.source.path) in names:
            checks = list(_check(entry, advance))
            items.append({"name": entry.item.name, "kind": _kind(entry.item), "checks": checks})
    passed = not problems and all(check["passed"] for item in items for check in item["checks"])
    return {"plugin": target, "passed": passed, "problems": problems, "items": items}


def _candidates(target: str) -> list[Candidate]:
    if Path(target).suffix == ".py" or Path(target).is_file():
        return [c for c in find([Path(target)], installed=False) if c.source.tier == "file"]
    found = [c for c in loader.candidates() if c.answers_to(target) and c.source.tier != "built-in"]
    if not found:
        names = sorted({c.source.dist for c in loader.candidates() if c.source.tier != "built-in"})
        listing = f"there are: {', '.join(names)}" if names else "give the path of a plugin's file"
        raise UsageError(f"no plugin is called {target!r}", grammar.suggest(target, names) or listing)
    return found


def _kind(item: object) -> str:
    if isinstance(item, spec.Pooling):
        return f"{item.kind} pooling"
    return {spec.Backbone: "backbone", spec.BackboneFamily: "family of backbones"}.get(type(item), "data set")


def _check(entry: Entry, advance: Callable[[str], None]) -> Any:
    """The outcome of each check of one item."""
    if isinstance(entry.item, spec.BackboneFamily):
        yield from _check_family(entry, entry.item)
        return
    checks: Checks
    subject: Any
    try:
        checks, subject = _subject(entry)
    except PoolzooError as error:
        yield _outcome("build", error.message, "build can be imported", error.hint)
        return
    for check in checks:
        advance(f"{entry.item.name}: {check.id}")
        failed = checks.failure(check, subject)
        if failed is None:
            yield {"check": check.id, "passed": True}
        else:
            yield _outcome(check.id, failed.found, failed.expected, failed.mend)


def _subject(entry: Entry) -> tuple[Checks, Any]:
    item = entry.item
    if isinstance(item, spec.Dataset):
        return datasets.checks, datasets.CheckedDataset(item)
    assert isinstance(item, spec.Pooling | spec.Backbone)
    make = import_build(item.build, item.name, entry.source)
    if isinstance(item, spec.Pooling):
        return poolings.checks, poolings.CheckedPooling(item, make, {})
    return backbones.checks, backbones.CheckedBackbone(Resolved(grammar.parse_spec(item.name), entry, make, {}))


def _check_family(entry: Entry, family: spec.BackboneFamily) -> Any:
    """A family lists names, and gives a backbone for one of them."""
    try:
        names = loader.catalog().family_names(entry)
        found = family.get(names[0]) if names else None
    except loader.Failure as error:
        yield _outcome("names_and_get", reason(error), _FAMILY, "mend names() or get()")
        return
    if isinstance(found, spec.Backbone):
        yield {"check": "names_and_get", "passed": True}
    else:
        yield _outcome(
            "names_and_get", f"{len(names)} names, get gives {found!r:.80}", _FAMILY, "mend names() or get()"
        )


_FAMILY = "names() gives at least one name, get(name) a Backbone for it"


def _outcome(check: str, found: str, expected: str, mend: str) -> dict[str, Any]:
    return {"check": check, "passed": False, "found": found, "expected": expected, "mend": mend}
