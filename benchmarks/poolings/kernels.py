"""Every pooling layer against the fastest other implementation that computes the same, and against reading the map.

python -m benchmarks.poolings.kernels [NAME ...] [--json FILE]

One thread, CPU time, layer and peers interleaved in shuffled order, medians of per-round ratios. `forward` runs without
gradients, `training` is a forward and a backward pass. `peer` is the ratio of our time to the peer's (below 1 is
faster), `sum` that to `x.sum()`. `onnx` is ONNX Runtime's forward pass in milliseconds. A peer that is implemented here
is named after the source of its formula; the others are the installed packages.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.common import allocator, timing
from poolzoo.model.cost import GEOMETRY, build_layer, timed_calls
from poolzoo.model.inference import OPSET, quiet_exporter
from poolzoo.plugin import loader
from poolzoo.plugin.spec import Pooling
from poolzoo.runtime.environment import current_environment

SHAPES = {"global": [(64, 512, 4, 4), (8, 512, 7, 7)], "local": [(64, 64, 32, 32)]}
WAYS = ("forward", "training")
SECONDS = 0.6  # for each layer, shape and direction

Peers = dict[str, nn.Module]


class Formula(nn.Module):
    """A peer that is a line of code, with the parameters that it learns."""

    def __init__(self, forward: Callable[..., Tensor], **parameters: Tensor) -> None:
        super().__init__()
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value))
        self.names = list(parameters)
        self.formula = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x, *(getattr(self, name) for name in self.names))


def global_peers(name: str, shape: tuple[int, ...]) -> Peers:
    """Other implementations of a global pooling with its default options."""
    import timm.layers as timm
    from timm.layers.other_pool import LsePlus2d, SimPool2d

    channels, size = shape[1], shape[2:]
    three = torch.tensor([3.0])

    def gem(x: Tensor, p: Tensor) -> Tensor:
        return F.avg_pool2d(x.clamp(min=1e-6).pow(p), x.shape[2:]).pow(1 / p).flatten(1)

    def soft(x: Tensor) -> Tensor:
        return (x * x.exp()).mean((2, 3)) / x.exp().mean((2, 3))

    def mixed(x: Tensor, w: Tensor) -> Tensor:
        return w * F.adaptive_max_pool2d(x, 1).flatten(1) + (1 - w) * F.adaptive_avg_pool2d(x, 1).flatten(1)

    def std(x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (2, 3), correction=0)
        return torch.cat((mean, (variance + 1e-5).sqrt()), 1)

    def spp(x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in (1, 2, 4)], 1)

    def sequence(module: nn.Module) -> nn.Module:
        return Formula(lambda x: module(x.flatten(2).transpose(1, 2)))

    heads = 8
    makers: dict[str, Callable[[], Peers]] = {
        **{
            name: lambda name=name: {
                "timm": timm.SelectAdaptivePool2d(pool_type=name, flatten=True),
                "timm fast": timm.SelectAdaptivePool2d(pool_type=f"fast{name}", flatten=True),
            }
            for name in ("avg", "max", "avgmax", "catavgmax")
        },
        "min": lambda: {"−x.amax of −x": Formula(lambda x: -(-x).amax((2, 3)))},
        "gem": lambda: {"GeM paper's code": Formula(gem, p=three)},
        "lp": lambda: {
            "torch.linalg.vector_norm": Formula(lambda x: torch.linalg.vector_norm(x, 2, (2, 3))),
            "F.lp_pool2d": Formula(lambda x: F.lp_pool2d(x, 2.0, size).flatten(1)),
        },
        "lse": lambda: {"timm LsePlus2d": LsePlus2d()},
        "soft": lambda: {"LIP paper's lip2d(x, x)": Formula(soft)},
        "mixed": lambda: {"adaptive pools": Formula(mixed, w=torch.tensor([0.5]))},
        "attention": lambda: {"timm AttentionPool2d": timm.AttentionPool2d(channels, size, num_heads=heads)},
        "map": lambda: {
            "timm AttentionPoolLatent": sequence(
                timm.AttentionPoolLatent(channels, num_heads=heads, norm_layer=nn.LayerNorm)
            )
        },
        "simpool": lambda: {"timm SimPool2d": SimPool2d(channels)},
        "prr": lambda: {
            "timm AttentionPoolPrr": sequence(timm.AttentionPoolPrr(channels, num_heads=heads, pool_type="avg"))
        },
        "topk": lambda: {"sort": Formula(lambda x: x.flatten(2).sort(2, descending=True).values[:, :, :4].mean(2))},
        "std": lambda: {
            "torch.var_mean": Formula(std)
        },
        "spp": lambda: {"F.adaptive_max_pool2d": Formula(spp)},
        "median": lambda: {"torch.median": Formula(lambda x: x.flatten(2).median(2).values)},
        "quantile": lambda: {"torch.quantile": Formula(lambda x: x.flatten(2).quantile(0.9, 2))},
        "depth": lambda: {"F.max_pool3d": Formula(lambda x: F.max_pool3d(x[:, None], (2, 1, 1))[:, 0].mean((2, 3)))},
        "adaptive": lambda: {"nn.AdaptiveAvgPool2d": nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())},
    }  # fmt: skip
    return makers.get(name, dict)()


def local_peers(name: str, shape: tuple[int, ...]) -> Peers:
    """Other implementations of a local pooling with its default options, windows of 2 × 2 and stride 2."""
    import timm.layers as timm
    from timm.layers.median_pool import MedianPool2d

    channels, (height, width) = shape[1], shape[2:]
    three = torch.tensor([3.0])

    def gem(x: Tensor, p: Tensor) -> Tensor:
        return F.avg_pool2d(x.clamp(min=1e-6).pow(p), 2).pow(1 / p)

    def lse(x: Tensor, r: Tensor) -> Tensor:
        held = F.unfold(x, 2, stride=2).view(*x.shape[:2], 4, -1)
        return ((r * held).logsumexp(2) - 1.3862944) / r

    def spectral(x: Tensor) -> Tensor:
        low = torch.fft.fftshift(torch.fft.fft2(x, norm="forward"), dim=(2, 3))
        low = low[:, :, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
        return torch.fft.ifft2(torch.fft.ifftshift(low, dim=(2, 3)), norm="forward").real

    def topk(x: Tensor) -> Tensor:
        return x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).topk(4, 4).values.mean(4)

    def lip() -> Peers:
        logit = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels, affine=True),
            nn.Sigmoid(),
        )

        class LIP(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.logit = logit

            def forward(self, x: Tensor) -> Tensor:
                weight = (12 * self.logit(x)).exp()
                return F.avg_pool2d(x * weight, 2) / F.avg_pool2d(weight, 2)

        return {"LIP paper's code": LIP()}

    def maxblurred() -> Peers:
        return {"max then timm BlurPool2d": nn.Sequential(nn.MaxPool2d(2, 1), timm.BlurPool2d(channels))}

    makers: dict[str, Callable[[], Peers]] = {
        "avg": lambda: {"nn.AvgPool2d": nn.AvgPool2d(2)},
        "max": lambda: {"nn.MaxPool2d": nn.MaxPool2d(2)},
        "min": lambda: {"−F.max_pool2d(−x)": Formula(lambda x: -F.max_pool2d(-x, 2))},
        "avgmax": lambda: {"sum of torch's": Formula(lambda x: 0.5 * (F.avg_pool2d(x, 2) + F.max_pool2d(x, 2)))},
        "gem": lambda: {"GeM paper's code": Formula(gem, p=three)},
        "lp": lambda: {"nn.LPPool2d": nn.LPPool2d(2, 2)},
        "lse": lambda: {"unfold, logsumexp": Formula(lse, r=torch.tensor([10.0]))},
        "soft": lambda: {
            "LIP paper's lip2d(x, x)": Formula(lambda x: F.avg_pool2d(x * x.exp(), 2) / F.avg_pool2d(x.exp(), 2))
        },
        "mixed": lambda: {
            "torch's pools": Formula(
                lambda x, w: w * F.max_pool2d(x, 2) + (1 - w) * F.avg_pool2d(x, 2), w=torch.tensor([0.5])
            )
        },
        "stochastic": lambda: {
            "ratio of torch's pools": Formula(
                lambda x: F.avg_pool2d(x.relu() ** 2, 2) / F.avg_pool2d(x.relu(), 2).clamp(min=1e-12)
            )
        },
        "fractional": lambda: {"nn.FractionalMaxPool2d": nn.FractionalMaxPool2d(2, (height // 2, width // 2))},
        "blur": lambda: {"timm BlurPool2d": timm.BlurPool2d(channels)},
        "maxblur": maxblurred,
        "median": lambda: {"timm MedianPool2d": MedianPool2d(2, 2)},
        "topk": lambda: {"unfold, torch.topk": Formula(topk)},
        "lip": lip,
        "spectral": lambda: {"torch.fft": Formula(spectral)},
        "wavelet": lambda: {"2 nn.AvgPool2d": Formula(lambda x: 2 * F.avg_pool2d(x, 2))},
        "depth": lambda: {"F.max_pool3d": Formula(lambda x: F.max_pool3d(x[:, None], 2)[:, 0])},
        "adaptive": lambda: {"nn.AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d((height // 2, width // 2))},
        "s2d": lambda: {"nn.PixelUnshuffle": nn.PixelUnshuffle(2)},
        "subsample": lambda: {
            "x[:, :, ::2, ::2]": Formula(lambda x: x[:, :, ::2, ::2].contiguous()),
            "F.max_pool2d of 1 × 1": Formula(lambda x: F.max_pool2d(x, 1, 2)),
        },
        "conv": lambda: {"nn.Conv2d": nn.Conv2d(channels, channels, 2, 2)},
    }  # fmt: skip
    return makers.get(name, dict)()


def measure(resolved: loader.Resolved, shape: tuple[int, ...]) -> dict[str, Any]:
    """Milliseconds and ratios of one strategy on maps of one shape."""
    kind, name = resolved.item.kind, resolved.item.name
    torch.manual_seed(0)
    x = torch.randn(shape)
    layer = build_layer(resolved, shape[1], (shape[2], shape[3])).eval()
    peers = (global_peers if kind == "global" else local_peers)(name, shape)
    sides = {"ours": layer, **{peer: module.eval() for peer, module in peers.items()}}
    row: dict[str, Any] = {"name": name, "kind": kind, "map": list(shape), "peers": list(peers)}
    ways = {side: timed_calls(module, x) for side, module in sides.items()}
    for way in WAYS:
        timed = {side: ways[side][way] for side in sides}
        times = timing.interleaved({**timed, "sum": ways["ours"]["sum"]}, SECONDS, time.process_time)
        row[f"{way}_ms"] = round(statistics.median(times["ours"]), 4)
        row[f"{way}_of_sum"] = round(timing.ratio(times["ours"], times["sum"]), 2)
        if peers:
            fastest = min(peers, key=lambda peer: statistics.median(times[peer]))
            row[f"{way}_peer"] = fastest
            row[f"{way}_of_peer"] = round(timing.ratio(times["ours"], times[fastest]), 3)
    row["onnx_ms"] = onnx_time(layer, x)
    return row


def onnx_time(layer: nn.Module, x: Tensor) -> float:
    """Milliseconds of a forward pass under ONNX Runtime, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder, quiet_exporter():
        path = Path(folder) / "layer.onnx"
        batch = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(layer, (x[:2],), path, dynamic_shapes=batch, opset_version=OPSET, verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    times = timing.interleaved({"onnx": lambda: session.run(None, feed)}, SECONDS / 2, time.process_time)
    return round(statistics.median(times["onnx"]), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="strategies to measure; all of the built-in ones by default")
    parser.add_argument("--json", type=Path, help="a file to write the measurements to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    allocator.keep()
    catalog = loader.load_plugins(installed=False)
    rows = []
    print(
        "name\tkind\tmap\tforward, ms\tof peer\tof sum\ttraining, ms\tof peer\tof sum\tonnx, ms\tpeer\ttraining's peer"
    )
    for entry in catalog.select(Pooling):
        item = entry.item
        if arguments.names and item.name not in arguments.names:
            continue
        for shape in SHAPES[item.kind]:
            row = measure(catalog.pooling(item.name, item.kind), shape)
            rows.append(row)
            print(
                item.name, item.kind, "×".join(map(str, shape)),
                f"{row['forward_ms']:.3f}", row.get("forward_of_peer", "–"), row["forward_of_sum"],
                f"{row['training_ms']:.3f}", row.get("training_of_peer", "–"), row["training_of_sum"],
                f"{row['onnx_ms']:.3f}", *(row.get(f"{way}_peer", "–") for way in WAYS), sep="\t", flush=True,
            )  # fmt: skip
    if arguments.json:
        machine = {**current_environment(1).to_json(), "torch": torch.__version__, "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"machine": machine, "geometry": GEOMETRY, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
