"""A bundle's pooling and classifier rebuilt in torch, and gradients of a logit at the graph's feature map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.artifacts import run
from poolzoo.artifacts.schema import Config
from poolzoo.common import files
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.model import surgery
from poolzoo.model.assemble import assemble_backbone
from poolzoo.model.classifier import build_classifier
from poolzoo.model.network import Network, in_order
from poolzoo.model.pooling import build_pooling
from poolzoo.plugin import loader
from poolzoo.runtime import ort_session
from poolzoo.runtime.onnx_file import Graph

if TYPE_CHECKING:
    from poolzoo.model.inference import InferenceModel

PREFIX: Final = "network."  # of the weights' names in a graph …
STORED: Final = "head/"  # … and in golden.npz
SMALL: Final = 1 << 22  # weights that a classifier may have in any case …
PACKED: Final = 8  # … and that a byte of a bundle holds at most
REFERRED: Final = "head at/"  # in golden.npz, of a large weight's name in the graph, with .T where it is transposed
TRANSPOSED: Final = ".T"
# The tolerance of the head's logits, as a fraction of the largest. Faithful ones differ by a millionth, and with a
# classifier in fp16 by some ten thousandths; the picture shows hundredths.
RELATIVE: Final = 1e-3
MAX_STORED: Final = 1 << 18  # numbers of a weight that is stored beside the graph, 1 MB
SEARCH_IMAGES: Final = 2  # on which the feature map is searched for
MAX_DISTANCE: Final = 0.5  # from the network's feature map, as a fraction of its norm; other values lie at about 1


def weights_not_in_graph(network: nn.Module, graph: Graph) -> dict[str, np.ndarray]:
    """The weights after the feature map that a graph does not hold under their names, for `golden.npz`.

    The exporter folds constants, transposes matrices and fuses batch norm. Of a large weight, the name that it has in
    the graph is kept instead, if it is there. Weights in int8 are left out: with them the head's logits would differ.

    Args:
        network: The network that the graph was made of.
        graph: The graph.

    Returns:
        Arrays by name, with the prefixes `head/` and `head at/`.
    """
    state = network.head.state_dict() if isinstance(network, Network) else {}
    found: dict[str, np.ndarray] = {}
    for name, tensor in state.items():
        value, quantized = tensor.detach().cpu().numpy(), f"{PREFIX}{name}_quantized" in graph.weights
        if not tensor.is_floating_point() or quantized or _same(graph.weight(PREFIX + name), value):
            continue
        if value.size <= MAX_STORED:
            found[STORED + name] = value
        elif name_in_graph := _name_in(graph, value):
            found[REFERRED + name] = np.array(name_in_graph)
    return found


def _name_in(graph: Graph, value: np.ndarray) -> str | None:
    """The name of the graph's weight that equals a matrix or its transpose."""
    for name in graph.weights:
        held = graph.weight(name)
        for candidate, suffix in ((held, ""), (None if held is None else held.T, TRANSPOSED)):
            if _same(candidate, value):
                return name + suffix
    return None


def _weight_at(graph: Graph, place: str) -> np.ndarray | None:
    """The weight whose name `_name_in` found."""
    held = graph.weight(place.removesuffix(TRANSPOSED))
    return held.T if held is not None and place.endswith(TRANSPOSED) else held


def _same(held: np.ndarray | None, value: np.ndarray) -> bool:
    """Whether a weight is in the graph, if only in fp16."""
    return held is not None and held.shape == value.shape and np.allclose(held, value, rtol=2e-3, atol=1e-6)


def find_feature_map(
    graph: Graph, model: InferenceModel, opened: ort_session.OnnxModel, images: np.ndarray
) -> str | None:
    """The name of the value of a graph that is its network's feature map, found by comparing numbers.

    The exporter fuses the end of the backbone with the start of the pooling, so that names do not help.

    Args:
        graph: A graph in any precision.
        model: The network that it was made of, on the CPU.
        opened: The same graph, opened.
        images: Some images, `uint8[N, H, W, 3]`.

    Returns:
        None where there is none, as in a network with a pooling of its own.
    """
    network, images = model.network, images[:SEARCH_IMAGES]
    if not isinstance(network, Network):
        return None
    with torch.inference_mode():
        expected = network.forward_map(model.preprocess(torch.from_numpy(images))).numpy()
    names = graph.bottlenecks("logits")[::-1]  # of equal values the last, which is in float32
    session = ort_session.open_session(graph.with_outputs(names), opened.provider)
    batches = [image[None] for image in images] if opened.takes_photos else [images]
    runs = [session.run(names, {"images": opened.to_input(batch)}) for batch in batches]
    found = zip(names, map(np.concatenate, zip(*runs, strict=True)), strict=True)
    errors = {name: np.linalg.norm(value - expected) for name, value in found if value.shape == expected.shape}
    nearest = min(errors, key=errors.__getitem__, default=None)
    return nearest if nearest and errors[nearest] <= MAX_DISTANCE * np.linalg.norm(expected) else None


