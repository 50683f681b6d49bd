"""What a runtime's session opens: a copy of the graph in the form it asks for, or what it converted that to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final

from poolzoo.artifacts import reading
from poolzoo.common import output
from poolzoo.common.errors import CheckFailed
from poolzoo.common.resources import size
from poolzoo.common.text import printable
from poolzoo.plugin import loader
from poolzoo.plugin.catalog import Entry
from poolzoo.plugin.spec import GraphForm, Runtime
from poolzoo.runtime import forms, graph_input, rule_outputs
from poolzoo.runtime.limits import Limits
from poolzoo.runtime.process import RuntimeFailed, RuntimeProcess

MODEL: Final = "model.onnx"
CONFIG: Final = "config.json"
MAX_BYTES: Final = 8 << 30  # of a converted file
TARGETS: Final = "targets"  # the directory of a bundle that holds what `export --target` made, by runtime


@dataclass(frozen=True)
class Prepared:
    """A directory that a session can open.

    Attributes:
        directory: The directory.
        changes: What was changed of the graph, or that it was converted, in words.
        batch: The fixed batch size that a session takes; None for any.
        bytes: The size of what the runtime reads.
    """

    directory: Path
    changes: tuple[str, ...]
    batch: int | None
    bytes: int


def prepare(
    bundle: Path,
    entry: Entry,
    work: Path,
    *,
    limits: Limits | None = None,
    process: RuntimeProcess | None = None,
    run_stored: bool = False,
) -> Prepared:
    """Makes what a runtime opens. The bundle itself is only read: converters have changed files that they were given.

    Args:
        bundle: The bundle's directory.
        entry: The runtime.
        work: A directory to write to, which is made.
        limits: Of a conversion.
        process: The process that converts; None for one of its own.
        run_stored: Whether what the bundle holds for the runtime may be a program. Else such a form is made anew.

    Raises:
        CheckFailed: The graph cannot be brought to the form that the runtime asks for.
        RuntimeFailed: The runtime does not convert it.
        EnvironmentProblem: The onnx package is needed and not installed.
    """
    runtime = entry.item
    assert isinstance(runtime, Runtime)
    taken = graph_input.read_input(bundle / MODEL)
    kind, form = taken.kind, runtime.form
    batch = 1 if kind == graph_input.PHOTO else taken.batch or form.batch  # photographs have sizes of their own
    if form.batch is not None and taken.batch is not None and kind != graph_input.PHOTO:
        form = replace(form, batch=taken.batch)
    name = loader.catalog().identity(entry)
    kept = target_directory(bundle, name)
    if kept.is_dir() and runtime.converts_to_code and not run_stored:
        output.say(f"the form for {name} in the bundle is a program, and is made anew: --runtime {name} runs it")
    elif kept.is_dir():
        directory = Path(shutil.copytree(kept, work / "target"))
        targets = reading.read_bundle_config(bundle).get("export", {}).get("targets", {})
        if name not in targets:
            raise CheckFailed(f"{bundle / CONFIG} says nothing of {kept}", "export the run again")
        return Prepared(directory, tuple(targets[name].get("changes", ())), batch, _size(directory))
    given = work / "graph"
    given.mkdir(parents=True)
    shutil.copyfile(bundle / CONFIG, given / CONFIG)
    changes = _write_graph(bundle / MODEL, kind, name, form, given / MODEL)
    if runtime.convert is None:
        return Prepared(given, changes, batch, (given / MODEL).stat().st_size)
    out = work / "converted"
    out.mkdir()
    output.detail(f"converting for {name}")
    if process is None:
        with RuntimeProcess(entry, threads=1, limits=limits) as converter:
            converter.convert(given, out)
    else:
        process.convert(given, out)
    _require_plain(name, out)
    if not _size(out):
        raise RuntimeFailed(name, "converts the graph to no file")
    return Prepared(out, (*changes, "converted"), batch, _size(out))


def target_directory(bundle: Path, name: str) -> Path:
    """Where a bundle holds the form for a runtime of this name: "NAME", or "DIST+NAME" of one with a distribution."""
    return bundle / TARGETS / name.replace(":", "+")


def _write_graph(source: Path, kind: str, name: str, form: GraphForm, target: Path) -> tuple[str, ...]:
    plain = rule_outputs.without(source.read_bytes())
    if plain is None and not forms.needs_change(form, kind):
        shutil.copyfile(source, target)
        return ()
    changes: tuple[str, ...] = () if plain is None else ("logits and probabilities alone",)
    content = source.read_bytes() if plain is None else plain
    if forms.needs_change(form, kind):
        try:
            content, more = forms.adapt(content, form)
        except CheckFailed as error:
            raise RuntimeFailed(name, f"cannot have the graph: {error.message}") from error
        changes += more
    target.write_bytes(content)
    return changes


def _require_plain(name: str, out: Path) -> None:
    """Makes sure that a conversion left files and directories of a sane name alone: they become part of a bundle."""
    for path in chain([out], map(Path, _below(out))):  # a link in the place of `out` is not followed
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise RuntimeFailed(name, f"converts the graph to {printable(path.name)}, which is no plain file")
        if not path.name.isprintable():
            raise RuntimeFailed(name, f"converts the graph to a file with an odd name: {printable(path.name)}")
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise RuntimeFailed(name, f"converts the graph to {printable(path.name)} of {size(path.stat().st_size)}")


def _below(directory: Path) -> Iterator[str]:
    for place, folders, names in os.walk(directory):
        yield from (os.path.join(place, name) for name in sorted(folders + names))


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
