"""Wavelet pooling for poolzoo, local and global, with the filters of PyWavelets.

This module is the plugin. It imports neither torch nor pywt: the layers lie in `poolzoo_wavelet.layers`, which is
imported when the first of them is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from poolzoo import Pooling, hookimpl

if TYPE_CHECKING:
    from torch import nn

POOLZOO_API: Final = 1

# PyWavelets' names, and what to call them in a list. Haar is missing because poolzoo has it: `wavelet`.
WAVELETS: Final = {
    "db2": "Daubechies' wavelet of 4 taps",
    "db3": "Daubechies' wavelet of 6 taps",
    "db4": "Daubechies' wavelet of 8 taps",
    "sym4": "Daubechies' least asymmetric wavelet of 8 taps",
    "coif1": "the first coiflet",
    "bior2.2": "the biorthogonal spline wavelet 2.2",
}
_WILLIAMS: Final = "Williams and Li, Wavelet Pooling for Convolutional Neural Networks, ICLR 2018"


@hookimpl
def poolzoo_poolings() -> Iterator[Pooling]:
    """Each wavelet twice: its low-pass band in place of local windows, the mean size of its four bands as a head."""
    for wavelet, words in WAVELETS.items():
        yield Pooling(
            name=f"wavelet-{wavelet}",
            summary=f"low-pass band of {words}",
            kind="local",
            build=_local(wavelet),
            equation=f"y = (l ⊗ l * x) at every second position, l = low-pass filter of {wavelet}",
            paper=_WILLIAMS,
            parameter_free=True,
        )
        yield Pooling(
            name=f"wavelet-{wavelet}",
            summary=f"mean size of the four bands of {words} (ours)",
            kind="global",
            build=_global(wavelet),
            equation=f"y = [mean LL, mean |LH|, mean |HL|, mean |HH|], bands of one step of {wavelet}",
            parameter_free=True,
        )


# Functions that are made rather than partials, because the host reads a build's options from its signature: a partial
# would show `wavelet`, and a user could type it.


def _local(wavelet: str) -> Callable[..., nn.Module]:
    def build(channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> nn.Module:
        from poolzoo_wavelet.layers import LowPass

        return LowPass(wavelet, kernel_size, stride, padding, ceil_mode)

    return build


def _global(wavelet: str) -> Callable[..., nn.Module]:
    def build(channels: int) -> nn.Module:
        from poolzoo_wavelet.layers import BandMeans

        return BandMeans(wavelet)

    return build
