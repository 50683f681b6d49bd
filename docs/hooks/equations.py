"""Hook of mkdocs: `$…$` and `$$…$$` become MathML, which browsers draw by themselves; poolings get their equations."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

from poolzoo.plugin import loader

FENCES = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\w$\\])\$(\S(?:[^$\n]*\S)?)\$(?![\w$])", re.DOTALL)
HEADING = re.compile(r"^### (\w+) \((global|local)\)$", re.MULTILINE)
ZOO = "reference/zoo.md"
MARK = "mathml-{}-mathml"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Takes formulas out of the text, so that Markdown does not change them."""
    found: list[str] = []

    def kept(match: re.Match[str]) -> str:
        display = "block" if match[1] else "inline"
        found.append(convert((match[1] or match[2]).strip(), display=display))
        return MARK.format(len(found) - 1)

    if page.file.src_uri == ZOO:
        markdown = HEADING.sub(_with_equation, markdown)
    parts, end = [], 0
    for fence in FENCES.finditer(markdown):
        parts += [FORMULA.sub(kept, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    page.meta["formulas"] = found
    return "".join([*parts, FORMULA.sub(kept, markdown[end:])])


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Puts the formulas back."""
    for index, formula in enumerate(page.meta.pop("formulas", [])):
        html = html.replace(MARK.format(index), formula)
    return html


def _with_equation(match: re.Match[str]) -> str:
    tex = loader.load_plugins(installed=False).pooling(match[1], match[2]).item.tex
    return f"{match[0]}\n\n$${tex}$$" if tex else match[0]