def rebuild_head(directory: Path, config: Config, graph: Graph) -> nn.Sequential:
    """The pooling and classifier of a bundle in torch, in eval mode, with its weights.

    Args:
        directory: The bundle; its `golden.npz` has the weights that the graph does not hold under their names.
        config: Its `config.json`.
        graph: Its graph.

    Raises:
        UsageError: A plugin or a weight is missing.
        PluginFailed: A plugin violates its contract.
    """
    ours = config["poolzoo"]
    channels, height, width = ours["map"]
    pool_name = ours["pool"]
    if pool_name is None:
        raise UsageError("the network has a pooling of its own", "export a fine-tuned run")
    _require_held(directory, ours["head"], config["num_features"], config["num_classes"])
    pool = build_pooling(loader.catalog().pooling(pool_name, "global"), channels, (height, width))
    classifier = build_classifier(ours["head"], config["num_features"], config["num_classes"])
    published = ours.get("published_head")
    place = published["norm_runs"] if published else None
    norm = assemble_backbone(run.model_config(config)).norm if place in ("pooled", "positions") else None
    head = in_order(pool, classifier, norm, norm_first=place == "positions")
    surgery.dry_run(head, torch.zeros(2, channels, height, width))  # initializes lazy weights
    golden = files.read_archive(directory / "golden.npz")
    stored = {name.removeprefix(STORED): array for name, array in golden.items() if name.startswith(STORED)}
    places = {name.removeprefix(REFERRED): str(array) for name, array in golden.items() if name.startswith(REFERRED)}
    state = head.state_dict()
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        found = stored[name] if name in stored else _weight_at(graph, places.get(name, PREFIX + name))
        if found is None or found.shape != tuple(value.shape):
            raise UsageError(f"the graph has no {PREFIX}{name} of shape {tuple(value.shape)}", "export the run again")
        state[name] = _tensor(found)
    head.load_state_dict(state)
    return head.eval()


def _require_held(directory: Path, head: str, in_features: int, num_classes: int) -> None:
    """Makes sure that a bundle is large enough for a classifier, before memory is taken for it.

    Raises:
        UsageError: It is not.
    """
    with torch.device("meta"):
        wanted = sum(weight.numel() for weight in build_classifier(head, in_features, num_classes).parameters())
    held = sum((directory / name).stat().st_size for name in ("model.onnx", "golden.npz"))
    if wanted > max(SMALL, PACKED * held):
        raise UsageError(f"the bundle does not hold a classifier of {wanted:,} weights", "export the run again")


def gradient_times_activation(head: nn.Module, values: np.ndarray, target: int, logits: np.ndarray) -> np.ndarray:
    """Gradient × activation of a class's logit at every spatial location of a feature map, summed over channels.

    Args:
        head: Pooling and classifier.
        values: The feature map, `float[1, C, H, W]`.
        target: The class's index.
        logits: The graph's logits for it, `float[1, classes]`.

    Returns:
        `float32[H, W]`.

    Raises:
        CheckFailed: The head gives other logits than the graph, or a gradient that is not finite.
        Exception: Whatever a plugin's pooling raises, for example because it has no gradient.
    """
    x = _tensor(values).requires_grad_()
    with torch.enable_grad():
        found = head(x)
        if not _agree(found, logits):
            raise CheckFailed("the rebuilt pooling and classifier give other logits than the graph")
        (slope,) = torch.autograd.grad(found[0, target], x)
    contributions = np.asarray((slope * x).detach().sum(1)[0].numpy())
    if not np.isfinite(contributions).all():
        raise CheckFailed("the gradient is infinite or undefined")
    return contributions


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _agree(found: Tensor, logits: np.ndarray) -> bool:
    error = np.abs(found.detach().numpy() - logits).max()
    return bool(error <= RELATIVE * np.abs(logits).max())
