"""A complete third-party plugin in one file: poolzoo finetune --plugin power_mean.py --pool power-mean:p=4"""

from poolzoo import Pooling, hookimpl


def build(channels: int, *, p: float = 3.0):
    from torch import nn

    class PowerMean(nn.Module):
        def forward(self, x):  # float[N, C, H, W] → float[N, D]
            wide = x if x.dtype.itemsize > 4 else x.float()
            return wide.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p).to(x.dtype)

    return PowerMean()


@hookimpl
def poolzoo_poolings():
    yield Pooling(name="power-mean", summary="power mean over the feature map", kind="global", build=build)
