"""A plugin as it was written for version 1 of the plugin API. Never change it: it must always load and work."""

from poolzoo import Backbone, BackboneFamily, Dataset, Pooling, hookimpl

POOLZOO_API = 1


def build_global(channels, *, p: float = 3.0):
    from torch import nn

    class PowerMean(nn.Module):
        def forward(self, x):
            return x.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)

    return PowerMean()


def build_local(channels, kernel_size, stride, padding, ceil_mode, *, scale: float = 1.0):
    from torch import nn

    return nn.Sequential(nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode), nn.Identity())


def build_backbone(*, pretrained=False, width: int = 8):
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


def get(name):
    if name != "small":
        raise KeyError(name)
    return Backbone(name="frozen/small", summary="one convolution", build=build_backbone)


def load(split, cache_dir):
    import numpy as np

    labels = np.arange(40, dtype=np.int64) % 2
    return np.full((40, 16, 16, 3), 50, np.uint8) + 150 * labels.astype(np.uint8)[:, None, None, None], labels


@hookimpl
def poolzoo_poolings():
    return [
        Pooling(name="frozen", summary="power mean", kind="global", build=build_global),
        Pooling(name="frozen", summary="maximum", kind="local", build=build_local, equation="y = max x", paper=""),
    ]


@hookimpl
def poolzoo_backbones():
    yield Backbone(
        name="frozen-net",
        summary="one convolution",
        build=build_backbone,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        input_size=None,
        prefix_tokens=0,
        layout="auto",
        license="MIT",
    )
    yield BackboneFamily(prefix="frozen", names=lambda: ["small"], get=get)


@hookimpl
def poolzoo_datasets():
    yield Dataset(name="frozen-data", summary="dark and bright", load=load, classes=("dark", "bright"), flip=True)


@hookimpl
def poolzoo_run_started(run):
    print("started")


@hookimpl
def poolzoo_epoch_finished(run, epoch, metrics):
    print(epoch, metrics["epoch"])


@hookimpl
def poolzoo_run_finished(run, metrics):
    print("finished", metrics.get("accuracy", ""))


@hookimpl
def poolzoo_exported(bundle, report):
    print("exported", bundle)
