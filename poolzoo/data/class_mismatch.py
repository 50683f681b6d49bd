"""Names of classes that ought to be the same and are not: which split has which, and why they differ."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from poolzoo.common.errors import UsageError

SHOWN = 5


def require_equal(place: str, classes: Mapping[str, Sequence[str]]) -> None:
    """Makes sure that splits have the same classes.

    Args:
        place: Where they lie, for the message.
        classes: The names of each split.

    Raises:
        UsageError: They differ; it says which split has which.
    """
    (first, names), *others = classes.items()
    for split, found in others:
        if set(found) != set(names):
            raise UsageError(
                f"the classes in {place} differ between {first} and {split}: {difference(first, names, split, found)}",
                "give both the same class folders",
            )


def difference(first: str, ours: Sequence[str], second: str, theirs: Sequence[str]) -> str:
    """What two sets of names do not share, with the reason where two names look or read the same.

    Args:
        first, second: Who has the names, such as "train" and "test".
        ours, theirs: The names.
    """
    mine, other = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    parts = []
    for name in list(mine):
        twin = next((one for one in other if alike(name, one)), None)
        if twin is not None:
            parts.append(f"{first} has {_shown(name)}, {second} has {_shown(twin)} ({alike(name, twin)})")
            mine.remove(name)
            other.remove(twin)
    parts[SHOWN:] = [f"{len(parts) - SHOWN} more such pairs"] if len(parts) > SHOWN else []
    for split, names in ((first, mine), (second, other)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            parts.append(f"only {split} has {', '.join(map(_shown, names[:SHOWN]))}{more}")
    return "; ".join(parts)


def alike(one: str, other: str) -> str | None:
    """Why two different names look or read the same; None where they do not."""
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        return "the same text, composed and decomposed: two Unicode normalizations"
    plain, same = _visible(one), _visible(other)
    if plain == same:
        return "they differ in spaces or invisible characters"
    if plain.casefold() == same.casefold():
        return "they differ in upper and lower case"
    if unicodedata.normalize("NFKC", plain).casefold() == unicodedata.normalize("NFKC", same).casefold():
        return "they differ in the form of their characters (Unicode normalization)"
    return None


def look_alikes(names: Sequence[str]) -> list[str]:
    """A sentence for each two names of one split that look or read the same."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(unicodedata.normalize("NFKC", _visible(name)).casefold(), []).append(name)
    return [
        f"the classes {_shown(kind[0])} and {_shown(one)} are two: {alike(kind[0], one)}"
        for kind in kinds.values()
        for one in kind[1:]
    ]


def _visible(name: str) -> str:
    """A name composed, without characters that are not seen, and without spaces at its ends or twice."""
    seen = (c for c in unicodedata.normalize("NFC", name) if c.isspace() or not _is_invisible(c))
    return " ".join("".join(" " if c.isspace() else c for c in seen).split())


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cf", "Cc") or "\ufe00" <= character <= "\ufe0f"


def _shown(name: str) -> str:
    """A name in quotes; where the eye cannot tell what it is made of, also its characters beyond ASCII."""
    quoted = "'" + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in name) + "'"
    odd = [
        f"{name[at - 1]} + U+{ord(c):04X}" if at and unicodedata.combining(c) else f"U+{ord(c):04X}"
        for at, c in enumerate(name)
        if not (c.isascii() and c.isprintable())
    ]
    return f"{quoted} ({', '.join(odd[:SHOWN])})" if odd else quoted
