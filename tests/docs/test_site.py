"""The site: every page is in its navigation, and what `make docs` builds needs no network and has no dead link."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support.command_lines import ROOT

CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
BUILT = ("reference/command-line.md", "reference/python.md")  # made when the site is built


def test_every_page_is_in_the_navigation_once():
    nav = re.findall(r"([\w/-]+\.md)$", CONFIG.split("\nnav:")[1], re.MULTILINE)
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(nav) == sorted([*pages, *BUILT])


def test_the_configuration_fetches_nothing():
    assert "font: false" in CONFIG
    assert "http" not in CONFIG
    assert "assets/iframe-worker.js" in CONFIG  # else the offline search fetches it


class Page(HTMLParser):
    """The addresses that a page loads or links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.linked: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a":
            self.linked.add(given.get("href", ""))
        elif tag == "link" and given.get("rel") != "canonical":
            self.loaded.add(given.get("href", ""))
        else:
            self.loaded.add(given.get("src", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name)
    place = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(place)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return place


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    found = (path for path in site.rglob("*.html") if "repository" not in path.parts or path.name != "leaderboard.html")
    return {path: Page(path.read_text(encoding="utf-8")) for path in found}


@pytest.mark.slow
def test_pages_of_the_site_load_nothing_from_elsewhere(site, pages):
    for path, page in pages.items():
        assert [one for one in page.loaded if urlsplit(one).scheme not in ("", "data")] == [], path
    for path in [*site.rglob("*.css"), site / "assets" / "iframe-worker.js"]:
        assert re.findall(r"url\(['\"]?https?:|@import", path.read_text(encoding="utf-8")) == [], path


@pytest.mark.slow
def test_links_of_the_site_lead_somewhere(site, pages):
    for path, page in pages.items():
        for link in page.loaded | page.linked:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            assert target.exists() or path.name == "404.html", f"{path.relative_to(site)}: {link}"
            if parts.fragment and target in pages:
                named = unquote(parts.fragment)
                assert named in pages[target].anchors or named.startswith("__"), f"{path.relative_to(site)}: {link}"


@pytest.mark.slow
def test_the_reference_is_that_of_the_code(site):
    import poolzoo
    from poolzoo import cli

    commands = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    for name in cli.COMMANDS:
        assert f'id="poolzoo-{name}"' in commands
    names = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in set(poolzoo.__all__) - {"API_VERSION", "__version__", "testing"}:
        assert f'.{name}"' in names, name  # the anchor of its section
    assert "seal" in (site / "reference" / "files.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_formulas_are_drawn_without_a_script(site):
    page = (site / "explanation" / "four-by-four.html").read_text(encoding="utf-8")
    source = (ROOT / "docs" / "explanation" / "four-by-four.md").read_text(encoding="utf-8")
    assert page.count("<math") == source.count("$$") / 2 > 3
    assert "$$" not in page
    assert "mathml-" not in page
    zoo = (site / "reference" / "zoo.html").read_text(encoding="utf-8")
    assert zoo.count("<math") > 50
