"""The documentation speaks of what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_lines import PAGES, name_of, prose

from poolzoo import testing as poolzoo_testing
from poolzoo.cli import COMMANDS
from poolzoo.plugin import loader, registration, spec
from poolzoo.plugin.events import EVENTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_shows_every_command(name):
    assert f"poolzoo {name}" in README


def test_the_readme_fits_three_screens():
    assert len(README.split()) <= 1500


def test_the_readme_counts_the_strategies():
    names = {entry.item.name for entry in loader.load_plugins(installed=False).select(spec.Pooling)}
    assert f"[{len(names)} pooling strategies](docs/reference/zoo.md)" in README


def test_every_relative_link_in_the_documents_leads_somewhere():
    for path in PAGES:
        for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", prose(path))):
            if "://" in target:
                continue
            found = (path.parent / target) if target else path
            assert found.exists(), f"{name_of(path)} links to {target}"
            if anchor:
                assert anchor in anchors(found), f"{name_of(path)} links to {target}#{anchor}"


def anchors(path: Path) -> set[str]:
    """The anchors of the headings of a document, as GitHub makes them."""
    text = path.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


def test_the_readmes_plugin_is_the_file_that_is_tested():
    (shown,) = re.findall(r"```python\n(# power_mean\.py\n.*?)```", README, re.DOTALL)
    code = (ROOT / "plugins" / "single_file" / "power_mean.py").read_text().split('"""\n\n', 1)[1]
    assert shown.split("\n", 1)[1] == code


def test_the_readmes_plugin_passes_its_own_check():
    plugin = loader.load_plugins(ROOT / "plugins" / "single_file" / "power_mean.py", installed=False)
    assert poolzoo_testing.check_pooling(plugin.pooling("power-mean", "global").item) == []


def test_the_contract_shows_the_same_plugin():
    body = re.search(r"def forward\(self, x\):.*?\n(.*?)\n\n", README, re.DOTALL)
    assert body
    shown = [line.strip() for line in body[1].splitlines()]
    assert [line for line in shown if line not in spec.__doc__] == []


def test_layers_import_downwards_only():
    pytest.importorskip("importlinter")
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_the_page_of_the_zoo_is_what_the_catalog_says():
    page = ROOT / "docs" / "reference" / "zoo.md"
    assert page.read_text() == _make("make_zoo").render(), "run python docs/make_zoo.py"


def test_the_zoo_has_a_row_for_every_strategy():
    zoo = (ROOT / "docs" / "reference" / "zoo.md").read_text()
    for entry in loader.load_plugins(installed=False).select(spec.Pooling):
        assert f"| [`{entry.item.name}`](#{entry.item.name}-" in zoo


def test_every_layer_was_measured():
    rows = json.loads((ROOT / "docs" / "results" / "pooling_kernels.json").read_text())["rows"]
    measured = {(row["name"], row["kind"]) for row in rows}
    assert measured == {(e.item.name, e.item.kind) for e in loader.load_plugins(installed=False).select(spec.Pooling)}


def _make(name: str):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return __import__(name)
    finally:
        sys.path.pop(0)


PLUGINS = (ROOT / "docs" / "how-to" / "plugins.md").read_text()
HOOKS = (*registration.HOOKS, *EVENTS)


def test_the_page_of_checks_names_every_check():
    page = (ROOT / "docs" / "reference" / "checks.md").read_text()
    assert _make("make_checks").render(page) == page, "run python docs/make_checks.py"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_an_example_that_works(tmp_path, hook):
    section = re.search(rf"### {hook}\n(.*?)(?=\n##)", PLUGINS, re.DOTALL)
    assert section, f"docs/how-to/plugins.md has no section on {hook}"
    (example,) = re.findall(r"```python\n(.*?)```", section[1], re.DOTALL)
    assert f"def {hook}(" in example
    path = tmp_path / "example.py"
    path.write_text(example)
    catalog = loader.load_plugins(path, installed=False)
    assert catalog.problems == []
    for entry in catalog.entries:
        if entry.source.dist != "example":
            continue
        if isinstance(entry.item, spec.BackboneFamily):
            names = [f"{entry.item.prefix}/{name}" for name in entry.item.names()]
            assert all(poolzoo_testing.check_backbone(name) == [] for name in names)
        elif isinstance(entry.item, spec.Backbone):
            assert poolzoo_testing.check_backbone(entry.item.name) == []
        elif isinstance(entry.item, spec.Dataset):
            assert poolzoo_testing.check_dataset(entry.item) == []
        elif isinstance(entry.item, spec.Runtime):
            assert poolzoo_testing.check_runtime(entry.item) == []
        else:
            assert poolzoo_testing.check_pooling(entry.item) == []
    facts = {"run": {"path": "x"}, "epoch": 1, "metrics": {"loss": 1.0}, "bundle": "x", "report": {}}
    for event in EVENTS:
        catalog.emit(event, **facts)
    assert catalog.problems == []


def test_the_tutorials_plugin_passes_its_own_check(tmp_path):
    path = tmp_path / "power_mean.py"
    path.write_text(re.findall(r"```python\n(.*?)```", PLUGINS, re.DOTALL)[0])
    assert (
        poolzoo_testing.check_pooling(loader.load_plugins(path, installed=False).pooling("power-mean", "global").item)
        == []
    )


@pytest.mark.parametrize(
    "what", ["poolzoo plugin disable", "POOLZOO_PLUGINS", "--prefer", "--strict", "--no-check-export"]
)
def test_the_page_on_plugins_names_the_ways_out(what):
    assert what in PLUGINS
