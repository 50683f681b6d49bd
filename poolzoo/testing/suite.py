"""Conformance checks as tests for pytest: a class with a test for each check, which an author subclasses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from poolzoo.testing.base import Check, Checks
from poolzoo.testing.expected import problem_of


class Suite:
    """A test for each check of one kind of item. Each kind has a subclass, such as `PoolingTests`.

    Attributes:
        options: Values for the options of the item's build.
        expected_failures: Checks that the item is expected to fail, each with the reason. Its test is then an
            expected failure (xfail), and fails where the check passes.

    Raises:
        TypeError: A subclass expects a check that there is not to fail, or gives no reason.
    """

    options: ClassVar[Mapping[str, object]] = {}
    expected_failures: ClassVar[Mapping[str, str]] = {}
    _checks: ClassVar[Checks[Any]]

    def __init_subclass__(
        cls, checks: Checks[Any] | None = None, attribute: str = "", run: Callable[..., None] | None = None
    ) -> None:
        super().__init_subclass__()
        if checks is not None and run is not None:  # a kind of its own
            cls._checks = checks
            for check in checks:
                setattr(cls, f"test_{check.id}", _test(check, attribute, run))
        elif problem := problem_of(cls.expected_failures, cls._checks.ids):
            raise TypeError(f"{cls.__name__}.expected_failures: {' - '.join(filter(None, problem))}")


def _test(check: Check[Any], attribute: str, run: Callable[..., None]) -> Callable[[Suite], None]:
    def test(self: Suite) -> None:
        item = getattr(type(self), attribute, None)
        if item is None:
            raise TypeError(f"{type(self).__name__} needs a class attribute {attribute!r}: the item under test")
        expected = self.expected_failures.get(check.id)
        if expected is None:
            run(check.id, item, **self.options)
        else:
            _expect_failure(lambda: run(check.id, item, **self.options), expected)

    test.__doc__ = check.expected
    return test


def _expect_failure(run: Callable[[], None], why: str) -> None:
    import pytest

    try:
        run()
    except Exception:
        pytest.xfail(why)
        raise  # with --runxfail, the line above does nothing
    pytest.fail(f"[XPASS(strict)] {why}", pytrace=False)
