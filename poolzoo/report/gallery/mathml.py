"""TeX to MathML, which browsers draw themselves. Nothing but mathematics gets through."""

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


UNDER: Final = {"∑", "max", "min"}  # whose bounds stand below and above them
WITH_BOUNDS: Final = {"msub": "munder", "msubsup": "munderover"}


def mathml(tex: str) -> Safe | None:
    """An equation as `<math>`; None where it cannot be read, or holds what is no mathematics, such as a link.

    The converter passes what `\\text{<script>}` holds on as it stands, so its result is read as XML, and only elements
    and attributes that do no more than draw are kept. Where `\\quad` parts an equation, it is several: a narrow page
    can break there.
    """
    from latex2mathml.converter import convert

    try:
        root = ElementTree.fromstring(convert(tex, display="block"))
    except Exception:  # its own errors, and whatever else a strange text makes of it
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
