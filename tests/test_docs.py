"""The documentation speaks of what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from poolzoo import host, spec
from poolzoo.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_shows_every_command(name):
    assert f"poolzoo {name}" in README


def test_the_readme_names_every_pooling():
    for entry in host.catalog().select(spec.Pooling):
        assert f"`{entry.item.name}`" in README, entry.item.name


def test_the_readmes_plugin_is_the_file_that_is_tested():
    (shown,) = re.findall(r"```python\n(# power_mean\.py\n.*?)```", README, re.DOTALL)
    code = (ROOT / "plugins" / "single_file" / "power_mean.py").read_text().split('"""\n\n', 1)[1]
    assert shown.split("\n", 1)[1] == code


def test_the_options_in_the_readme_exist(poolzoo):
    for line in re.findall(r"^\$ poolzoo (.*)$", README, re.MULTILINE):
        words = line.split()
        known = poolzoo(words[0], "--help").out
        for option in re.findall(r"(?<!\w)--[a-z-]+", line):
            assert re.search(rf"{option}(?![a-z-])", known), f"{option} in: poolzoo {line}"


def test_layers_import_downwards_only():
    pytest.importorskip("importlinter")
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_the_page_of_the_zoo_is_what_the_catalog_says():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import make_zoo
    finally:
        sys.path.pop(0)
    assert (ROOT / "docs" / "zoo.md").read_text() == make_zoo.render(), "run python docs/make_zoo.py"


def test_every_layer_was_measured():
    measured = {
        (row["name"], row["kind"]) for row in json.loads((ROOT / "docs" / "pooling_kernels.json").read_text())["rows"]
    }
    assert measured == {(e.item.name, e.item.kind) for e in host.load_plugins(installed=False).select(spec.Pooling)}
