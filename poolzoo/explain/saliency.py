"""Where a network looked: how much each position of the map, as it enters the pooling, moved a class's logit.

Gradient × activation, summed over the channels, where torch can rebuild the head (Selvaraju et al., Grad-CAM, ICCV
2017, without the mean over positions; for average pooling that is the CAM of Zhou et al., CVPR 2016). Elsewhere
occlusion (Zeiler and Fergus, ECCV 2014) on the map, through ONNX Runtime alone. Needs no torch.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import onnxruntime

from poolzoo.common import output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.files import read_json, write_atomically
from poolzoo.explain import overlay
from poolzoo.plugin import loader
from poolzoo.runtime import onnx_file, ort_session
from poolzoo.runtime.predict import Annotate

ROWS: Final = 64  # maps with a position taken out, run at once
STEM: Final = 200  # bytes of an image's name that a picture's keeps, so that it is not too long for a file
BACKBONE: Final = "network.backbone."  # before the names of a backbone's weights in the graph
ACTIVATIONS: Final = ("Clip", "HardSwish", "LeakyRelu", "Relu")  # by which a backbone may end, behind its last weight


class Explainer:
    """Draws pictures of where the network of a bundle looked."""

    def __init__(
        self, directory: Path, model: ort_session.OnnxModel, threads: int | None, pictures: dict[Path, Path]
    ) -> None:
        """Finds the map, and rebuilds the head where that is possible.

        Args:
            directory: A bundle, which was checked.
            model: Its graph, opened.
            threads: To compute with; None for ONNX Runtime's own choice.
            pictures: Where each image's picture goes.

        Raises:
            UsageError: Its network has no map, or none that can be found.
        """
        self.directory, self.model, self.threads, self.pictures = directory, model, threads, pictures
        self.config = read_json(directory / "config.json")
        try:
            self.graph = onnx_file.read(directory / "model.onnx")
        except (ValueError, IndexError) as error:
            raise CheckFailed(f"{directory / 'model.onnx'} cannot be read: {error}", "export it again") from error
        self.map = self._find_map()
        self.session = self._open(self.graph.with_outputs([self.map]))
        self.part: onnxruntime.InferenceSession | None = None  # from the map to the logits
        self.torch: ModuleType | None = None
        self.head = self._rebuild()

    def _open(self, content: bytes) -> onnxruntime.InferenceSession:
        return ort_session.open_session(content, self.model.provider, self.threads)

    def _find_map(self) -> str:
        names = self.graph.bottlenecks("logits")
        recorded = self.config.get("export", {}).get("map")
        found = recorded if recorded in names else self._guess(names)
        if found is None:
            hint = "leave --saliency out, or export a fine-tuned run, whose graph has a map in front of the pooling"
            raise UsageError(f"the graph of {self.directory} has no map that is larger than 1×1 and is pooled", hint)
        return str(found)

    def _guess(self, names: list[str]) -> str | None:
        """The map of a bundle that does not name it: of an older one, or of a network with a pooling of its own."""
        blank = np.zeros((1, *self.model.size, 3), np.uint8)
        session = self._open(self.graph.with_outputs(names))
        values = session.run(names, {"images": self.model.to_input(blank)})
        shapes = {name: value.shape for name, value in zip(names, values, strict=True)}
        maps = [name for name in names if len(shapes[name]) == 4 and max(shapes[name][2:]) > 1]
        wanted = self.config.get("poolzoo", {}).get("map")
        if wanted is None:
            return next((name for name in reversed(maps) if self._is_averaged(name)), None)
        found = None
        for name in maps:
            if list(shapes[name][1:]) != list(wanted):
                continue
            behind = self.graph.between(name, "logits")
            if any(one.startswith(BACKBONE) for node in behind for one in node.inputs):
                continue
            (maker,) = (node for node in self.graph.nodes if name in node.outputs)
            if found is None or (found in maker.inputs and maker.type in ACTIVATIONS):
                found = name
        return found

    def _is_averaged(self, name: str) -> bool:
        """Whether all that becomes of a value is its mean over height and width."""
        readers = [node for node in self.graph.nodes if name in node.inputs]
        if len(readers) != 1:
            return False
        axes = self.graph.weight(readers[0].inputs[1]) if len(readers[0].inputs) > 1 else None
        over = readers[0].type == "ReduceMean" and axes is not None and {int(axis) % 4 for axis in axes} == {2, 3}
        return over or readers[0].type == "GlobalAveragePool"

    def _rebuild(self) -> Any:
        """The head in torch, or None, and then says why."""
        if self.config.get("poolzoo", {}).get("map") is None:
            return None
        try:
            from poolzoo.explain import head
        except ImportError as error:
            output.say(f"{error.name or 'torch'} is not here: occlusion shows where the network looked")
            return None
        self.torch = head
        try:
            return head.rebuild(self.directory, self.config, self.graph)
        except loader.Failure as error:  # a plugin's code runs there
            return self._fall_back(error)

    def _fall_back(self, why: object) -> None:
        self.head = None
        output.warn(f"no gradient, so occlusion shows where the network looked: {why}")

    def draw(self, file: Path, pixels: np.ndarray, target: int, label: str, score: float) -> dict[str, Any]:
        """Writes the picture of an image.

        Args:
            file: The image.
            pixels: What the network sees of it, `uint8[H, W, 3]`.
            target: The class to explain.
            label, score: What to call it, and its probability.

        Returns:
            What to add to its row: `{"explain", "method"}`.

        Raises:
            OSError: It cannot be written.
        """
        moved, method = self.contributions(pixels, target)
        place = self.pictures[file]
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, overlay.draw(pixels, moved, label, score, method))
        return {"explain": str(place), "method": method}

    def contributions(self, pixels: np.ndarray, target: int) -> tuple[np.ndarray, str]:
        """How much each position of the map moves a class's logit, `float32[H', W']`, and the method's name.

        Args:
            pixels: What the network sees of the image, `uint8[H, W, 3]`.
            target: The class.
        """
        logits, values = self.session.run(["logits", self.map], {"images": self.model.to_input(pixels[None])})
        if self.head is not None and self.torch is not None:
            try:
                return self.torch.gradient(self.head, values, target, logits), "gradient"
            except loader.Failure as error:
                self._fall_back(error)
        return self._occluded(values, target), "occlusion"

    def _occluded(self, values: np.ndarray, target: int) -> np.ndarray:
        """By how much the class's logit falls where each position in turn is replaced by the mean of all."""
        _, _, height, width = values.shape
        if self.part is None:
            self.part = self._open(self.graph.part(self.map, "logits", values))
        sized = len(self.part.get_inputs()) > 1  # it reads the number of images, and nothing else, off the images
        mean = values.mean((2, 3), dtype=np.float32)
        found = []
        for start in range(0, height * width + 1, ROWS):
            places = np.arange(start, min(start + ROWS, height * width + 1))
            rows = np.repeat(values, len(places), 0)
            for row, place in zip(rows, places, strict=True):
                if place < height * width:  # the last one stays as it is
                    row[:, place // width, place % width] = mean
            inputs = {self.map: rows}
            if sized:
                inputs["images"] = self.model.to_input(np.zeros((len(rows), *self.model.size, 3), np.uint8))
            found.append(self.part.run(None, inputs)[0][:, target])
        logit = np.concatenate(found).astype(np.float32)
        return np.asarray(logit[-1] - logit[:-1]).reshape(height, width)


def drawing(directory: Path, files: Sequence[str], folder: Path, threads: int | None) -> Annotate:
    """What draws a picture of each image that `predict` labels, and adds its path and the method to the image's row.

    Raises (once the graph is open):
        UsageError: There is no place for a picture, or no map to draw.
    """
    return lambda model: Explainer(directory, model, threads, pictures([Path(file) for file in files], folder)).draw


def pictures(files: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where the picture of each image goes: `STEM-explain.png`, numbered where two images have the same stem.

    Raises:
        UsageError: One would take the place of an image that was given, or of a file that is no such picture.
    """
    given = {os.path.realpath(file) for file in files}
    found: dict[Path, Path] = {}
    taken: set[str] = set()
    count: Counter[str] = Counter()
    for file in dict.fromkeys(files):
        stem = os.fsdecode(os.fsencode(file.stem)[:STEM])
        name = ""
        while not name or name.casefold() in taken:
            count[stem.casefold()] += 1
            number = count[stem.casefold()]
            name = f"{stem}-explain{f'-{number}' if number > 1 else ''}.png"
        taken.add(name.casefold())
        found[file] = folder / name
        if os.path.realpath(found[file]) in given:
            raise UsageError(f"{found[file]} is an image to label: its place is not for a picture", _ELSEWHERE)
        if os.path.lexists(found[file]) and not overlay.is_ours(found[file]):
            raise UsageError(f"{found[file]} exists already and was not drawn by poolzoo predict", _ELSEWHERE)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a directory", _ELSEWHERE)
    return found


_ELSEWHERE: Final = "choose another directory with --saliency-dir DIR"
