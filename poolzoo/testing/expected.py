"""Checks that a plugin is expected to fail, with the reasons; one that passes all the same is an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from poolzoo.common.errors import UsageError
from poolzoo.plugin.grammar import suggest


def problem_of(reasons: Mapping[str, str], ids: Iterable[str]) -> tuple[str, str] | None:
    """What is wrong with expected failures: a message and a hint; None where nothing is.

    Args:
        reasons: The reasons by the id of the check.
        ids: The ids that there are.
    """
    known = list(ids)
    for check, why in reasons.items():
        if check not in known:
            hint = suggest(check, known) or "poolzoo plugin check --list shows all"
            return f"no check is called {check!r}", hint
        if not isinstance(why, str) or not why.strip():
            return f"{check!r} has no reason", f'give one: {{"{check}": "why it fails"}}'
    return None


@dataclass(frozen=True)
class ExpectedFailures:
    """The checks that the items of a plugin are expected to fail.

    Attributes:
        reasons: The reasons by `CHECK`, which means every item with this check, or by `ITEM:CHECK`.
        origin: What states them, for messages: a file, or an option.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    def __or__(self, other: ExpectedFailures) -> ExpectedFailures:
        """Those of both; `other` wins."""
        origins = dict.fromkeys(one.origin for one in (self, other) if one.reasons)
        return ExpectedFailures({**self.reasons, **other.reasons}, " and ".join(origins))

    def reason(self, item: str, check: str) -> str | None:
        """Why an item is expected to fail a check; None where it is not."""
        return self.reasons.get(f"{item}:{check}", self.reasons.get(check))

    def require_known(self, ids: Iterable[str], items: Iterable[str] | None = None) -> None:
        """Makes sure that every check and every item is there.

        Args:
            ids: The ids of all checks.
            items: The names of the plugin's items; None where they are not known.

        Raises:
            UsageError: One is not, or has no reason.
        """
        names = list(items or ())
        plain = {}
        for key, why in self.reasons.items():
            item, _, check = key.rpartition(":")
            if items is not None and item and item not in names:
                hint = suggest(item, names) or f"it provides {', '.join(sorted(set(names))) or 'nothing'}"
                raise UsageError(f"{self.origin}: the plugin provides no {item!r}", hint)
            plain[check] = why
        if found := problem_of(plain, ids):
            raise UsageError(f"{self.origin}: {found[0]}", found[1])

    def of_items(self, items: Iterable[str]) -> ExpectedFailures:
        """Those without the ones of other items: a file may be one of several plugins of a project."""
        names = {"", *items}
        kept = {key: why for key, why in self.reasons.items() if key.rpartition(":")[0] in names}
        return ExpectedFailures(kept, self.origin)
