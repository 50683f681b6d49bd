"""Saliency: how much each spatial location of the feature map, before the pooling, contributes to a class's logit.

Gradient × activation, summed over the channels, where torch can rebuild the head (Selvaraju et al., Grad-CAM, ICCV
2017, without the mean over locations; for average pooling that is the CAM of Zhou et al., CVPR 2016). Elsewhere
occlusion (Zeiler and Fergus, ECCV 2014) of the feature map, through ONNX Runtime alone. Needs no torch.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnxruntime

from poolzoo.artifacts import reading
from poolzoo.common import files, output
from poolzoo.common.errors import UsageError
from poolzoo.explain import overlay
from poolzoo.plugin import loader
from poolzoo.runtime import onnx_file, ort_session, photo_input
from poolzoo.runtime.ort_session import ClassScore
from poolzoo.runtime.prediction.predict import MakeDrawer, Picture

if TYPE_CHECKING:
    from torch import nn

ROWS: Final = 64  # feature maps with an occluded location that are run at once
MAX_GROWTH: Final = 64  # how much larger a feature map a configuration may state than the graph has
MAX_STEM: Final = 200  # bytes of an image's name in a picture's name, which is limited in length
BACKBONE: Final = "network.backbone."  # the prefix of a backbone's weights in the graph
ACTIVATIONS: Final = ("Clip", "HardSwish", "LeakyRelu", "Relu")  # that may end a backbone, after its last weight


class Explainer:
    """Computes and draws the saliency of a bundle's network.

    Args:
        directory: A bundle, already checked.
        model: Its graph, opened.
        threads: Threads to compute with; None for ONNX Runtime's own choice.
        pictures: The path of each image's picture.

    Raises:
        UsageError: Its network has no feature map, or none that can be found.
        CheckFailed: The graph cannot be read.
    """

    def __init__(
        self, directory: Path, model: ort_session.OnnxModel, threads: int | None, pictures: Mapping[Path, Path]
    ) -> None:
        self.directory = directory
        self.model = model
        self.threads = threads
        self.pictures = pictures
        self.config = reading.read_bundle_config(directory)
        self.graph = onnx_file.read_bundled(directory / "model.onnx")
        self.entry = "images"  # the input of `graph`
        self.fitting: onnxruntime.InferenceSession | None = None  # from a photograph to what the network sees of it
        if model.takes_photos:
            self.fitting = self._open(self.graph.with_outputs([photo_input.PIXELS]))
            example = np.zeros((1, *model.size, 3), np.float32)
            self.graph = onnx_file.Graph(self.graph.subgraph(photo_input.PIXELS, "logits", example))
            self.entry = photo_input.PIXELS
        self.feature_map = self._find_feature_map()
        self.session = self._open(self.graph.with_outputs([self.feature_map]))
        self.tail: onnxruntime.InferenceSession | None = None  # from the feature map to the logits
        self.head: nn.Module | None = self._rebuild_head()

    def _open(self, content: bytes) -> onnxruntime.InferenceSession:
        return ort_session.open_session(content, self.model.provider, self.threads)

    def _inputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Images as the network sees them, `uint8[N, H, W, 3]`, as the input of `graph`."""
        return {self.entry: self.model.to_input(images) if self.fitting is None else images.astype(np.float32)}

    def _find_feature_map(self) -> str:
        names = self.graph.bottlenecks("logits")
        recorded = self.config.get("export", {}).get("map")
        found = recorded if recorded in names else self._guess(names)
        if found is None:
            hint = "leave --saliency out, or export a fine-tuned run, whose graph has a feature map before the pooling"
            text = f"the graph of {self.directory} has no feature map larger than 1×1 that is pooled"
            raise UsageError(text, hint)
        return str(found)

    def _guess(self, names: list[str]) -> str | None:
        """The feature map of a bundle that does not name it: an older one, or a network with a pooling of its own."""
        blank = np.zeros((1, *self.model.size, 3), np.uint8)
        session = self._open(self.graph.with_outputs(names))
        values = session.run(names, self._inputs(blank))
        shapes = {name: value.shape for name, value in zip(names, values, strict=True)}
        maps = [name for name in names if len(shapes[name]) == 4 and max(shapes[name][2:]) > 1]
        wanted = self.config.get("poolzoo", {}).get("map")
        if wanted is None:
            return next((name for name in reversed(maps) if self._is_averaged(name)), None)
        found = None
        for name in maps:
            if list(shapes[name][1:]) != list(wanted):
                continue
            later = self.graph.nodes_between(name, "logits")
            if any(one.startswith(BACKBONE) for node in later for one in node.inputs):
                continue
            (maker,) = (node for node in self.graph.nodes if name in node.outputs)
            if found is None or (found in maker.inputs and maker.type in ACTIVATIONS):
                found = name
        return found

    def _is_averaged(self, name: str) -> bool:
        """Whether a value is used for its mean over height and width alone."""
        readers = [node for node in self.graph.nodes if name in node.inputs]
        if len(readers) != 1:
            return False
        axes = self.graph.weight(readers[0].inputs[1]) if len(readers[0].inputs) > 1 else None
        mean = readers[0].type == "ReduceMean" and axes is not None and {int(axis) % 4 for axis in axes} == {2, 3}
        return mean or readers[0].type == "GlobalAveragePool"

    def _rebuild_head(self) -> nn.Module | None:
        """The head in torch; None, with a message, where it cannot be rebuilt."""
        if (stated := self.config.get("poolzoo", {}).get("map")) is None:
            return None
        (values,) = self.session.run([self.feature_map], self._inputs(np.zeros((1, *self.model.size, 3), np.uint8)))
        if math.prod(stated) > MAX_GROWTH * values.size:  # before memory is taken for it
            self._warn_of_occlusion(f"{reading.CONFIG} states a far larger feature map than the graph has")
            return None
        try:
            from poolzoo.explain import head
        except ImportError as error:
            output.say(f"{error.name or 'torch'} is not installed: the saliency is computed by occlusion")
            return None
        try:
            return head.rebuild_head(self.directory, self.config, self.graph)
        except loader.Failure as error:  # a plugin's code runs there
            self._warn_of_occlusion(error)
            return None

    def _warn_of_occlusion(self, why: object) -> None:
        output.warn(f"no gradient, so that the saliency is computed by occlusion: {why}")

    def draw(self, file: Path, pixels: np.ndarray, target: int, best: ClassScore) -> Picture:
        """Writes the picture of an image.

        Args:
            file: The image.
            pixels: The image as the graph takes it, `uint8[H, W, 3]`.
            target: The index of the class to explain.
            best: The name and probability of that class.

        Raises:
            OSError: It cannot be written.
        """
        if self.fitting is not None:
            (levels,) = self.fitting.run([photo_input.PIXELS], {"images": pixels[None]})
            pixels = levels[0].astype(np.uint8)
        contributions, method = self.contributions(pixels, target)
        path = self.pictures[file]
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, overlay.draw_overlay(pixels, contributions, best.label, best.score, method))
        return Picture(str(path), method)

    def contributions(self, pixels: np.ndarray, target: int) -> tuple[np.ndarray, str]:
        """How much each spatial location of the feature map contributes to a class's logit, and the method's name.

        Args:
            pixels: The image as the network sees it, `uint8[H, W, 3]`.
            target: The class's index.

        Returns:
            `float32[H', W']`, and "gradient" or "occlusion".
        """
        logits, values = self.session.run(["logits", self.feature_map], self._inputs(pixels[None]))
        if self.head is not None:
            from poolzoo.explain.head import gradient_times_activation

            try:
                return gradient_times_activation(self.head, values, target, logits), "gradient"
            except loader.Failure as error:
                self.head = None
                self._warn_of_occlusion(error)
        return self._occlude(values, target), "occlusion"

    def _occlude(self, values: np.ndarray, target: int) -> np.ndarray:
        """How much the class's logit falls where each location in turn is replaced by the mean of all."""
        _, _, height, width = values.shape
        if self.tail is None:
            self.tail = self._open(self.graph.subgraph(self.feature_map, "logits", values))
        reads_batch_size = len(self.tail.get_inputs()) > 1  # from the images
        mean = values.mean((2, 3), dtype=np.float32)
        found = []
        for start in range(0, height * width + 1, ROWS):
            locations = np.arange(start, min(start + ROWS, height * width + 1))
            rows = np.repeat(values, len(locations), 0)
            for row, location in zip(rows, locations, strict=True):
                if location < height * width:  # the last row is not occluded
                    row[:, location // width, location % width] = mean
            inputs = {self.feature_map: rows}
            if reads_batch_size:
                inputs |= self._inputs(np.zeros((len(rows), *self.model.size, 3), np.uint8))
            found.append(self.tail.run(None, inputs)[0][:, target])
        logit = np.concatenate(found).astype(np.float32)
        return np.asarray(logit[-1] - logit[:-1]).reshape(height, width)


def make_drawer(directory: Path, images: Sequence[str], folder: Path, threads: int | None) -> MakeDrawer:
    """Makes the function that `predict` calls to draw the picture of each image.

    Args:
        directory: The bundle.
        images: The image files.
        folder: Where the pictures go; it is made where it is missing.
        threads: Threads to compute with; None for ONNX Runtime's own choice.

    Raises:
        UsageError: Once the graph is open: a picture would replace another file, or there is no feature map.
    """
    return lambda model: (
        Explainer(directory, model, threads, picture_paths([Path(image) for image in images], folder)).draw
    )


def picture_paths(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The path of each image's picture: `STEM-saliency.png`, numbered where two images have the same stem.

    Raises:
        UsageError: A picture would replace an image, or a file that is no such picture.
    """
    originals = {os.path.realpath(image) for image in images}
    found: dict[Path, Path] = {}
    taken: set[str] = set()
    count: Counter[str] = Counter()
    for file in dict.fromkeys(images):
        stem = os.fsdecode(os.fsencode(file.stem)[:MAX_STEM])
        name = ""
        while not name or name.casefold() in taken:
            count[stem.casefold()] += 1
            number = count[stem.casefold()]
            name = f"{stem}-saliency{f'-{number}' if number > 1 else ''}.png"
        taken.add(name.casefold())
        found[file] = folder / name
        if os.path.realpath(found[file]) in originals:
            raise UsageError(f"{found[file]} is one of the images, and a picture would replace it", _ANOTHER_FOLDER)
        if os.path.lexists(found[file]) and not overlay.is_saliency_picture(found[file]):
            text = f"{found[file]} exists already and was not drawn by poolzoo predict"
            raise UsageError(text, _ANOTHER_FOLDER)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a directory", _ANOTHER_FOLDER)
    return found


_ANOTHER_FOLDER: Final = "choose another directory with --saliency-dir DIR"
