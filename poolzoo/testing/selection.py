"""`-k EXPRESSION` as in pytest: which checks to run, by words that their names contain, with and, or, not, ( )."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from poolzoo.common.errors import UsageError

_TOKEN: Final = re.compile(r"\s*(?:(\(|\))|([:\w+\-.\[\]\\/]+)|(.))")
_WORDS: Final = ("and", "or", "not")
_DEPTH: Final = 50  # of parentheses
_Names = Collection[str]
_Predicate = Callable[[_Names], bool]


@dataclass(frozen=True)
class Selection:
    """A parsed expression.

    Attributes:
        text: As it was typed; empty for everything.
    """

    text: str
    _predicate: _Predicate

    def __call__(self, *names: str) -> bool:
        """Whether it selects what has these names. A word matches a name that contains it, in any case."""
        return self._predicate([name.lower() for name in names])

    def require_some(self, selected: int, ids: Iterable[str]) -> None:
        """Makes sure that it selects something.

        Raises:
            UsageError: It selected nothing; the hint names similar checks.
        """
        if selected:
            return
        from poolzoo.plugin.grammar import suggest

        words = [word for word in re.findall(r"[\w-]+", self.text) if word not in _WORDS]
        near = next((found for word in words if (found := suggest(word, ids))), "")
        raise UsageError(f"-k {self.text!r} selects no check", near or "poolzoo plugin check --list shows all")


def everything() -> Selection:
    return Selection("", lambda names: True)


def parse(text: str) -> Selection:
    """Reads an expression; an empty one selects everything, as in pytest.

    Raises:
        UsageError: It is not one.
    """
    parser = _Parser(text)
    return everything() if parser.token is None else Selection(text, parser.whole())


class _Parser:
    """Recursive descent over `or`, `and`, `not`, parentheses and words, in rising order of binding."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split(text)
        self._next = 0
        self._depth = 0

    def _split(self, text: str) -> list[str]:
        tokens = []
        for match in _TOKEN.finditer(text.rstrip()):
            if match[3]:
                raise self._error(f"unexpected {match[3]!r}")
            tokens.append(match[1] or match[2])
        return tokens

    def _error(self, why: str) -> UsageError:
        return UsageError(f"-k {self._text!r}: {why}", "such as -k 'gradients and not memory'")

    @property
    def token(self) -> str | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _accept(self, token: str) -> bool:
        found = self.token == token
        self._next += found
        return found

    def whole(self) -> _Predicate:
        found = self._either()
        if self.token is not None:
            raise self._error(f"unexpected {self.token!r}")
        return found

    def _either(self) -> _Predicate:
        parts = [self._all()]
        while self._accept("or"):
            parts.append(self._all())
        return lambda names: any(part(names) for part in parts)

    def _all(self) -> _Predicate:
        parts = [self._one()]
        while self._accept("and"):
            parts.append(self._one())
        return lambda names: all(part(names) for part in parts)

    def _one(self) -> _Predicate:
        negate = False
        while self._accept("not"):
            negate = not negate
        if self._accept("("):
            self._depth += 1
            if self._depth > _DEPTH:
                raise self._error(f"more than {_DEPTH} parentheses within each other")
            inner = self._either()
            self._depth -= 1
            if not self._accept(")"):
                raise self._error("a parenthesis is not closed")
            return (lambda names: not inner(names)) if negate else inner
        word = self.token
        if word is None or word in (*_WORDS, ")"):
            raise self._error("it ends too early" if word is None else f"unexpected {word!r}")
        self._next += 1
        wanted = word.lower()
        return lambda names: negate is not any(wanted in name for name in names)
