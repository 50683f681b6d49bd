"""TeX to MathML, which browsers draw. Only mathematical elements and attributes are kept."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree

from poolzoo.report.pieces import Safe, joined

SPACE: Final = "{http://www.w3.org/1998/Math/MathML}"
ELEMENTS: Final = {
    "math", "mrow", "mi", "mo", "mn", "mtext", "msup", "msub", "msubsup", "munder", "mover", "munderover", "mfrac",
    "msqrt", "mroot", "mspace", "mstyle", "mpadded", "mtable", "mtr", "mtd",
}  # fmt: skip
ATTRIBUTES: Final = {
    "stretchy", "fence", "form", "separator", "mathvariant", "accent", "linethickness", "width", "height",
    "columnalign",
}  # fmt: skip


UNDER: Final = {"∑", "max", "min"}  # operators with bounds below and above
WITH_BOUNDS: Final = {"msub": "munder", "msubsup": "munderover"}


def mathml(tex: str) -> Safe | None:
    """An equation as `<math>`; None where it cannot be converted, or contains other elements, such as a link.

    The converter copies the content of `\\text{<script>}` as it is. So its result is parsed as XML, and only elements
    and attributes that draw are allowed. `\\quad` splits an equation into several, so that a narrow page can break it.
    """
    from latex2mathml.converter import convert

    try:
        root = ElementTree.fromstring(convert(tex, display="block"))
    except Exception:  # its own errors, and any other that odd input causes
        return None
    for element in root.iter():
        element.tag = element.tag.removeprefix(SPACE)
        if element.tag not in ELEMENTS or not element.attrib.keys() <= ATTRIBUTES | {"display"}:
            return None
        if element.tag in WITH_BOUNDS and element[0].text in UNDER:
            element.tag = WITH_BOUNDS[element.tag]
    (row,) = root
    parts = [ElementTree.Element("math", displaystyle="true")]
    for element in row:
        if element.tag == "mspace" and element.get("width") == "1em":
            parts.append(ElementTree.Element("math", displaystyle="true"))
        else:
            parts[-1].append(element)
    return joined(Safe(ElementTree.tostring(part, encoding="unicode")) for part in parts if len(part))
