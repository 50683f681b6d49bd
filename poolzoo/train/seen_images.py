"""Says whether the weights at the start were trained on the validation images.

Such images look too easy: their accuracy is too good, and a temperature that is fitted on them too small.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import PluginFailed, PoolzooError, UsageError, reason
from poolzoo.data.digest_sketch import Overlap, overlap
from poolzoo.data.image_facts import DIGEST_BYTES
from poolzoo.plugin import loader
from poolzoo.train.settings import Settings
from poolzoo.train.splits import DataSplits
from poolzoo.train.validation import split_validation

FEWEST_JUDGED: Final = 20  # of validation images without a seen one, from which on they count as unseen


def tell(settings: Settings, backbone: loader.Resolved, data: DataSplits) -> None:
    """Warns of validation images that the backbone's published weights were trained on, or that may be such images.

    Args:
        settings: Of the run.
        backbone: What its `backbone` names.
        data: Of the run.

    Raises:
        PluginFailed: The sample of these images cannot be had.
    """
    trained_on = backbone.item.trained_on
    if not settings.pretrained or not trained_on:
        return
    train = data.identity.splits["train"]
    if backbone.item.trained_digests is not None and not train.of_files:
        sample = _sample(backbone)
        held_out = overlap(sample, train.digests[data.val_indices])
        if held_out.found:
            _warn(settings, held_out, data, sample)
            return
        if held_out.judged >= FEWEST_JUDGED and overlap(sample, train.digests).found:
            return  # the same data, but other validation images
    if _has_classes_of(trained_on, data):
        output.say(
            f"{settings.backbone} was trained on the training images of {trained_on}. If these are the same images, it "
            "has seen the validation images, and only the test accuracy is meaningful"
        )


def _sample(backbone: loader.Resolved) -> np.ndarray:
    """The plugin's sample of the images that the weights were trained on."""
    try:
        sample = np.asarray(backbone.item.trained_digests())
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        raise _failed(backbone, f"fail: {reason(error)}") from error
    if sample.dtype != np.uint8 or sample.ndim != 2 or sample.shape[1] != DIGEST_BYTES:
        raise _failed(backbone, f"are {sample.dtype}{list(sample.shape)}, not uint8[K, {DIGEST_BYTES}]")
    return sample


def _failed(backbone: loader.Resolved, what: str) -> PluginFailed:
    text = f"trained_digests of {backbone.spec.text} (from {backbone.entry.source.dist}) {what}"
    return PluginFailed(text, "choose another backbone, or fix its plugin; POOLZOO_DEBUG=1 shows the traceback")


def _warn(settings: Settings, held_out: Overlap, data: DataSplits, sample: np.ndarray) -> None:
    text = (
        f"about {max(1, round(100 * held_out.share))} % of the validation images are images that {settings.backbone} "
        "was trained on, so that the validation accuracy is too good and calibrated probabilities are too certain"
    )
    hint = "only the test images judge this network"
    if data.validation is None and settings.limit is None:
        others = split_validation(data.labels, 0).val_indices
        if not overlap(sample, data.identity.splits["train"].digests[others]).found:
            hint = "--split-seed 0 holds out images that it was not trained on"
    output.warn(text, hint)


def _has_classes_of(name: str, data: DataSplits) -> bool:
    """Whether data has the classes of a known data set, so that it may hold the same images."""
    try:
        item = loader.catalog().dataset(name).item
    except UsageError:
        return False
    return data.name == name or tuple(getattr(item, "classes", None) or ()) == data.classes
