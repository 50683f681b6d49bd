"""Geometry: where a local pooling places its windows, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from poolzoo.common.errors import UsageError

# build(channels, kernel_size, stride, padding, ceil_mode, **options), the contract of a local pooling
LocalBuild = Callable[..., nn.Module]
MAX_SIDE = 256  # of a window; poolings that look at each of its places need its square in memory


@dataclass(frozen=True)
class Geometry:
    """Where a local pooling places its square windows; every field means what it means for `nn.MaxPool2d`."""

    kernel_size: int
    stride: int
    padding: int = 0
    ceil_mode: bool = False

    def build(self, make: LocalBuild, channels: int, options: Mapping[str, object] | None = None) -> nn.Module:
        """A local pooling with this geometry, by the `build` of a plugin."""
        return make(channels, self.kernel_size, self.stride, self.padding, self.ceil_mode, **(options or {}))

    def output_size(self, size: int) -> int:
        """How many windows there are along an axis of `size` spatial locations."""
        span = size + 2 * self.padding - self.kernel_size
        if not self.ceil_mode:
            return span // self.stride + 1
        count = -(-span // self.stride) + 1
        if (count - 1) * self.stride >= size + self.padding:  # the last window must start inside input or left pad
            count -= 1
        return count

    def changed(self, window: int | None, stride: int | None, padding: int | None) -> Geometry:
        """The geometry with other sizes; None leaves one as it is, but a new window has a padding of its own.

        Raises:
            UsageError: The padding is more than half of the window.
        """
        kernel_size = self.kernel_size if window is None else window
        default_padding = self.padding if window is None else (kernel_size - 1) // 2
        new_padding = default_padding if padding is None else padding
        if 2 * new_padding > kernel_size:
            raise UsageError(
                f"padding={new_padding} is more than half of window={kernel_size}", "use a smaller padding"
            )
        return Geometry(kernel_size, self.stride if stride is None else stride, new_padding, self.ceil_mode)
