"""The values of options and arguments, for a shell that completes them: one function for each kind, all without torch.

Each takes what click gives: the context, the parameter, and the word that was begun. It returns whole words.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from poolzoo.common.text import one_line
from poolzoo.plugin.signatures import Written, written_options

Item = CompletionItem
Values = Callable[[click.Context, click.Parameter, str], list[Item]]
MOST_ENTRIES: Final = 20_000  # of a directory that are looked at
LONGEST_HELP: Final = 80  # characters beside a value
GEOMETRY: Final = (Written("window", ""), Written("stride", ""), Written("padding", ""))  # of every local pooling

# The file that only such a directory has.
RUN, BUNDLE, COMPARISON, CHOICE, PREDICTION = "run.toml", "model.onnx", "plan.json", "choose.json", "predict.json"
# Where commands write such directories unless they are given --out.
USUAL: Final = {RUN: "runs", BUNDLE: "exports", COMPARISON: "comparisons", CHOICE: "choices"}


def item(value: str, help: object = "") -> Item:
    """A value with a short text; what a plugin or a file name has in it is made visible."""
    return CompletionItem(value, help=one_line(str(help), LONGEST_HELP) or None)


def begun(incomplete: str, items: Iterable[Item]) -> list[Item]:
    """Those that begin with a word."""
    return [one for one in items if one.value.startswith(incomplete)]


def fixed(*values: str) -> Values:
    """A function for a few words; one that ends in `:` or `=` has more to come."""
    return lambda context, parameter, incomplete: begun(incomplete, map(item, values))


def several(single: Values) -> Values:
    """A function for words with commas between them, each once."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
        before, comma, last = incomplete.rpartition(",")
        given = before.split(",")
        found = (one for one in single(context, parameter, last) if one.value not in given)
        return [CompletionItem(f"{before}{comma}{one.value}", help=one.help) for one in found]

    return complete


# --- Names from the catalog -------------------------------------------------------------------------------------------


def _entries(*kinds: str) -> Iterator[Any]:
    from poolzoo.plugin import loader, spec

    yield from loader.catalog().select(tuple(getattr(spec, kind) for kind in kinds))


def _with_options(incomplete: str, found: Sequence[tuple[str, str, Any]], more: Sequence[Written] = ()) -> list[Item]:
    """`gem`, then the options behind `gem:`.

    Args:
        incomplete: The word that was begun.
        found: Name, summary and build of each.
        more: Options that all of them have besides.
    """

    name, colon, typed = incomplete.partition(":")
    if not colon:
        names = begun(incomplete, (item(known, text) for known, text, _ in found))
        exact = [one for one in found if one[0] == incomplete and written_options(one[2])]
        return names + [item(f"{incomplete}:", "its options") for _ in exact[:1]]
    before, comma, last = typed.rpartition(",")
    head = f"{name}:{before}{comma}"
    key, equals, _ = last.partition("=")
    builds = [build for known, _, build in found if known == name]
    options = {one.name: one for build in builds for one in (*written_options(build), *(more if builds else ()))}
    if equals:
        if key not in options:
            return []
        one = options[key]
        values = one.choices or ((one.default,) if one.default else ())
        return begun(incomplete, (item(f"{head}{key}={value}") for value in values))
    given = {part.partition("=")[0] for part in before.split(",")}
    keys = (
        item(f"{head}{one.name}=", one.default and f"default {one.default}")
        for one in options.values()
        if one.name not in given
    )
    return begun(incomplete, keys)


def _poolings(kind: str, incomplete: str, more: Iterable[str] = ()) -> list[Item]:
    found = [(e.item.name, e.item.summary, e.item.build) for e in _entries("Pooling") if e.item.kind == kind]
    found += [(word, "", lambda: None) for word in more]
    return _with_options(incomplete, found, GEOMETRY if kind == "local" else ())


