"""Fills a network from a state dict and accounts for every tensor: loaded, fresh, left out by name, or an error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NotRequired, Protocol, TypedDict

from torch import Tensor, nn

from poolzoo.common import conform
from poolzoo.common.errors import CheckFailed, UsageError

SHOWN: Final = 6  # names of tensors on a line; --json, config.json and -v have all
# A batch norm's count of batches. Files from before torch 0.4.1 lack it, and only momentum=None reads it.
COUNTER: Final = "num_batches_tracked"


class AccountingJson(TypedDict):
    """`weights` in config.json. The lists of names are missing where the network is from scratch."""

    text: str
    source: str | None
    tensors: int
    loaded: int
    fresh: int
    fresh_names: NotRequired[list[str]]
    left_out: NotRequired[list[str]]
    unchanged: NotRequired[list[str]]


@dataclass(frozen=True)
class Accounting:
    """Where every tensor of a network came from. A tensor in none of these lists is an error.

    Attributes:
        source: The file or the publisher of the weights; "" for a network from scratch.
        loaded: Tensors of the network that come from the source.
        fresh: Tensors of the network that keep their random initialization, by design.
        left_out: Tensors of the file that have no place in the network, under their names in the file.
        unchanged: Of those that a plugin loaded by itself, the ones with the values of a network from scratch.
    """

    source: str = ""
    loaded: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """The number of tensors of the network."""
        return len(self.loaded) + len(self.fresh)

    def renamed(self, rename: Callable[[str], str]) -> Accounting:
        """The same with other names for the network's tensors, as where it becomes a part of a larger one."""
        return replace(
            self,
            loaded=tuple(map(rename, self.loaded)),
            fresh=tuple(map(rename, self.fresh)),
            unchanged=tuple(map(rename, self.unchanged)),
        )

    def within(self, names: Iterable[str]) -> Accounting:
        """The accounting of a larger network with the tensors `names`.

        Its tensors that were not loaded are fresh. Loaded tensors that it does not have are left out.
        """
        own, loaded = tuple(names), set(self.loaded)
        fresh = tuple(name for name in own if name not in loaded)
        removed = tuple(sorted(loaded.difference(own)))
        kept = tuple(name for name in self.loaded if name not in removed)
        return replace(self, loaded=kept, fresh=fresh, left_out=(*self.left_out, *removed))

    def line(self) -> str:
        """All of it on one line."""
        if not self.source:
            return f"from scratch, {self.total} tensors"
        parts = [f"{len(self.loaded)} of {self.total} tensors from {self.source}"]
        if self.unchanged:
            parts.append(f"{len(self.unchanged)} of them as from scratch: {listed(self.unchanged)}")
        if self.fresh:
            owners = dict.fromkeys(_owner(name) for name in self.fresh)
            parts.append(f"fresh: {listed(list(owners))} ({len(self.fresh)})")
        if self.left_out:
            parts.append(f"left out of the file: {listed(self.left_out)}")
        return "; ".join(parts)

    def to_json(self) -> AccountingJson:
        """Counts and names; the loaded tensors are all those that are not named."""
        found: AccountingJson = {
            "text": self.line(),
            "source": self.source or None,
            "tensors": self.total,
            "loaded": len(self.loaded),
            "fresh": len(self.fresh),
        }
        if self.source:
            found["fresh_names"] = list(self.fresh)
            found["left_out"] = list(self.left_out)
            found["unchanged"] = list(self.unchanged)
        return found

    @classmethod
    def from_json(cls, given: object, names: Iterable[str], place: Path | str = "weights") -> Accounting:
        """Reads what `to_json` gave for a network with the tensors `names`.

        Args:
            given: Parsed JSON.
            names: The tensors of the network.
            place: The file, for messages.

        Raises:
            CheckFailed: It is something else.
        """
        found = conform.require(given, AccountingJson, place)
        if found["source"] is None:
            return cls().within(names)
        fresh, left_out = tuple(found.get("fresh_names", ())), tuple(found.get("left_out", ()))
        loaded = tuple(name for name in names if name not in fresh)
        return cls(found["source"], loaded, fresh, left_out, tuple(found.get("unchanged", ())))


class HasAccounting(Protocol):
    """A backbone's module that says where its tensors came from."""

    accounting: Accounting


