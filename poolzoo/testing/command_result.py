"""What a command of poolzoo left behind, and assertions on it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any, Final

SHOWN: Final = 20  # lines of stderr that a failed assertion shows


@dataclass(frozen=True)
class CommandResult:
    """A command that has ended.

    Attributes:
        arguments: What followed `poolzoo`.
        exit_code: 0 for success, 1 for a check that failed, 2 for a usage error, 3 for a plugin, 4 for the environment.
        stdout: Its data.
        stderr: Its messages. Of a command in this process, without what C libraries print.
    """

    arguments: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    def assert_ok(self) -> CommandResult:
        """Asserts that the command succeeded; returns this result.

        Raises:
            AssertionError: The exit code is not 0.
        """
        return self.assert_exit(0)

    def assert_exit(self, code: int, match: str = "") -> CommandResult:
        """Asserts how the command ended; returns this result.

        Args:
            code: The exit code.
            match: A regular expression that stderr must contain.

        Raises:
            AssertionError: It ended in another way.
        """
        __tracebackhide__ = True
        if self.exit_code != code:
            raise AssertionError(f"exit code {self.exit_code} instead of {code} of {self}")
        if not re.search(match, self.stderr):
            raise AssertionError(f"no {match!r} in stderr of {self}")
        return self

    @property
    def json(self) -> Any:
        """The one JSON value on stdout.

        Raises:
            AssertionError: It is no JSON, such as without `--json`.
        """
        import json

        try:
            return json.loads(self.stdout)
        except ValueError as error:
            raise AssertionError(f"stdout is no JSON ({error}): {self.stdout[:200]!r}, of {self}") from None

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.stdout.splitlines()

    @property
    def error(self) -> str:
        """The text of the error that ended the command; "" without one."""
        return self._after("error: ")

    @property
    def hint(self) -> str:
        """The hint below that error; "" without one."""
        return self._after("hint: ")

    def _after(self, start: str) -> str:
        found = [line.removeprefix(start) for line in self.stderr.splitlines() if line.startswith(start)]
        return found[-1] if found else ""

    def __str__(self) -> str:
        end = "\n".join(self.stderr.splitlines()[-SHOWN:])
        return f"poolzoo {shlex.join(self.arguments)}" + (f"\n{end}" if end else "")
