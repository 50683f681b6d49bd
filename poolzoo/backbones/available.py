"""Which pretrained weights are on this machine already: with the package, in a plugin, or in the cache of a hub."""

from __future__ import annotations

from pathlib import Path

from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader


def has_local_weights(name: str) -> bool:
    """Whether a backbone's published weights can be loaded without a network; nothing is loaded or fetched.

    A backbone that is not from a family, such as `nano/resnet`, is taken to bring its own weights.

    Args:
        name: Of the backbone, with its prefix.
    """
    try:
        loader.catalog().backbone(name)
    except UsageError:
        return False
    prefix, _, rest = name.partition("/")
    if prefix == "timm":
        return _in_hub_cache(rest)
    if prefix == "torchvision":
        return _in_torch_cache(rest)
    return True


def _in_hub_cache(name: str) -> bool:
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return False
    files = filter(None, (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin"))
    return any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in files)


def _in_torch_cache(name: str) -> bool:
    import torch
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rsplit("/", 1)[-1]
    return file.is_file()