def _owner(name: str) -> str:
    """The part of a network that a tensor is in; the tensor itself in the backbone, where little is fresh."""
    return name if name.startswith("backbone.") else name.partition(".")[0]


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    *,
    left_out: Collection[str] = (),
    fresh: tuple[str, ...] = (),
) -> Accounting:
    """Loads a state dict into a module and accounts for all of its tensors.

    Every difference between the two that the arguments do not name is an error.

    Args:
        module: Changed in place.
        state: Tensors under the names of `module.state_dict()`; converted to the module's dtypes.
        source: Where they come from, for messages.
        left_out: Names of the tensors that were left out of `state` before.
        fresh: Prefixes of the names that need not be in `state`.

    Raises:
        UsageError: Tensors are missing, unknown, of another shape, or not dense floating-point numbers.
        CheckFailed: Tensors hold NaN or infinity where the module's own do not. Either error leaves the module as
            it was.
    """
    own = module.state_dict()
    allowed = {name for name in own if name.startswith(fresh) or name.rpartition(".")[2] == COUNTER}
    if found := differences(own, state, tolerated=allowed):
        raise mismatch(found, source)
    if broken := [name for name, value in own.items() if name in state and _breaks(value, state[name])]:
        text = f"{len(broken)} tensors of {source} hold NaN or infinity: {listed(broken)}"
        raise CheckFailed(text, "fetch the file again, or take one from before that training failed")
    module.load_state_dict(dict(state), strict=False)
    loaded = tuple(name for name in own if name in state)
    return Accounting(source, loaded, tuple(name for name in own if name not in state), tuple(left_out))


def differences(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, tolerated: Collection[str] = (), dtypes: bool = False
) -> list[str]:
    """How a state dict differs from a network's own, in words with the first name of each kind."""
    both = [name for name in own if name in state]
    found = {
        "missing": [name for name in own if name not in state and name not in tolerated],
        "unknown": [name for name in state if name not in own],
        "of another shape": [name for name in both if own[name].shape != state[name].shape],
        "of integers, complex or sparse": [name for name in both if _cannot_replace(own[name], state[name])],
    }
    if dtypes:
        found["of another dtype"] = [name for name in both if own[name].dtype != state[name].dtype]
    return [f"{len(names)} {what} ({names[0]})" for what, names in found.items() if names]


def _cannot_replace(own: Tensor, value: Tensor) -> bool:
    """Whether conversion to a floating-point tensor would change a value: integers, complex or sparse ones."""
    return own.is_floating_point() and not (value.is_floating_point() and value.layout == own.layout)


def _breaks(own: Tensor, value: Tensor) -> bool:
    """Whether a value is not finite where a module's own is; a mask may hold infinity."""
    return value.is_floating_point() and not _is_finite(value) and _is_finite(own)


def _is_finite(value: Tensor) -> bool:
    return value.is_meta or bool(value.float().isfinite().all())


def mismatch(differences: Sequence[str], source: str) -> UsageError:
    """The error of weights that differ from what a network needs."""
    text = f"the weights in {source} are for another network: {', '.join(differences)}"
    return UsageError(text, "choose the backbone that they were made for")


def fill_exactly(
    module: nn.Module, state: Mapping[str, Tensor], source: str, hint: str, *, dropped: Collection[str] = ()
) -> None:
    """Loads a module's own state dict: every tensor, of the same shape and dtype, and no other.

    Args:
        module: Changed in place.
        state: Its state dict from before.
        source: Where that was, for messages.
        hint: What to do where it does not fit.
        dropped: Names to ignore: tensors that earlier versions saved although nothing reads them.

    Raises:
        CheckFailed: A tensor is missing, unknown, or of another shape or dtype. The module stays as it was.
    """
    state = {name: value for name, value in state.items() if name not in dropped}
    if found := differences(module.state_dict(), state, dtypes=True):
        raise CheckFailed(f"{source} does not fit the network: {', '.join(found)}", hint)
    module.load_state_dict(state)


def compare_with_untrained(module: nn.Module, untrained: nn.Module | None, source: str) -> Accounting:
    """The accounting of a module whose plugin loaded the weights by itself, by comparison with an untrained one.

    Args:
        module: With weights.
        untrained: The same from scratch, from the same random numbers; None where it could not be built.
        source: Where the weights come from.
    """
    state = module.state_dict()
    before = untrained.state_dict() if untrained is not None else {}
    alike = [n for n, v in state.items() if n in before and v.shape == before[n].shape and v.equal(before[n])]
    return Accounting(source, tuple(state), unchanged=tuple(alike))
