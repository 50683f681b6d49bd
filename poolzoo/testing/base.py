"""What all conformance checks have in common: an id that stays, what is expected, how to mend it, how to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from poolzoo.common.errors import message_of
from poolzoo.plugin.catalog import Failure as Thrown


@dataclass(frozen=True)
class Check:
    """One promise: its id, the function that asserts it on a subject, what is expected, and how to mend a failure."""

    id: str
    function: Callable[[Any], None]
    expected: str
    mend: str


@dataclass(frozen=True)
class Failure:
    """A promise that is not kept: the check's id, what was fed in and came out, what was expected, how to mend it."""

    check: str
    found: str
    expected: str
    mend: str

    def __str__(self) -> str:
        return f"{self.check}: {self.found} (expected: {self.expected}; {self.mend})"


class Checks:
    """The checks of one kind of plugin, in their order."""

    def __init__(self) -> None:
        self._all: dict[str, Check] = {}

    def promise(self, mend: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        """Makes a function a check: its name is the id, the first line of its docstring what is expected."""

        def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
            name = function.__name__
            expected = (function.__doc__ or "").strip().splitlines()[0].rstrip(".")
            self._all[name] = Check(name, function, expected, mend)
            return function

        return add

    def __iter__(self) -> Iterator[Check]:
        return iter(self._all.values())

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._all)

    def run(self, check: str, subject: Any) -> None:
        """Runs one check; the process's random generator is left as it was.

        Raises:
            AssertionError: The promise is not kept; the message holds the numbers.
            Exception: Whatever the plugin's code raises.
        """
        with torch.random.fork_rng(devices=[]):
            self._all[check].function(subject)

    def failure(self, check: Check, subject: Any) -> Failure | None:
        """Runs one check: what is not as promised, or None."""
        try:
            self.run(check.id, subject)
        except Thrown as error:
            return Failure(check.id, first_line(error), check.expected, check.mend)
        return None

    def failures(self, subject: Any) -> list[Failure]:
        """Runs all checks; what fails, in order."""
        return [failed for check in self if (failed := self.failure(check, subject)) is not None]


def first_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    text = message_of(error).strip().splitlines() or [""]
    return text[0] if isinstance(error, AssertionError) and text[0] else f"{type(error).__name__}: {text[0]}"


def suite(checks: Checks, run: Callable[..., None], attribute: str, doc: str) -> type:
    """A class for pytest with a test for each check, to be subclassed with the item under test as an attribute."""

    def method(check: Check) -> Callable[[Any], None]:
        def test(self: Any) -> None:
            item = getattr(type(self), attribute, None)
            if item is None:
                raise TypeError(f"{type(self).__name__} needs a class attribute {attribute!r}: the item under test")
            run(check.id, item, **getattr(type(self), "options", {}))

        test.__doc__ = check.expected
        return test

    methods = {f"test_{check.id}": method(check) for check in checks}
    return type(doc.split(":")[0], (), {"__doc__": doc, attribute: None, "options": {}, **methods})
