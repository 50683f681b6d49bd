"""The check of who provided each pooling: poolzoo itself, or one plugin file that is named by its sha256."""

from __future__ import annotations

import re
from typing import Final

from poolzoo.common import json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.compare import grid
from poolzoo.compare.board.checks.context import Context
from poolzoo.plugin import loader
from poolzoo.plugin.grammar import parse_spec

OWN: Final = ("poolzoo", None)  # distributions of built-in poolings in a spec


def plugins_check(context: Context) -> str:
    """Who provided each pooling: built-in ones are, the others come from one plugin file each, named by its digest."""
    found = []
    for name in context.chosen:
        if name == grid.NONE:
            continue
        digests: dict[str, str] = {}
        for seed in context.protocol.seed_range:
            run = context.by_trial[name, seed]
            source = run.plugin(context.protocol.free)
            if source.get("tier") == "built-in":
                if parse_spec(name).dist not in OWN or not _is_built_in(context, name):
                    raise CheckFailed(f"{run.name}: {name} is no built-in pooling")
                continue
            digest = json_reader.text(source.get("sha256"))
            if digest is None or not re.fullmatch("[0-9a-f]{64}", digest):
                raise CheckFailed(f"{run.name}: config.json does not name the plugin file of {name} by its sha256")
            digests.setdefault(digest, run.name)
        if name == context.protocol.baseline and digests:
            raise CheckFailed(f"the baseline {name} comes from a plugin")
        if len(digests) > 1:
            raise CheckFailed(f"{name} comes from two versions of a plugin: {' and '.join(digests.values())}")
        for digest in digests:
            loaded = _loaded_sha256(context, name)
            if loaded is not None and loaded != digest:
                raise CheckFailed(f"the plugin of {name} here has sha256 {loaded[:12]}…, the runs' {digest[:12]}…")
            state = "loaded here" if loaded else "not loaded"
            found.append(f"{name} from a file with sha256 {digest[:12]}…, {state}")
    return "; ".join(found) or "all poolings are built in"


def _is_built_in(context: Context, name: str) -> bool:
    kind = context.protocol.kind
    wanted = parse_spec(name).name
    return any(
        entry.source.tier == "built-in" and entry.item.name == wanted and getattr(entry.item, "kind", None) == kind
        for entry in loader.catalog().entries
    )


def _loaded_sha256(context: Context, name: str) -> str | None:
    """The digest of the plugin that provides a pooling here; None where none does."""
    if not context.is_known(name):
        return None
    spec = parse_spec(name)
    text = f"{spec.dist}:{spec.name}" if spec.dist else spec.name
    resolved = loader.catalog().pooling(text, context.protocol.kind)
    return resolved.entry.source.sha256()