def global_pooling(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """One global pooling with its options."""
    return _poolings("global", incomplete)


def local_pooling(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """One local pooling with its options."""
    return _poolings("local", incomplete)


def poolings(kind: str, *more: str) -> Values:
    """A function for several poolings; behind a comma stands another one, or another option of the last."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
        parts = incomplete.split(",")
        start = max((at for at, part in enumerate(parts) if ":" in part), default=len(parts) - 1)
        found: list[Item] = []
        for at in dict.fromkeys((start, len(parts) - 1)):  # the last one's options, then another name
            before, piece = ",".join(parts[:at]), ",".join(parts[at:])
            if at != start and "=" in piece:
                continue
            given = [part.partition(":")[0] for part in parts[:-1]]
            for one in _poolings(kind, piece, more):
                if one.value not in given:
                    found.append(CompletionItem(f"{before}{',' if before else ''}{one.value}", help=one.help))
        return found

    return complete


def backbone(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """A backbone; the models of a family once its prefix stands there, or once they are begun without it."""
    from poolzoo.backbones import registered

    own = [(e.item.name, e.item.summary, e.item.build) for e in _entries("Backbone")]
    found = _with_options(incomplete, own)
    for entry in _entries("BackboneFamily"):
        prefix = entry.item.prefix
        head = f"{prefix}/"
        if not incomplete.startswith(head):
            found += begun(incomplete, [item(head, entry.item.summary)])
        elif prefix in registered.FAMILIES and entry.source.tier == "built-in":
            found += begun(incomplete, (item(f"{head}{name}") for name in registered.model_names(prefix)))
    if incomplete and not found:  # the prefix of timm may be left out
        found = begun(incomplete, map(item, registered.model_names("timm")))
    return found


def runtime(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """A runtime."""
    return begun(incomplete, (item(e.item.name, e.item.summary) for e in _entries("Runtime")))


def runtime_or(*words: str) -> Values:
    """A function for a runtime or one of a few words."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
        return begun(incomplete, map(item, words)) + runtime(context, parameter, incomplete)

    return complete


def data(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """A data set, or a source such as `folder:`, and the paths behind it."""
    kind, colon, place = incomplete.partition(":")
    if not colon:
        names = (item(e.item.name, e.item.summary) for e in _entries("Dataset", "DatasetSource"))
        return begun(incomplete, names)
    source = next((e.item for e in _entries("DatasetSource") if e.item.prefix == kind), None)
    if source is None or not source.is_path:
        return []
    return [CompletionItem(f"{kind}:{one.value}") for one in _paths(place, folders=kind == "folder")]


def protocol(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """A built-in protocol, or a TOML file."""
    from poolzoo.compare.board import protocol_names

    return begun(incomplete, map(item, protocol_names())) + _paths(incomplete, endings=(".toml",))


def optimizer(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """An optimizer of timm."""
    from poolzoo.backbones import registered

    return begun(incomplete, map(item, registered.optimizer_names()))


def anything(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """Whatever `poolzoo show` knows."""
    from poolzoo.compare.board import protocol_names
    from poolzoo.train.recipes import RECIPES

    found = {one.value: one for one in (*_poolings("global", incomplete), *_poolings("local", incomplete))}
    more = (item(e.item.name, e.item.summary) for e in _entries("Dataset", "DatasetSource", "Runtime"))
    named = (*more, *(item(one.name, one.summary) for one in RECIPES), *map(item, protocol_names()))
    return [*found.values(), *begun(incomplete, named), *backbone(context, parameter, incomplete)]


def plugin(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """A plugin that can be disabled; none is imported for that."""
    from poolzoo.plugin import loader

    found = {one.name: one.source.dist for one in loader.candidates() if one.source.tier != "built-in"}
    return begun(incomplete, (item(name, dist) for name, dist in found.items()))


def disabled_plugin(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """A plugin that is disabled."""
    from poolzoo.plugin import disabled

    return begun(incomplete, map(item, disabled.read()))


def distribution(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """The distribution of a plugin."""
    from poolzoo.plugin import loader

    found = dict.fromkeys(one.source.dist for one in loader.candidates() if one.source.tier != "built-in")
    return begun(incomplete, map(item, found))


# --- Paths ------------------------------------------------------------------------------------------------------------


def _paths(
    incomplete: str, *, folders: bool = False, endings: tuple[str, ...] = (), marker: str | None = None
) -> list[Item]:
    """The entries of a directory that a path begins to name; a directory ends in `/`, as it has more to come.

    Args:
        incomplete: The path that was begun.
        folders: Whether only directories count.
        endings: Of files that count; all without any.
        marker: The file that makes a directory whole: it ends in no `/`, and no file counts.
    """
    parent, partial_name = os.path.split(incomplete)
    found = []
    try:
        with os.scandir(os.path.expanduser(parent) or ".") as entries:
            for entry in islice(entries, MOST_ENTRIES):
                name = entry.name
                if not name.startswith(partial_name) or not name.isprintable():
                    continue
                if name.startswith(".") and not partial_name.startswith("."):
                    continue
                path = os.path.join(parent, name)
                if entry.is_dir():
                    whole = marker is not None and os.path.exists(os.path.join(entry.path, marker))
                    found.append(path if whole else f"{path}/")
                elif not folders and marker is None and name.endswith(endings or ("",)):
                    found.append(path)
    except OSError:  # there is no such directory
        return []
    return [item(path) for path in sorted(found)]


def _directories(marker: str, incomplete: str) -> list[Item]:
    usual = USUAL.get(marker)
    first = _paths(f"{usual}/", marker=marker) if usual and not incomplete else []
    return [one for one in first if not one.value.endswith("/")] + _paths(incomplete, marker=marker)


def directory(*markers: str) -> Values:
    """A function for directories with one of these files, such as runs."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
        found = {one.value: one for marker in markers for one in _directories(marker, incomplete)}
        return [one for value, one in found.items() if not (value.endswith("/") and value[:-1] in found)]

    return complete


def files(*endings: str, markers: tuple[str, ...] = ()) -> Values:
    """A function for files with one of these endings, any without one, or directories with one of these files."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
        found = {one.value: one for one in directory(*markers)(context, parameter, incomplete)} if markers else {}
        for one in _paths(incomplete, endings=endings):
            if one.value.removesuffix("/") not in found:
                found[one.value] = one
        return list(found.values())

    return complete


def run_or_backbone(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """A run, or a backbone by its name."""
    return [*directory(RUN)(context, parameter, incomplete), *backbone(context, parameter, incomplete)]


def file_or_plugin(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """A plugin, or the file of one."""
    return [*plugin(context, parameter, incomplete), *_paths(incomplete, endings=(".py",))]


def folder(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """A directory."""
    return _paths(incomplete, folders=True)


def class_weights(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Item]:
    """`balanced`, or a JSON file."""
    return [*begun(incomplete, [item("balanced")]), *_paths(incomplete, endings=(".json",))]


python_file = files(".py")
