"""Over timm's architectures: every tensor of a backbone comes from what timm published, and what it leaves is named."""

from __future__ import annotations

import pytest
import timm
import torch

from poolzoo.backbones import timm_network
from poolzoo.model.accounting import differences
from poolzoo.plugin import loader

MOST = 30_000_000  # parameters of the backbones that are looked at
# One each of how timm's families end: a norm, layers or an attention pooling behind the map, class and register tokens.
FAMILIES = [
    "test_byobnet",
    "test_convnext3",
    "coatnext_nano_rw_224",
    "test_efficientnet_ln",
    "test_mambaout",
    "test_vit3",
    "test_vit_relpos",
]
SWEPT = sorted(set(timm.list_models()) - set(FAMILIES))


def accounted(name: str) -> None:
    """Compares key sets on the meta device, where nothing is computed.

    Raises:
        AssertionError: A tensor is in none of the lists.
    """
    size = tuple(timm.models.get_pretrained_cfg(name).input_size[-2:])
    item = loader.catalog().backbone(f"timm/{name}").item
    fixed = timm.models.get_pretrained_cfg(name).fixed_input_size
    found = timm_network.published(name, (("img_size", size),) if fixed else ())
    ends = found.classifier or ("\0",)
    learned = {key: value for key, value in found.network.named_parameters() if not key.startswith(ends)}
    if sum(value.numel() for value in learned.values()) > MOST:
        pytest.skip("a larger one")
    with torch.device("meta"):
        backbone = item.build(image_size=size)
        state, own = found.network.state_dict(), backbone.state_dict()
        kept, left_out = backbone.origin.convert_state_dict(own, state, name)
    head = backbone.origin.head(backbone)
    assert differences(own, kept) == []
    assert kept.keys() == own.keys()
    assert len(kept) + len(left_out) == len(state)
    behind = tuple(f"{layer}." for layer in head.left_out)
    nameless = [key for key in left_out if not key.startswith((*ends, *behind)) and key not in head.left_out]
    assert nameless == []


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_is_accounted_for(name):
    accounted(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEPT)
def test_every_tensor_of_all_others_is_accounted_for(name):
    timm_network.published.cache_clear()  # of the ones before, for memory
    accounted(name)
