"""What the checks of poolings work on: a pooling under test, its layers, inputs, and assertions on outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from poolzoo.model.geometry import Geometry
from poolzoo.plugin.grammar import accepts
from poolzoo.plugin.spec import Pooling

CHANNELS: Final = 24  # divisible by few numbers, so that defaults that fit only powers of two fail
GEOMETRIES: Final = (
    Geometry(2, 2),
    Geometry(3, 2, padding=1),
    Geometry(3, 2, ceil_mode=True),
    Geometry(2, 2, ceil_mode=True),
    Geometry(3, 1, padding=1),
)


@dataclass(frozen=True)
class CheckedPooling:
    """A pooling under test.

    Attributes:
        pooling: As its plugin provides it.
        make: Its build, imported.
        options: Options for the build.
    """

    pooling: Pooling
    make: Callable[..., Any]
    options: Mapping[str, object]

    def build(self, geometry: Geometry | None = None, channels: int = CHANNELS, seed: int = 0) -> nn.Module:
        """A layer in eval mode with noise on its parameters, so that zeros and ones disable no branch."""
        torch.manual_seed(seed)
        if self.pooling.kind == "global":
            extra = {"map_size": (7, 7)} if accepts(self.make, "map_size") else {}
            module = self.make(channels, **extra, **self.options)
        else:
            module = (geometry or self.geometries()[0]).build(self.make, channels, self.options)
        assert isinstance(module, nn.Module), f"build gives a {type(module).__name__}, not an nn.Module"
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return module.eval()

    def geometries(self) -> list[Geometry]:
        """The usual geometries that the pooling accepts."""
        accepted, reasons = [], []
        for geometry in GEOMETRIES:
            try:
                geometry.build(self.make, CHANNELS, self.options)
                accepted.append(geometry)
            except ValueError as error:
                reasons.append(str(error))
        assert accepted, f"no usual geometry is accepted: {reasons[0]}"
        return accepted

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """A layer for each geometry, with a prefix for messages that names it; one for a global pooling."""
        for prefix, _, layer in self.layers_with_geometry():
            yield prefix, layer

    def layers_with_geometry(self) -> Iterator[tuple[str, Geometry | None, nn.Module]]:
        """The same with the geometry, None for a global pooling."""
        if self.pooling.kind == "global":
            yield "", None, self.build()
            return
        for g in self.geometries():
            prefix = f"kernel {g.kernel_size} stride {g.stride} padding {g.padding} ceil_mode {g.ceil_mode}: "
            yield prefix, g, self.build(g)


def signed(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, always the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Asserts equality up to `tolerance` times the largest number expected, or times 1 where that is smaller."""
    assert found.shape == expected.shape, f"{what}: shape {list(found.shape)} instead of {list(expected.shape)}"
    error = (found.double() - expected.double()).abs().max().item()
    scale = max(1.0, expected.double().abs().max().item())
    assert error <= tolerance * scale, f"{what}: differs by {error:.3g} where numbers go up to {scale:.3g}"


def assert_finite(values: Tensor | None, what: str) -> None:
    """Asserts that there are values, and that none is NaN or infinite."""
    assert values is not None, f"{what}: there is none"
    bad = (~values.isfinite()).sum().item()
    assert not bad, f"{what}: {bad} of {values.numel()} numbers are not finite"
