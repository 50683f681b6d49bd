"""Every pooling in backbones of every kind: assembled, trained for a step, exported, and in parity. Slow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poolzoo import bundle, host, runs, surgery
from poolzoo.assemble import Plan, Preprocess, assemble
from poolzoo.deploy import graph, parity, runtime
from poolzoo.deploy.subject import of_run
from poolzoo.errors import UsageError
from poolzoo.spec import Pooling

pytestmark = pytest.mark.slow

BACKBONES = (
    "nano/plain",
    "nano/resnet",
    "timm/resnet18",
    "timm/vit_tiny_patch16_224",
    "timm/test_convnext",
    "torchvision/mobilenet_v3_small",
)
ITEMS = [entry.item for entry in host.load_plugins(installed=False).select(Pooling)]
CELLS = [(item.name, item.kind, backbone) for item in ITEMS for backbone in BACKBONES]


def wake(network: nn.Module) -> None:
    """Gives zero-initialised parameters and batch norms numbers, because a branch that is zero agrees with anything."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.detach().abs().max() < 1e-4:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)


@pytest.mark.parametrize(("name", "kind", "backbone"), CELLS)
def test_every_pooling_in_every_backbone(tmp_path, name, kind, backbone):
    torch.manual_seed(0)
    pool, local_pool = (name, None) if kind == "global" else ("avg", name)
    size = (32, 32)
    if local_pool == "wavelet":
        local_pool = "wavelet:window=2,stride=2,padding=0"  # the only geometry that it has
    plan = Plan(backbone, pool, 10, size, local_pool=local_pool)
    if local_pool is not None and not surgery.pooling_modules(
        assemble(Plan(backbone, "avg", 10, size)).network.backbone
    ):
        pytest.skip(f"{backbone} has no pooling module to replace")
    if kind == "local" and backbone.startswith("timm/") and name in ("depth", "s2d"):
        with pytest.raises(UsageError, match="the layer behind takes"):
            assemble(plan)
        return
    assembly = assemble(plan)
    network = assembly.network
    wake(network)
    preprocess = Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), size, assembly.image_size)
    images = np.random.default_rng(0).integers(0, 256, (16, *size, 3), dtype=np.uint8)

    network.train()
    loss = F.cross_entropy(network(preprocess(torch.from_numpy(images))), torch.arange(16) % 10)
    loss.backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert not without
    torch.optim.SGD(network.parameters(), lr=1e-3).step()

    config = runs.configuration(assembly, preprocess, tuple("abcdefghij"), "noise")
    run = runs.Run(tmp_path, network.eval(), preprocess.eval(), config)
    samples = images, np.arange(16) % 10
    runs.save_samples(tmp_path / "samples.npz", samples, samples)
    bundle.write_atomically(tmp_path / "model.safetensors", runs.weights_bytes(network.state_dict()))
    subject = of_run(run)
    graph.export_graph(subject, tmp_path / "model.onnx")
    opened = runtime.open_model(tmp_path / "model.onnx")
    verdict = parity.check(subject.model, opened, *samples)
    assert verdict.passed, parity.explain(verdict.report)
