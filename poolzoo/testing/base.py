"""What all conformance checks share: an id that never changes, what is expected, a hint, and how to run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from poolzoo.common.errors import UsageError, message_of
from poolzoo.plugin.catalog import Failure as PluginError
from poolzoo.testing.expected import problem_of

T = TypeVar("T")  # what is checked
_Function = Callable[[T], str | None]


@dataclass(frozen=True)
class Check(Generic[T]):
    """One promise of a plugin.

    Attributes:
        id: What it is called, forever.
        function: Asserts the promise; it may return what it found, in words.
        expected: The promise in words.
        hint: How to fix a plugin that does not keep it.
    """

    id: str
    function: Callable[[T], str | None]
    expected: str
    hint: str


@dataclass(frozen=True)
class Failure:
    """A promise that is not kept.

    Attributes:
        check: The check's id.
        found: The input and the output, in words.
        expected: The promise in words.
        hint: How to fix the plugin.
    """

    check: str
    found: str
    expected: str
    hint: str

    def __str__(self) -> str:
        return f"{self.check}: {self.found} (expected: {self.expected}; {self.hint})"


class Checks(Generic[T]):
    """The checks of one kind of plugin, in their order."""

    def __init__(self) -> None:
        self._all: dict[str, Check[T]] = {}

    def promise(self, hint: str, *, id: str = "") -> Callable[[_Function[T]], _Function[T]]:
        """Makes a function a check. The first line of its docstring is what is expected.

        Args:
            hint: How to fix a plugin that does not keep it.
            id: The id, which never changes; without it, the name of the function.
        """

        def add(function: _Function[T]) -> _Function[T]:
            name = id or function.__name__
            expected = (function.__doc__ or "").strip().splitlines()[0].rstrip(".")
            self._all[name] = Check(name, function, expected, hint)
            return function

        return add

    def __iter__(self) -> Iterator[Check[T]]:
        return iter(self._all.values())

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._all)

    def run(self, check: str, checked: T) -> str | None:
        """Runs one check; restores the random generator afterwards.

        Returns:
            What it found, in words; None where it only asserts.

        Raises:
            AssertionError: The promise is not kept; the message has the numbers.
            Exception: Whatever the plugin's code raises.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            return self._all[check].function(checked)

    def failure(self, check: Check[T], checked: T) -> Failure | None:
        """Runs one check; None if it passes."""
        try:
            self.run(check.id, checked)
        except PluginError as error:
            return Failure(check.id, first_line(error), check.expected, check.hint)
        return None

    def failures(self, checked: T, expected: Mapping[str, str] | None = None) -> list[Failure]:
        """Runs all checks; those that fail, in order.

        Args:
            checked: What to check.
            expected: Checks that are expected to fail, each with the reason. One that passes is a failure.

        Raises:
            UsageError: One of those is no check, or has no reason.
        """
        reasons = expected or {}
        if problem := problem_of(reasons, self.ids):
            raise UsageError(f"expected_failures: {problem[0]}", problem[1])
        found = []
        for check in self:
            failed = self.failure(check, checked)
            if check.id in reasons:
                text = f"it passes, and is expected to fail ({reasons[check.id]})"
                failed = (
                    None if failed else Failure(check.id, text, check.expected, "leave it out of expected_failures")
                )
            found += [failed] if failed is not None else []
        return found


def first_line(error: BaseException) -> str:
    """The message of an exception, on one line."""
    text = message_of(error).strip().splitlines() or [""]
    return text[0] if isinstance(error, AssertionError) and text[0] else f"{type(error).__name__}: {text[0]}"
