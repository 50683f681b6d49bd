"""A bundle's pooling and classifier in torch again: where its graph has the map, and what moves a logit there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.artifacts import run
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

PREFIX: Final = "network."  # before the weights' names in a graph …
STORED: Final = "head/"  # … and in golden.npz
ELSEWHERE: Final = "head at/"  # there, the name that a large weight has in the graph, with .T where it is turned round
TURNED: Final = ".T"
# How far from the graph's logits those of a head may be, as a part of the largest. Faithful ones differ by a millionth,
# and where the classifier is in fp16, by some ten thousandths; what is drawn is read to a hundredth.
RELATIVE: Final = 1e-3
LARGEST: Final = 1 << 18  # numbers of a weight that is stored beside the graph, 1 MB
TRIED: Final = 2  # images on which the map is looked for
SIMILAR: Final = 0.5  # how far it may be from the network's, as a part of its norm; another value is at a whole one


def folded(network: nn.Module, graph: Graph) -> dict[str, np.ndarray]:
    """The weights behind the map that a graph does not hold under their names as they are, for golden.npz.

    The exporter makes a constant of what only depends on weights, turns matrices round, and fuses batch norm. Of large
    ones it is said where they are instead, if they are there at all. Left out are those in int8, with which the head
    would give other logits than the graph.
    """
    state = network.head.state_dict() if isinstance(network, Network) else {}
    found: dict[str, np.ndarray] = {}
    for name, tensor in state.items():
        value, quantized = tensor.detach().cpu().numpy(), f"{PREFIX}{name}_quantized" in graph.weights
        if not tensor.is_floating_point() or quantized or _same(graph.weight(PREFIX + name), value):
            continue
        if value.size <= LARGEST:
            found[STORED + name] = value
        elif place := _place(graph, value):
            found[ELSEWHERE + name] = np.array(place)
    return found


def _place(graph: Graph, value: np.ndarray) -> str | None:
    """The name of the graph's weight that a matrix is, as it is or turned round."""
    for name in graph.weights:
        held = graph.weight(name)
        for turned, mark in ((held, ""), (None if held is None else held.T, TURNED)):
            if _same(turned, value):
                return name + mark
    return None


def _at(graph: Graph, place: str) -> np.ndarray | None:
    """The weight that `_place` found."""
    held = graph.weight(place.removesuffix(TURNED))
    return held.T if held is not None and place.endswith(TURNED) else held


def _same(held: np.ndarray | None, value: np.ndarray) -> bool:
    """Whether a weight is in the graph, if only in fp16."""
    return held is not None and held.shape == value.shape and np.allclose(held, value, rtol=2e-3, atol=1e-6)


def locate(graph: Graph, model: InferenceModel, opened: ort_session.Model, images: np.ndarray) -> str | None:
    """The value of a graph that is its network's map, told by its numbers.

    The exporter fuses what ends the backbone with what begins the pooling, so that names and modules do not tell.

    Args:
        graph: A graph in any precision.
        model: The network that it was made of, on the CPU.
        opened: The graph, opened.
        images: Some images, `uint8[N, H, W, 3]`.

    Returns:
        The value's name; None where there is none, as in a network with a pooling of its own.
    """
    network, images = model.network, images[:TRIED]
    if not isinstance(network, Network):
        return None
    with torch.inference_mode():
        expected = network.forward_map(model.preprocess(torch.from_numpy(images))).numpy()
    names = graph.bottlenecks("logits")[::-1]  # of equal ones the last, which is in float32
    session = ort_session.open_session(graph.with_outputs(names), opened.provider)
    found = zip(names, session.run(names, {"images": opened.feed(images)}), strict=True)
    errors = {name: np.linalg.norm(value - expected) for name, value in found if value.shape == expected.shape}
    nearest = min(errors, key=errors.__getitem__, default=None)
    return nearest if nearest and errors[nearest] <= SIMILAR * np.linalg.norm(expected) else None


def rebuild(directory: Path, config: Mapping[str, Any], graph: Graph) -> nn.Sequential:
    """The head of a bundle, as its configuration names it, with its weights.

    Args:
        directory: The bundle, whose golden.npz has the weights that the graph does not hold as they are.
        config: Its `config.json`.
        graph: Its graph.

    Raises:
        UsageError: A plugin or a weight is missing.
        PluginFailed: A plugin does not do what its contract says.
    """
    ours = config["poolzoo"]
    channels, height, width = ours["map"]
    pool = build_pooling(loader.catalog().pooling(ours["pool"], "global"), channels, (height, width))
    classifier = build_classifier(ours["head"], config["num_features"], config["num_classes"])
    place = ours.get("published_head", {}).get("norm_runs")
    norm = assemble_backbone(run.plan_of(config)).norm if place in ("pooled", "positions") else None
    head = in_order(pool, classifier, norm, norm_first=place == "positions")
    surgery.dry_run(head, torch.zeros(2, channels, height, width))  # weights that are made at the first call
    with np.load(directory / "golden.npz", allow_pickle=False) as golden:
        stored = {name.removeprefix(STORED): golden[name] for name in golden.files if name.startswith(STORED)}
        places = {n.removeprefix(ELSEWHERE): str(golden[n]) for n in golden.files if n.startswith(ELSEWHERE)}
    state = head.state_dict()
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        found = stored[name] if name in stored else _at(graph, places.get(name, PREFIX + name))
        if found is None or found.shape != tuple(value.shape):
            raise UsageError(f"the graph has no {PREFIX}{name} of shape {tuple(value.shape)}", "export the run again")
        state[name] = _tensor(found)
    head.load_state_dict(state)
    return head.eval()


def gradient(head: nn.Module, values: np.ndarray, target: int, logits: np.ndarray) -> np.ndarray:
    """Gradient × activation of one class's logit at every position of a map, summed over the channels.

    Args:
        head: Pooling and classifier.
        values: The map, `float[1, C, H, W]`.
        target: The class.
        logits: What the graph gives for it, `float[1, classes]`.

    Returns:
        `float32[H, W]`.

    Raises:
        CheckFailed: The head gives other logits than the graph, or a gradient that is no number.
        Exception: Whatever a plugin's pooling raises, also because it has no gradient.
    """
    x = _tensor(values).requires_grad_()
    with torch.enable_grad():
        found = head(x)
        if not _agree(found, logits):
            raise CheckFailed("the logits of the pooling and the classifier are not the graph's")
        (slope,) = torch.autograd.grad(found[0, target], x)
    moved = (slope * x).detach().sum(1)[0].numpy()
    if not np.isfinite(moved).all():
        raise CheckFailed("the gradient is infinite or undefined")
    return np.asarray(moved)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _agree(found: Tensor, logits: np.ndarray) -> bool:
    error = np.abs(found.detach().numpy() - logits).max()
    return bool(error <= RELATIVE * np.abs(logits).max())
