"""The checkpoint of an unfinished run: replaced atomically, and loaded without executing pickled code."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.train.settings import FREE
from poolzoo.train.settings_file import legacy_value, renamed

FILE: Final = Path("checkpoint", "state.pt")
INTERVAL: Final = 10.0  # seconds between two checkpoints within an epoch …
COST_FACTOR: Final = 50  # … or this many times as long as writing one takes
VERSION: Final = 2


@dataclass(frozen=True)
class RunIdentity:
    """What a run was started with. A checkpoint is loaded only if all of it is the same.

    Attributes:
        settings: The complete settings, by name.
        data: Digest of all images and labels.
        legacy_data: Computes the digest that earlier versions wrote instead.
        inputs: Digests of other files that decide the result, by name.
    """

    settings: Mapping[str, object]
    data: str
    legacy_data: Callable[[], str] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)

    def has_data(self, digest: str) -> bool:
        """Whether a checkpoint with this digest was written for this data."""
        return digest == self.data or (self.legacy_data is not None and digest == self.legacy_data())


class Checkpoint:
    """The checkpoint of one run directory.

    Args:
        directory: The run directory.
        identity: What the run was started with.
    """

    def __init__(self, directory: Path, identity: RunIdentity) -> None:
        self.path = directory / FILE
        self.identity = identity
        self._written_at = time.monotonic()
        self._write_seconds = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough for another one."""
        return time.monotonic() - self._written_at > max(INTERVAL, COST_FACTOR * self._write_seconds)

    def postpone(self) -> None:
        """Starts the interval anew without writing."""
        self._written_at = time.monotonic()

    def write(self, state: Mapping[str, object]) -> None:
        """Replaces the checkpoint; the previous one remains until the new one is complete."""
        started = time.monotonic()
        buffer = io.BytesIO()
        settings = {key: value for key, value in self.identity.settings.items() if value is not None}
        identity = {"settings": settings, "data": self.identity.data, "inputs": dict(self.identity.inputs)}
        torch.save({"version": VERSION, **identity, **state}, buffer)
        self.path.parent.mkdir(exist_ok=True)
        files.write_atomically(self.path, buffer.getvalue())
        self._written_at = time.monotonic()
        self._write_seconds = self._written_at - started

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """The last state that was written; None if there is none.

        Args:
            device: Where its tensors go.

        Raises:
            CheckFailed: The file is damaged, or the data changed.
            UsageError: The settings of the run changed.
        """
        if not files.has_file(self.path):
            return None
        try:
            saved = torch.load(self.path, map_location=device, weights_only=True)
            settings, data, version = saved["settings"], saved["data"], saved["version"]
            inputs = saved.get("inputs", {})
            if not (_are_plain(settings) and _are_plain(inputs) and isinstance(data, str)):
                raise TypeError("something else than settings and digests")
        except Exception as error:
            raise CheckFailed(f"checkpoint {self.path} is damaged", self._restart_hint) from error
        if not isinstance(version, int) or version != VERSION:
            raise CheckFailed(f"checkpoint {self.path} has format {version}, not {VERSION}", self._restart_hint)
        before = renamed(settings)
        changed = [
            f"{key} {before.get(key)} → {value}"
            for key, value in self.identity.settings.items()
            if key not in FREE and before.get(key, legacy_value(key) if value is not None else None) != value
        ]
        if changed:
            raise UsageError(f"the settings changed since the run began: {', '.join(changed)}", self._restart_hint)
        if not self.identity.has_data(data):
            raise CheckFailed("the data changed since the run began", f"restore it, or {self._restart_hint}")
        now = self.identity.inputs  # earlier versions recorded fewer
        if others := [name for name, digest in now.items() if inputs.get(name, digest) != digest]:
            text = f"the {' and the '.join(others)} changed since the run began"
            raise CheckFailed(text, f"restore what it was, or {self._restart_hint}")
        return dict(saved)

    @property
    def _restart_hint(self) -> str:
        return f"delete {self.path} to restart the run"

    def mismatch(self, error: Exception) -> CheckFailed:
        """The error for a checkpoint whose tensors do not fit the network."""
        output.detail(str(error))
        why = f": {error.message}" if isinstance(error, CheckFailed) else ""
        return CheckFailed(f"checkpoint {self.path} belongs to another run{why}", self._restart_hint)

    def non_finite(self, part: str) -> CheckFailed:
        """The error for a checkpoint with NaN or infinity in one of its tensors."""
        hint = f"{self._restart_hint} with a smaller --lr or --clip-grad 1 in its run.toml"
        return CheckFailed(f"checkpoint {self.path} cannot be resumed: {part} holds NaN or infinity", hint)


def _are_plain(found: object) -> bool:
    """Whether it is a mapping of names to what settings hold."""
    kinds = (str, int, float, tuple, list, type(None))
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(value, kinds) for name, value in found.items()
    )
