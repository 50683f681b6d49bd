"""Plugins: files whose hooks give odd things, sources that are no Python, and metadata of installed distributions."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from unittest import mock

from fuzz import odd, trees
from fuzz.harness import Disagreement, Target
from fuzz.targets.settings import mutated_toml
from poolzoo.common.errors import CheckFailed
from poolzoo.plugin import discovery, entry_points, loader, problems
from poolzoo.plugin.spec import Pooling
from poolzoo.testing import project_file

GOOD = """
from poolzoo import Pooling, hookimpl

def build(channels):
    from torch import nn
    return nn.AdaptiveAvgPool2d(1)

@hookimpl
def poolzoo_poolings():
    yield Pooling(name={name}, summary="a mean", kind="global", build=build)
"""
PIECES = (
    "POOLZOO_API = {value}",
    "raise ValueError({value})",
    "import nothing_of_that_name",
    "import sys; sys.exit({value})",
    "@hookimpl\ndef poolzoo_datasets():\n    return {value}",
    "@hookimpl\ndef poolzoo_backbones():\n    yield {value}",
    "@hookimpl\ndef poolzoo_poolings(wrong):\n    yield 1",
    "@hookimpl\ndef poolzoo_nothing():\n    yield 1",
    "@hookimpl\ndef poolzoo_runtimes():\n    raise RuntimeError({value})",
    "@hookimpl\ndef poolzoo_poolings():\n    yield Pooling(name={value}, summary={value}, kind='global', build=build)",
    "@hookimpl\ndef poolzoo_poolings():\n    yield Pooling(name='x', summary='s', kind={value}, build={value})",
    "@hookimpl\ndef poolzoo_poolings():\n    yield from [{value}] * 2000",
    "@hookimpl\ndef poolzoo_poolings():\n"
    "    yield Pooling(name='x', summary='s', kind='global', build='nowhere:{plain}')",
    "class Odd(str):\n    def __str__(self): raise ValueError\n"
    "@hookimpl\ndef poolzoo_poolings():\n"
    "    yield Pooling(name=Odd('x'), summary=Odd('y'), kind='global', build=build)",
    "def __getattr__(name): raise RuntimeError(name)",
    "print({value})",
    "import warnings; warnings.warn(str({value}))",
    "def deep():\n    return deep()\ndeep()",
    "class E(Exception):\n    def __str__(self): raise ValueError\nraise E()",
    "import random; random.seed(1)",
    "{plain}",
)
POINTS = "[console_scripts]\nx = a:b\n\n[poolzoo]\nmine = poolzoo_fuzz_module\n"
METADATA = "Metadata-Version: 2.1\nName: poolzoo-fuzz\nVersion: 1.0\n"


def mutated_source(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A plugin with an odd piece or an odd name; or one whose bytes are damaged."""
    kind = rng.random()
    if kind < 0.35:
        return odd.damaged(rng, rng.choice(seeds), seeds)
    value = repr(odd.value(rng)).replace("nan", "None").replace("inf", "None")
    name = repr(rng.choice(odd.TEXTS)) if kind > 0.8 else "'good'"
    pieces = rng.sample(PIECES, rng.choice((1, 1, 2)))
    plain = rng.choice(odd.TEXTS).replace("{", "").replace("\\", "")[:500]
    text = GOOD.replace("{name}", name)
    for piece in pieces:
        text += "\n" + piece.replace("{value}", value).replace("{plain}", plain) + "\n"
    return text.encode("utf-8", "surrogatepass")


def mutated_points(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """`entry_points.txt` and `METADATA` of a distribution, with an empty line of its own between them, changed."""
    content = rng.choice(seeds)
    if rng.random() < 0.4:
        return odd.damaged(rng, content, seeds)
    return odd.text(rng, content.decode()).encode("utf-8", "surrogatepass")


def targets(folder: Path) -> Iterator[Target]:
    valid = folder / "valid.py"
    valid.write_text(GOOD.replace("{name}", "'valid'"))
    file = folder / "mine.py"

    def read(content: bytes) -> object:
        file.write_bytes(content)
        catalog = loader.load(discovery.find([file, valid], installed=False))
        names = {entry.item.name for entry in catalog.select(Pooling)}
        if not {"valid", "avg", "gem"} <= names:
            raise Disagreement("another plugin is lost")
        for text, hint in problems.summary(catalog.problems):
            if not text or "\n" in text + hint:
                raise CheckFailed(f"unexpected line {text!r}")
        return sorted(map(repr, names))

    place = folder / "site/poolzoo_fuzz-1.0.dist-info"
    place.mkdir(parents=True)
    (folder / "site/poolzoo_fuzz_module.py").write_text(GOOD.replace("{name}", "'installed'"))

    def installed(content: bytes) -> object:
        points, _, metadata = content.partition(b"\n%%\n")
        (place / "entry_points.txt").write_bytes(points)
        (place / "METADATA").write_bytes(metadata)
        with mock.patch.object(sys, "path", [*sys.path, str(folder / "site")]):
            found = entry_points.entry_points()
            catalog = loader.load(discovery.find([valid]))
        if "valid" not in {entry.item.name for entry in catalog.select(Pooling)}:
            raise Disagreement("another plugin is lost")
        return len(found), [text for text, _ in problems.summary(catalog.problems)]

    yield Target("plugin", [GOOD.replace("{name}", "'good'").encode()], mutated_source, read, 0.05)
    yield Target("entry-points", [f"{POINTS}\n%%\n{METADATA}".encode()], mutated_points, installed, 0.05)
    project = {"tool": {"poolzoo": {"expected-failures": {"shapes": "why"}}}, "project": {"name": "x"}}

    def expected(content: bytes) -> object:
        (folder / project_file.NAME).write_bytes(content)
        return project_file.expected_failures(folder / project_file.NAME)

    yield Target("project-file", [trees.toml(project).encode()], mutated_toml(), expected, 0.05)
