"""What the command line says about plugins: one object for the process; importing it imports no plugin host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class PluginSettings:
    """Which plugins to look for, and what to make of them.

    Attributes:
        files: Python files that are loaded as plugins.
        directories: Directories whose Python files are loaded as plugins.
        installed: Whether installed plugins are loaded.
        third_party: Whether any plugin is loaded beside the built-in ones.
        strict: Whether a plugin's problem is an error.
        prefer: Distributions whose entries a bare name means where others have them too.
    """

    files: list[Path] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)
    installed: bool = True
    third_party: bool = True
    strict: bool = False
    prefer: list[str] = field(default_factory=list)

    def update(self, other: PluginSettings) -> None:
        """Takes the values of `other` over."""
        vars(self).update(vars(other))

    def reset(self) -> None:
        """Goes back to the defaults."""
        self.update(PluginSettings())


settings = PluginSettings()
