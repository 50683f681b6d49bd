"""Texts that attack whoever shows them, and parsers of other people that say whether one got through."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import unicodedata
from html.parser import HTMLParser

# Each holds the word `hostile`, by which it is found again. Without slashes, they may be names of folders.
TEXTS = (
    "<script>hostile(1)<!--",
    "<img src=x onerror=hostile(1)>",
    "\"'><svg onload=hostile(1)>",
    "hostile]]>--><!--",
    "{{hostile}}${hostile}`hostile`",
    "javascript:hostile(1)",
    "[hostile](javascript:hostile(1)) ![](x) **hostile** _hostile_",
    "|hostile|\\|# hostile",
    "$\\frac{hostile$ \\input{hostile} %hostile",
    '=HYPERLINK("http:hostile";"hostile")',
    "+hostile",
    "-hostile",
    "@hostile",
    "\t=hostile",
    '\r\n=hostile,"hostile"',
    "＝hostile",
    "\x1b[2Jhostile\x1b]0;hostile\x07",
    "\x1b]8;;http:hostile\x1b\\hostile\x1b]8;;\x1b\\",
    "\x9b31mhostile\x9d0;hostile\x9c",
    "hostile\x08\x08\x7f\x0b\x0c",
    "\u202ehostile\u2066hostile\u2069",
    "hos\u200btile hostile\ufeff\u2060\u3164\u115f\U000e0041",
    "hostile\u2028hostile\u2029hostile\x85",
    "hostile\udcff",
    "[red]hostile[/red] [link=http:hostile]hostile[/link] :warning:",
    "hostile" * 40,
    "hostile" + "\u0301" * 60,
    "%shostile%n {0.__class__} \\N{BULLET}hostile",
    "数字hostile🐈",
)
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
ADDRESSES = ("href", "src", "action", "formaction", "xlink:href", "data", "poster", "srcset", "background")
ACTIVE = {"iframe", "object", "embed", "base", "form", "frame", "applet", "portal"}


def obeyed(shown: str) -> list[str]:
    """The characters that a terminal obeys or a reader does not see."""
    unseen = (
        one for one in shown if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") or one in UNSEEN
    )
    return sorted({f"{ord(one):04x}" for one in unseen if one not in "\n\t"})


class Page(HTMLParser):
    """What a browser would make of a page: what in it is active, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.dangers: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self._policy = ""
        self._script = False
        self.feed(source)
        self.close()
        for script in self.scripts:
            if base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() not in self._policy:
                self.dangers.append("a script that the policy does not name")
        if "default-src 'none'" not in self._policy:
            self.dangers.append("no policy")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._script = tag == "script" and given.get("type", "module") in ("module", "", "text/javascript")
        if self._script:
            self.scripts.append("")
        if given.get("http-equiv", "").lower() == "content-security-policy":
            self._policy = given["content"]
        elif "http-equiv" in given or tag in ACTIVE:
            self.dangers.append(f"<{tag}>")
        self.dangers += [f"{tag} {name}" for name in given if name.startswith("on") or name == "srcdoc"]
        for name in ADDRESSES:
            if name in given and not given[name].startswith(("data:", "#", "https://")):
                self.dangers.append(f"{tag} {name}={given[name]}")

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
        else:
            self.text += data


def formulas(document: str) -> list[str]:
    """The cells of comma-separated values that a spreadsheet computes; numbers are none."""
    cells = [cell for row in csv.reader(io.StringIO(document, newline="")) for cell in row]
    found = []
    for cell in cells:
        try:
            float(cell)
        except ValueError:
            if FORMULA.match(cell):
                found.append(cell)
    return found
