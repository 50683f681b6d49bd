"""Networks that share a backbone get the references that they get alone, and the backbone computes each map once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from poolzoo.model.assemble import Assembly, assemble, assemble_backbone, attach_head
from poolzoo.model.config import ModelConfig
from poolzoo.model.inference import InferenceModel
from poolzoo.model.network import Preprocess
from poolzoo.parity import shared_maps
from poolzoo.parity.reference import Reference
from poolzoo.parity.shared_maps import SharedMaps

CONFIG = ModelConfig("nano/resnet", "avg", 3, (16, 16), image_size=(32, 32))
IMAGES = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), np.uint8)


def inference_model(assembly: Assembly, mean: float = 0.5) -> InferenceModel:
    preprocess = Preprocess((mean,) * 3, (0.25,) * 3, (16, 16), (32, 32))
    return InferenceModel(preprocess, assembly.network).eval()


@pytest.fixture
def models() -> list[InferenceModel]:
    torch.manual_seed(0)
    backbone = assemble_backbone(CONFIG)
    pools = ("avg", "gem", "netvlad")
    return [inference_model(attach_head(backbone, ModelConfig("nano/resnet", pool, 3, (16, 16)))) for pool in pools]


def counted(model: InferenceModel) -> list[int]:
    """The sizes of the batches that the backbone sees from now on."""
    seen: list[int] = []
    model.network.backbone.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    return seen


def same(first: Reference, second: Reference) -> bool:
    pairs = zip((*first.float32, *first.expected), (*second.float32, *second.expected), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs) and np.array_equal(first.allowed, second.allowed)


def test_each_network_gets_what_it_gets_alone(models):
    alone = [Reference.compute(model, IMAGES, None) for model in models]
    shared = SharedMaps(models[0].network.backbone)
    seen = counted(models[0])
    first = Reference.compute(models[0], IMAGES, None, shared=shared)
    ran = len(seen)
    others = [Reference.compute(model, IMAGES, None, shared=shared) for model in models[1:]]
    assert ran > 0
    assert len(seen) == ran  # all other maps were there
    assert all(map(same, [first, *others], alone))


def test_other_images_and_other_statistics_have_maps_of_their_own(models):
    shared = SharedMaps(models[0].network.backbone)
    batch = torch.from_numpy(IMAGES[:4])
    brighter = InferenceModel(Preprocess((0.25,) * 3, (0.25,) * 3, (16, 16), (32, 32)), models[0].network).eval()
    with torch.inference_mode():
        shared.outputs(models[0], batch)
        for model, images in ((models[0], batch + 1), (brighter, batch), (models[0], batch[:3])):
            found, expected = shared.outputs(model, images), model(images)
            assert all(map(torch.equal, found, expected))


def test_a_network_with_another_backbone_computes_its_own(models):
    other = inference_model(assemble(CONFIG))
    shared, batch = SharedMaps(models[0].network.backbone), torch.from_numpy(IMAGES[:4])
    with torch.inference_mode():
        shared.outputs(models[0], batch)
        assert torch.equal(shared.outputs(other, batch)[0], other(batch)[0])


@pytest.mark.filterwarnings("ignore:.*TF32")
def test_other_orders_of_summation_have_maps_of_their_own(models):
    shared, batch, seen = SharedMaps(models[0].network.backbone), torch.from_numpy(IMAGES[:4]), counted(models[0])
    threads = torch.get_num_threads()
    with torch.inference_mode():
        shared.outputs(models[0], batch)
        with torch.backends.mkldnn.flags(enabled=False):
            shared.outputs(models[0], batch)
        try:
            torch.set_num_threads(threads + 1)
            shared.outputs(models[0], batch)
        finally:
            torch.set_num_threads(threads)
    assert len(seen) == 3


class Broadcast(nn.Module):
    """A backbone that gives one value for all spatial locations, without copies of it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).mean((2, 3), keepdim=True).expand(-1, -1, 2, 2)


def test_a_map_arrives_in_the_memory_layout_that_the_backbone_gives(models):
    network = models[0].network.with_backbone(Broadcast(models[0].network.backbone))
    model, seen = InferenceModel(models[0].preprocess, network).eval(), []
    network.pool.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].stride()))
    shared, batch = SharedMaps(network.backbone), torch.from_numpy(IMAGES[:4])
    with torch.inference_mode():
        shared.outputs(model, batch)
        shared.outputs(model, batch)
    assert seen[0] == seen[1]


class Doubling(nn.Module):
    """An average that spoils its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2).mean((2, 3))


def test_a_layer_that_changes_its_input_spoils_no_kept_map(models):
    shared, batch = SharedMaps(models[0].network.backbone), torch.from_numpy(IMAGES[:4])
    with torch.inference_mode():
        expected = models[0](batch)[0]
        models[1].network.pool = Doubling()
        for _ in range(2):
            shared.outputs(models[1], batch)
        assert torch.equal(shared.outputs(models[0], batch)[0], expected)


def test_maps_beyond_the_limit_are_computed_again(models, monkeypatch):
    shared, batch = SharedMaps(models[0].network.backbone), torch.from_numpy(IMAGES[:4])
    with torch.inference_mode():
        one = models[0].network.forward_map(models[0].preprocess(batch))
        monkeypatch.setattr(shared_maps, "BYTES", one.nbytes)
        seen = counted(models[0])
        for images in (batch, batch, batch + 1, batch + 1):
            assert all(map(torch.equal, shared.outputs(models[0], images), models[0](images)))
    assert len(seen) == 4 + 3  # by themselves, and all but the second
