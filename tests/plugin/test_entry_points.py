"""Installed plugins are found wherever `importlib.metadata` finds them, and it is imported only where one may be."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib import metadata

import pytest

from poolzoo.plugin.entry_points import entry_points

DECLARED = "[poolzoo]\nmine = mine_plugin\n"


def names():
    return [point.name for point in entry_points()]


def dist_info(folder, text):
    info = folder / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(text)
    return folder


def egg_info(folder, text):
    info = folder / "mine.egg-info"
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(text)
    return folder


def egg(folder, text):
    info = folder / "mine-1.0.egg" / "EGG-INFO"
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(text)
    return info.parent


def archive(folder, text):
    with zipfile.ZipFile(folder / "site.zip", "w") as site:
        site.writestr("mine-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        site.writestr("mine-1.0.dist-info/entry_points.txt", text)
    return folder / "site.zip"


@pytest.mark.parametrize("make", [dist_info, egg_info, egg, archive])
@pytest.mark.parametrize("text", [DECLARED, "[console_scripts]\na = b:c\n\n  [poolzoo]  \r\nmine = mine_plugin"])
def test_declared_plugins_are_found(tmp_path, monkeypatch, make, text):
    monkeypatch.syspath_prepend(make(tmp_path, text))
    assert "mine" in names()
    known = metadata.entry_points(group="poolzoo")
    assert [(one.name, one.value, one.dist, one.version) for one in entry_points()] == [
        (one.name, one.value, one.dist.name, one.dist.version) for one in known
    ]


def test_finders_of_other_packages_are_asked(tmp_path, monkeypatch):
    class Finder:
        """Finds what lies in no place on `sys.path`."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            return None

        @staticmethod
        def find_distributions(context):
            return [metadata.PathDistribution(dist_info(tmp_path / "elsewhere", DECLARED) / "mine-1.0.dist-info")]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert "mine" in names()


def test_a_distribution_hides_others_of_its_name_further_down_the_path(tmp_path, monkeypatch):
    first = dist_info(tmp_path / "first", "[console_scripts]\na = b:c\n") / "mine-1.0.dist-info"
    first.rename(first.with_name("Mine-2.0.dist-info"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(dist_info(tmp_path / "second", DECLARED))])
    assert names() == [point.name for point in metadata.entry_points(group="poolzoo")] == []


def test_an_attribute_of_a_module_is_loaded(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(dist_info(tmp_path, "[poolzoo]\nmine = os.path : sep.__class__ [extra]\n"))
    (point,) = (point for point in entry_points() if point.name == "mine")
    assert point.load() is str


def test_a_plugin_installed_between_two_calls_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine" not in names()
    dist_info(tmp_path, DECLARED)
    assert "mine" in names()


@pytest.mark.parametrize("place", ["no/such/place", "a\0b"])
def test_places_that_cannot_be_read_are_passed_over(monkeypatch, place):
    before = names()
    monkeypatch.setattr(sys, "path", [*sys.path, place])
    assert names() == before


@pytest.mark.parametrize(
    ("command", "unused"),
    [
        (["--help"], {"pluggy", "pathlib", "json"}),
        (["list"], {"importlib.metadata", "hashlib", "random", "tempfile", "pathlib", "numpy"}),
        (["plugin", "list"], {"importlib.metadata", "hashlib", "random", "tempfile", "pathlib", "numpy"}),
    ],
)
def test_short_commands_import_little(tmp_path, command, unused):
    dist_info(tmp_path, DECLARED)
    (tmp_path / "mine_plugin.py").write_text(
        "from poolzoo import hookimpl\n@hookimpl\ndef poolzoo_poolings():\n    return []\n"
    )
    code = (
        "import sys\nfrom poolzoo.cli import run\n"
        f"run({command!r})\nprint(sorted({unused!r} & set(sys.modules)), file=sys.stderr)"
    )
    # Without `site`, whose .pth files import what they like.
    paths = [str(tmp_path), *(path for path in sys.path if path)]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "POOLZOO_CONFIG": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr.splitlines()[-1] == "[]"
