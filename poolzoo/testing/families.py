"""What every family of backbones promises, and every source of data, as checks."""

from __future__ import annotations

from dataclasses import dataclass

from poolzoo.common.errors import PoolzooError
from poolzoo.plugin import loader
from poolzoo.plugin.catalog import Entry
from poolzoo.plugin.imports import import_build
from poolzoo.plugin.modules import missing_of
from poolzoo.plugin.spec import Backbone, BackboneFamily, DatasetSource
from poolzoo.testing.base import Checks


@dataclass(frozen=True)
class CheckedFamily:
    """A family of backbones under test; `entry` is where it comes from."""

    entry: Entry
    family: BackboneFamily


@dataclass(frozen=True)
class CheckedSource:
    """A source of data under test; `entry` is where it comes from."""

    entry: Entry
    source: DatasetSource


family_checks = Checks[CheckedFamily]()
source_checks = Checks[CheckedSource]()


@family_checks.promise("fix names() or get()")
def names_and_get(checked: CheckedFamily) -> None:
    """`names()` gives at least one name, and `get(name)` a `Backbone` for it."""
    names = loader.catalog().family_names(checked.entry)
    provided = checked.family.get(names[0]) if names else None
    assert isinstance(provided, Backbone), f"{len(names)} names, get gives {provided!r:.80}"


@source_checks.promise("fix open(); check data sets that it gives with poolzoo.testing.check_dataset", id="open")
def absent_places_are_refused(checked: CheckedSource) -> None:
    """`open` raises `poolzoo.UsageError` where there is no such place, and what it needs is installed."""
    source = checked.source
    missing = missing_of(source.modules)
    assert not missing, f"{', '.join(missing)} is not installed; {source.install}"
    open_source = import_build(source.open, source.name, checked.entry.source, "open")
    try:
        given = open_source("no/such/place", splits=("train", "test", "val"), multilabel=False)
    except PoolzooError:
        return
    raise AssertionError(f"open('no/such/place') gives {given!r:.80}")
