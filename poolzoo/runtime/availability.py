"""Whether a runtime is installed here, and which version, found without importing it."""

from __future__ import annotations

from dataclasses import dataclass

from poolzoo.plugin.modules import is_module
from poolzoo.plugin.spec import Runtime
from poolzoo.runtime import npm


@dataclass(frozen=True)
class Availability:
    """What there is of a runtime.

    Attributes:
        missing: The modules, programs and npm packages that are not there; empty where it is installed.
        versions: The versions of its distributions and npm packages, by name; of those that are installed.
    """

    missing: tuple[str, ...]
    versions: dict[str, str]

    @property
    def installed(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def version(self) -> str:
        """The versions in words: "1.32.0", or "MNN 3.6.1, onnx 1.23.2" where there are several."""
        if len(self.versions) == 1:
            return next(iter(self.versions.values()))
        return ", ".join(f"{name} {version}" for name, version in self.versions.items())

    def describe(self, runtime: Runtime) -> str:
        """The version, or "not installed" and how to get it."""
        if self.installed:
            return self.version or "installed"
        return f"not installed: {runtime.install}" if runtime.install else f"not installed: {', '.join(self.missing)}"


def find(runtime: Runtime) -> Availability:
    """Looks a runtime's modules and programs up; imports and starts none of them."""
    from poolzoo.common.programs import find_program

    missing = [name for name in runtime.modules if not is_module(name)]
    missing += [name for name in runtime.programs if find_program(name) is None]
    packages = {name: npm.look_up(name) for name in runtime.npm}
    missing += [name for name, folder in packages.items() if folder is None]
    versions = {name: npm.package_version(folder) for name, folder in packages.items() if folder is not None}
    return Availability(tuple(missing), _versions(runtime.distributions) | versions)


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in distributions:
        try:
            found[name] = str(metadata.version(name))
        except Exception:  # it is not installed, or its metadata is damaged
            continue
    return found
