"""The page of several comparisons: everything is on it without a script, and nothing in a name can run."""

from __future__ import annotations

import re

import pytest
from support.planted_comparisons import planted
from test_compare_page import HOSTILE

from poolzoo.compare import across
from poolzoo.report import across_page, comparisons_page
from poolzoo.report.across_results import AcrossResult

CHANCES = {"avg": 0.7, "gem": 0.85, HOSTILE: 0.7}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> AcrossResult:
    folder = tmp_path_factory.mktemp("across")
    paths = [
        planted(folder / f"{n}{local}", CHANCES, f"<b>data</b> {n}", images=200, local=local)
        for n in (0, 1)
        for local in (False, True)
    ]
    return across.report(paths, None, 0.05, resamples=100)


def test_the_page_needs_no_script(found):
    source = across_page.html(found)
    assert "<script" not in source
    assert "script-src" not in source
    assert "default-src 'none'" in source
    assert not re.search(r"https?://", source.replace("http://www.w3.org", ""))


def test_names_from_outside_are_text(found):
    source = across_page.html(found)
    assert HOSTILE not in source
    assert "<b>data</b>" not in source
    assert "&lt;b&gt;data&lt;/b&gt; 0" in source


def test_no_id_occurs_twice_and_every_label_is_one(found):
    for source in (across_page.html(found), comparisons_page.html("t", [], [], found)):
        body = source.split("<script>")[0]
        ids, labels = (re.findall(rf' {key}="([^"]+)"', body) for key in ("id", "aria-labelledby"))
        assert len(ids) == len(set(ids)) >= 10
        assert set(labels) <= set(ids)


def test_every_figure_of_the_tables_is_on_the_page(found):
    source = across_page.html(found)
    for group in found.groups:
        assert all(sentence.split(HOSTILE)[0][:60] in source.replace("&#x27;", "'") for sentence in group.conclusions)
        for one in group.comparisons:
            for name, cell in one.cells.items():
                shown = f"{100 * cell.gain:+.2f}".replace("-", "−")
                assert name == group.baseline or shown in source
        assert f"critical difference is {group.critical_difference:.1f} ranks" in source
    assert source.count('class="joined"') == 2
    assert source.count('<polyline class="run"') == 4
