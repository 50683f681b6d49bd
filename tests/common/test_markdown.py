"""Markdown and front matter around foreign text, read back by other people's parsers."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from poolzoo.artifacts import result_card
from poolzoo.artifacts.run_report import PeakMemory, RunReport
from poolzoo.common import markdown
from poolzoo.metrics.results import ClassMetrics, Metrics

markdown_it = pytest.importorskip("markdown_it")

NAMES = [
    "<script>alert(1)</script>",
    "a|b",
    "cost $5 and $6$",
    "`code` ``",
    "*bold* _it_ ~~gone~~",
    "[link](javascript:alert(1)) ![i](x)",
    "# heading",
    "two\nlines\r\n\r\n- item",
    "&lt;b&gt; &amp;",
    "back\\slash\\",
    "---",
    "été 数字 🐈",
    "\x1b[31m\u202e",
]
SHOWN = [" ".join(name.split()).replace("\x1b", r"\x1b").replace("\u202e", r"\u202e") for name in NAMES]


class Cells(HTMLParser):
    """The text of every cell of a page's tables, and every element that is in one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.inside: list[str] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag in ("td", "th"):
            self.cells.append("")
            self._open = True
        elif self._open:
            self.inside.append(tag)

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._open:
            self.cells[-1] += data


def rendered(text: str) -> str:
    return markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


@pytest.mark.parametrize(("name", "shown"), [*zip(NAMES, SHOWN, strict=True)])
def test_a_name_shows_literally_in_lines_and_cells(name, shown):
    page = rendered(f"Labels: {markdown.text(name)}.")
    assert "<" not in page.removeprefix("<p>").removesuffix("</p>\n")
    found = Cells(rendered(markdown.table(("class", "n"), [(name, 3), ("other", "–")])))
    assert found.cells == ["class", "n", shown, "3", "other", "–"]
    assert found.inside == []
    assert "$" not in markdown.text(name).replace("\\$", "")  # no mathematics


def card(names, **settings):
    config = {
        "num_features": 8,
        "pretrained_cfg": {"license": "x: [1]\ny"},
        "poolzoo": {
            "backbone": "nano/plain",
            "pool": "gem:p=4",
            "data": "folder:/home/me/<b>x<b>|*y*",
            "data_size": [8, 8],
            "image_size": [8, 8],
            "map": [8, 4, 4],
            "published_head": {"changes": [], "text": ""},
            "weights": {"text": "none"},
        },
    }
    metrics = Metrics(
        accuracy=0.5,
        interval=(0.4, 0.6),
        top5=None,
        ece=None,
        precision=0.5,
        recall=0.5,
        f1=0.5,
        n=6,
        per_class=tuple(ClassMetrics(name=name, precision=0.5, recall=0.5, f1=0.5, n=3) for name in names),
        confusion=(),
    )
    report = RunReport(
        path=Path("run"),
        val=metrics,
        best_epoch=1,
        test=metrics,
        test_flip_tta=None,
        seconds=1.0,
        images_per_s=6.0,
        peak_memory=PeakMemory(host_bytes=None, device_bytes=None),
        processes=1,
    )
    return result_card.render(config, settings, report)


def test_a_runs_card_shows_names_paths_and_settings_literally():
    text = card(NAMES, data="folder:a|b_c_", threads=2)
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    found = Cells(rendered(body))
    assert [cell for cell in found.cells if cell in SHOWN] == SHOWN
    assert "folder:a|b_c_" in found.cells
    assert found.inside == []
    page = rendered(body)
    assert "<script" not in page
    assert "<h1>nano/plain with gem:p=4 pooling on folder:&lt;b&gt;x&lt;b&gt;|*y*</h1>" in page
    yaml = pytest.importorskip("yaml")
    facts = yaml.safe_load(head)
    assert facts["license"] == "x: [1] y"
    assert facts["tags"] == ["image-classification", "pooling", "gem-p=4"]
