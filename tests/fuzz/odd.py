"""Odd values and damaged bytes: what all kinds of input have in common. Everything follows from a `Random`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from random import Random

HUGE = "9" * 320
NUMBERS: tuple[object, ...] = (
    *(0, 1, -1, 2, 255, 256, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64),
    *(10**19, 10**320, -(10**320), 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, 1e400),
    *(float("nan"), float("inf"), float("-inf")),
)
TEXTS: tuple[str, ...] = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "\r\n",
        "\t",
        "x" * 300,
        "x" * 70_000,
        "\ud800",
        "a\udcffb",
        "\ufeff",
        "\u202eabc",
        "\x1b[31m",
    ),
    *("..", "../../x", "/", "/dev/null", "~", ".", "a/b", "a\\b", "C:", "é", "é", "İ", "ß", "🙂", "１２", "²"),
    *("none", "null", "true", "NaN", "inf", "-1", "1e999", HUGE, "0x10", "1_000", "+1", " 1 ", "__class__", "%s", "{}"),
    *("avg", "max", "gem:p=4", "all", "nano/plain", "auto", "<b>", "a,b", "a|b", "a;b", '"', "'", "$(x)", "`x`"),
)
OTHERS: tuple[object, ...] = (None, True, False, [], {}, [None], [[]], {"": None}, [0] * 300, {"a": {"b": {"c": []}}})
BYTES: tuple[bytes, ...] = (
    *(b"", b"\0", b"\xff", b"\x80", b"\0" * 8, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"),
    *(b"\xff" * 4, b"\x80\0\0\0", b"\0\0\0\x80", b"\n", b"\r\n", b'"', b"\xed\xa0\x80", b"\xc3\x28", b"\xef\xbb\xbf"),
    *(b"9" * 30, b"-1", b"NaN", b"[" * 200, b"{", b"}", b"\x80" * 64, b"A" * 5000),
)


def value(rng: Random) -> object:
    """A value that JSON or TOML may hold and that nobody expects; nobody else has it, so that it may be changed."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(NUMBERS)
    if kind < 0.75:
        return rng.choice(TEXTS)
    return copy.deepcopy(rng.choice(OTHERS))


def damaged(rng: Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Bytes with one to four damages: flipped bits, parts cut, repeated, overwritten, or taken from another input."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _damage(rng, found, others)
    return bytes(found)


def _damage(rng: Random, found: bytearray, others: Sequence[bytes]) -> None:
    at, kind = rng.randrange(len(found) + 1), rng.randrange(9)
    length = min(len(found) - at, int(2 ** rng.uniform(0, 10)))
    if kind == 0 and at < len(found):
        found[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(found):
        found[at] = rng.randrange(256)
    elif kind == 2:
        del found[at:]
    elif kind == 3:
        del found[at : at + length]
    elif kind == 4:
        found[at:at] = found[at : at + length]
    elif kind == 5:
        piece = rng.choice(BYTES)
        found[at : at + len(piece)] = piece
    elif kind == 6:
        found[at:at] = rng.choice(BYTES)
    elif kind == 7 and others:
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        found[at : at + length] = other[start : start + length]
    elif kind == 8 and at + 4 <= len(found):
        number = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(2**32)))
        found[at : at + 4] = number.to_bytes(4, rng.choice(("little", "big")))


def text(rng: Random, content: str) -> str:
    """A text with one to three changes: digits, separators, odd pieces, parts repeated or left out."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(content) + 1)
        end = min(len(content), at + int(2 ** rng.uniform(0, 6)))
        kind = rng.randrange(7)
        if kind == 0:
            content = content[:at] + content[end:]
        elif kind == 1:
            content = content[:end] + content[at:]
        elif kind == 2:
            content = content[:at] + rng.choice(TEXTS) + content[at:]
        elif kind == 3:
            content = content[:at] + rng.choice(TEXTS) + content[end:]
        elif kind == 4:
            content = content[:at] + rng.choice(",:;=|/.{}[]()\"'\\\t\n -+#@~*?!&<>\0") + content[at:]
        elif kind == 5 and (places := [index for index, one in enumerate(content) if one.isdigit()]):
            place = rng.choice(places)
            content = content[:place] + str(rng.choice(NUMBERS))[:400] + content[place + 1 :]
        elif kind == 6:
            content = content[:at]
    return content
