"""Names of the poolings and backbones that there are. Needs no torch."""

from __future__ import annotations

from poolzoo.plugin import loader, spec


def list_poolings(filter: str | None = None, kind: spec.Kind | None = None) -> list[str]:
    """The names of the poolings, those that match the glob `filter`, of one kind or of both, each once."""
    items = [entry.item for entry in loader.catalog().select(spec.Pooling, filter)]
    return sorted({i.name for i in items if isinstance(i, spec.Pooling) and kind in (None, i.kind)})


def list_backbones(filter: str | None = None) -> list[str]:
    """The names of the backbones: ours, and those of the families (which may import timm or torchvision)."""
    return sorted(name for name, _, _ in backbone_rows(filter or "*"))


def backbone_rows(filter: str) -> list[tuple[str, str, loader.Source]]:
    """Name, summary and source of every backbone whose name matches the glob `filter`."""
    import fnmatch

    catalog = loader.catalog()
    rows = [
        (e.item.name, e.item.summary, e.source)
        for e in catalog.select(spec.Backbone, filter)
        if isinstance(e.item, spec.Backbone)
    ]
    head = filter.split("/")[0] if "/" in filter else "*"
    for entry in catalog.select(spec.BackboneFamily):
        family = entry.item
        assert isinstance(family, spec.BackboneFamily)
        if fnmatch.fnmatchcase(family.prefix, head):
            names = {f"{family.prefix}/{name}": f"{family.prefix}'s {name}" for name in catalog.family_names(entry)}
            rows += [(name, names[name], entry.source) for name in fnmatch.filter(names, filter)]
    return rows
