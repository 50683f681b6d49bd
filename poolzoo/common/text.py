"""Foreign text made fit to be shown: what a terminal would obey is written out, and no line is endless."""

from __future__ import annotations

import os
from typing import Final

MAX_LINE: Final = (
    2000  # characters of one diagnostic line; longer ones are a plugin's or a library's, and nobody reads them
)
_SPACES: Final = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


# Letters and marks that are drawn as nothing: fillers of Hangul and Khmer, and the grapheme joiner.
_UNSEEN: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")


def visible(text: str) -> str:
    r"""`text` with every character that is not seen written as an escape: `\x1b`, `\n`, `\u202e`.

    These are the controls of C0 and C1, which move the cursor or recolor a terminal, bidirectional overrides, which
    reorder what is read, zero-width characters and lone surrogates. A space of any width becomes a plain one.
    """
    return text if _is_seen(text) else "".join(one if _is_seen(one) else _escaped(one) for one in text)


def _is_seen(text: str) -> bool:
    """Whether every character is drawn, and none is obeyed."""
    return text.isprintable() and (text.isascii() or _UNSEEN.isdisjoint(text))


def one_line(text: str, most: int = MAX_LINE) -> str:
    """`text` on one line, every control character visible, at most `most` characters long."""
    flat = visible(" ".join(text[: 8 * most].split()))
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def _escaped(character: str) -> str:
    return " " if character in _SPACES else character.encode("unicode_escape").decode("ascii")


def json_escaped(document: str) -> str:
    r"""A JSON document with the same value in which every character is seen, such as `\u009b` for a C1 control.

    JSON itself asks for escapes below U+0020 only. The others occur in strings alone, in a document on one line.
    """
    return document if _is_seen(document) else "".join(one if _is_seen(one) else _json_escape(one) for one in document)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def data_title(data: str) -> str:
    """What `--data` named, for titles: the last part alone of a path, which is private to a machine."""
    kind, colon, place = data.partition(":")
    name = os.path.basename(place.rstrip(os.sep))
    return f"{kind}{colon}{name or place}" if os.path.isabs(place) else data


def printable(path: str) -> str:
    """A path without surrogates: a file's name may be any bytes."""
    return path.encode("utf-8", "backslashreplace").decode()
