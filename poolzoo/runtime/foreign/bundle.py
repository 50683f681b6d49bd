"""A directory that stands for the bundle of a file from elsewhere, so that runtimes are judged and timed as for any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.common.temporary import temporary_folder
from poolzoo.data.synthetic import edge_cases, synthetic_images
from poolzoo.runtime import ort_session
from poolzoo.runtime.foreign.canonical import canonical
from poolzoo.runtime.foreign.classifier import Classifier
from poolzoo.runtime.foreign.scaling import Scaling

IMAGES: Final = 16  # synthetic ones beside the edge cases, as many as a bundle keeps
SHARE: Final = 5e-5  # of the largest logit: what another order of sums may cost where no network says it
FLOOR_FACTOR: Final = 4.0  # of what it costs ONNX Runtime itself


@contextmanager
def as_bundle(graph: onnx.ModelProto, golden: Mapping[str, np.ndarray], parity: Mapping[str, object]) -> Iterator[Path]:
    """Within it, a directory with a graph in a bundle's form, its golden arrays, and its parity report."""
    with temporary_folder() as directory:
        onnx.save(graph, directory / "model.onnx")
        files.write_json(directory / "config.json", {})
        files.write_json(directory / "parity.json", parity)
        with (directory / "golden.npz").open("wb") as file:
            np.savez(file, **golden)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
        manifest.write_manifest(directory, "bundle")
        yield directory


@contextmanager
def own_bundle(file: Classifier, output: str | None = None) -> Iterator[Path]:
    """Within it, a bundle of a file alone: what ONNX Runtime gives for synthetic images are its golden outputs.

    The tolerance of an image is four times what ONNX Runtime's own optimizations and other batches change, plus 5e-5
    of the largest logit.

    Raises:
        UsageError: Several outputs may be meant.
        CheckFailed: ONNX Runtime gives NaN or infinity.
    """
    scores = file.output(output)
    graph = canonical(file, scores, "probabilities" if scores.is_probabilities else "logits", Scaling())
    edges = edge_cases(file.given.size)
    images = np.concatenate([np.stack(list(edges.values())), synthetic_images(file.given.size, IMAGES)])
    with temporary_folder() as work:
        path = work / "model.onnx"
        onnx.save(graph, path)
        model = ort_session.open_model(path)
        logits, probabilities = ort_session.run_in_batches(model, images)
        plain = ort_session.open_model(path, threads=1, optimized=False)
        others = [ort_session.run_in_batches(one, images, size)[0] for one, size in ((model, 1), (plain, len(images)))]
    floors = np.maximum.reduce([np.abs(one - logits).max(1) for one in others])
    allowed = FLOOR_FACTOR * floors + SHARE * np.abs(logits).max()
    golden = {"images": images, "logits": logits, "probabilities": probabilities, "allowed": allowed}
    with as_bundle(graph, golden, {"max_abs_by_edge": dict.fromkeys(edges, 0.0)}) as directory:
        yield directory
