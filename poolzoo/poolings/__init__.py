"""The built-in pooling strategies: a plugin like any other. The layers lie beside it, one file a family."""

from __future__ import annotations

from collections.abc import Iterator

from poolzoo.spec import Pooling, hookimpl

_LIN = "Lin, Chen and Yan, Network in Network, ICLR 2014, arXiv:1312.4400"
_LEE = "Lee, Gallagher and Tu, Generalizing Pooling Functions in CNNs, AISTATS 2016, arXiv:1509.08985"
_RADENOVIC = "Radenović, Tolias and Chum, Fine-tuning CNN Image Retrieval, TPAMI 2018, arXiv:1711.02512"
_PINHEIRO = "Pinheiro and Collobert, From Image-level to Pixel-level Labeling, CVPR 2015, arXiv:1411.6228"
_ZHANG = "Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, arXiv:1904.11486"

_WINDOWED = "poolzoo.poolings.windowed"
_POWER = "poolzoo.poolings.power"
_ANTIALIASED = "poolzoo.poolings.antialiased"


@hookimpl
def poolzoo_poolings() -> Iterator[Pooling]:
    yield Pooling(
        name="avg",
        kind="global",
        summary="mean over the map",
        build=f"{_WINDOWED}:global_avg",
        equation="y = mean x",
        paper=_LIN,
    )
    yield Pooling(
        name="avg",
        kind="local",
        summary="mean over each window",
        build=f"{_WINDOWED}:local_avg",
        equation="y = mean of x in the window",
    )
    yield Pooling(
        name="max",
        kind="global",
        summary="maximum over the map",
        build=f"{_WINDOWED}:global_max",
        equation="y = max x",
    )
    yield Pooling(
        name="max",
        kind="local",
        summary="maximum over each window",
        build=f"{_WINDOWED}:local_max",
        equation="y = max of x in the window",
    )
    yield Pooling(
        name="min",
        kind="global",
        summary="minimum over the map",
        build=f"{_WINDOWED}:global_min",
        equation="y = min x",
    )
    yield Pooling(
        name="min",
        kind="local",
        summary="minimum over each window",
        build=f"{_WINDOWED}:local_min",
        equation="y = min of x in the window",
    )
    yield Pooling(
        name="avgmax",
        kind="global",
        summary="halfway between mean and maximum",
        build=f"{_WINDOWED}:global_avgmax",
        equation="y = (mean x + max x) / 2",
        paper=_LEE,
    )
    yield Pooling(
        name="catavgmax",
        kind="global",
        summary="mean and maximum side by side, twice the width",
        build=f"{_WINDOWED}:global_catavgmax",
        equation="y = [mean x, max x]",
    )
    yield Pooling(
        name="adaptive",
        kind="global",
        summary="mean or maximum over a fixed grid of cells, flattened",
        build=f"{_WINDOWED}:global_adaptive",
        equation="y[c, i, j] = mean or max of x[c] over rows ⌊iH/s⌋ to ⌈(i+1)H/s⌉, columns likewise",
    )
    yield Pooling(
        name="gem",
        kind="global",
        summary="generalised mean with a learnable exponent",
        build=f"{_POWER}:global_gem",
        equation="y = (mean max(x, eps)^p)^(1/p)",
        paper=_RADENOVIC,
    )
    yield Pooling(
        name="lse",
        kind="global",
        summary="log-mean-exp with a learnable sharpness, between mean and maximum",
        build=f"{_POWER}:global_lse",
        equation="y = (1/r) log mean exp(r x)",
        paper=_PINHEIRO,
    )
    yield Pooling(
        name="blur",
        kind="local",
        summary="binomial low-pass filter, then subsampling",
        build=f"{_ANTIALIASED}:local_blur",
        equation="y = (b ⊗ b * x) at every stride-th position, b = [1, 2, 1] / 4",
        paper=_ZHANG,
    )
    yield Pooling(
        name="maxblur",
        kind="local",
        summary="dense maximum, then binomial low-pass filter and subsampling",
        build=f"{_ANTIALIASED}:local_maxblur",
        equation="y = blur(max of x in the window, at stride 1)",
        paper=_ZHANG,
    )
