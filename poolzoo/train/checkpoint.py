"""The state of an unfinished run on disk: written whole or not at all, read without running what a pickle may hold."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.train.settings import renamed

FILE: Final = Path("checkpoint", "state.pt")
EVERY: Final = 10.0  # seconds between two checkpoints within an epoch …
LEAST_SHARE: Final = 50  # … or this many times as long as one takes to write
VERSION: Final = 2


@dataclass(frozen=True)
class Identity:
    """What a run was started with; a checkpoint goes on only where all of it is the same.

    Attributes:
        settings: The complete arguments.
        data: Digest of all images and labels.
        former_data: Computes what earlier versions kept in its place.
    """

    settings: dict[str, Any]
    data: str
    former_data: Callable[[], str] | None = None

    def is_data(self, kept: str) -> bool:
        """Whether a checkpoint was made with this data."""
        return kept == self.data or (self.former_data is not None and kept == self.former_data())


class Checkpoint:
    """The checkpoint of one run directory.

    Args:
        directory: The run's.
        identity: What it was started with.
    """

    def __init__(self, directory: Path, identity: Identity) -> None:
        self.path, self.identity = directory / FILE, identity
        self._written, self._cost = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether the last one is old enough for another."""
        return time.monotonic() - self._written > max(EVERY, LEAST_SHARE * self._cost)

    def put_off(self) -> None:
        """Lets as much time pass as after one that was written."""
        self._written = time.monotonic()

    def write(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint; the old one stays until the new one is whole."""
        started = time.monotonic()
        buffer = io.BytesIO()
        plain = {key: value for key, value in self.identity.settings.items() if value is not None}
        torch.save({"version": VERSION, "settings": plain, "data": self.identity.data, **state}, buffer)
        self.path.parent.mkdir(exist_ok=True)
        files.write_atomically(self.path, buffer.getvalue())
        self._written = time.monotonic()
        self._cost = self._written - started

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """The state that was written last; None where none was.

        Raises:
            CheckFailed: The file is damaged, or the data is no longer what it was.
            UsageError: The run's arguments are no longer what they were.
        """
        if not self.path.is_file():
            return None
        anew = f"delete {self.path} to start that run anew"
        try:
            saved = torch.load(self.path, map_location=device, weights_only=True)
            was, data, version = renamed(saved["settings"]), saved["data"], saved["version"]
        except Exception as error:
            raise CheckFailed(f"checkpoint {self.path} is damaged", anew) from error
        if version != VERSION:
            raise CheckFailed(f"checkpoint {self.path} is another version's", anew)
        now = self.identity.settings
        changed = [f"{key} {was.get(key)} → {value}" for key, value in now.items() if was.get(key) != value]
        if changed:
            raise UsageError(f"the run's arguments were changed since it began: {', '.join(changed)}", anew)
        if not self.identity.is_data(data):
            raise CheckFailed("the data changed since the run began", f"bring it back, or {anew}")
        return dict(saved)

    def refuse(self, error: Exception) -> CheckFailed:
        """The error of a checkpoint whose parts do not fit the network."""
        output.detail(str(error))
        why = f": {error.message}" if isinstance(error, CheckFailed) else ""
        return CheckFailed(
            f"checkpoint {self.path} is another run's{why}", f"delete {self.path} to start that run anew"
        )

    def refuse_broken(self, part: str) -> CheckFailed:
        """The error of a checkpoint that training cannot go on from."""
        anew = f"delete {self.path} to start that run anew, with a smaller --lr or --clip-grad 1 in its run.toml"
        return CheckFailed(f"checkpoint {self.path} cannot be trained on: {part} holds NaN or infinity", anew)
