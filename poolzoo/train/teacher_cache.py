"""The teacher's logits, computed once for every image where training shows the same images in every epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from poolzoo.common import json_writer, output
from poolzoo.common.errors import CheckFailed
from poolzoo.data import disk
from poolzoo.data.augment.augmentation import NO_AUGMENTATION
from poolzoo.data.source import cache_dir
from poolzoo.train.feature_entries import ROWS, FeatureStore
from poolzoo.train.feature_writer import image_views
from poolzoo.train.prepare import PreparedRun
from poolzoo.train.teacher import Teacher

VERSION: Final = 1


def shows_same_images(prepared: PreparedRun) -> bool:
    """Whether the images of a run are the same in every epoch, in one or several views."""
    return prepared.settings.caches_features or prepared.augmentation == NO_AUGMENTATION


def open_logits(prepared: PreparedRun) -> FeatureStore | None:
    """The teacher's logits for every view of every image; missing ones are computed.

    Args:
        prepared: A run with a teacher.

    Returns:
        `float32` rows. What the disk cannot keep is kept in memory for stored features; for images it is None.

    Raises:
        CheckFailed: The teacher gives NaN or infinity.
    """
    found = _on_disk(prepared)
    if found is None and prepared.settings.caches_features:
        assert prepared.teacher is not None
        views = 1 + prepared.settings.views
        with output.progress("running the teacher", views * len(prepared.data.images)) as bar:
            found = FeatureStore(rows=np.stack(list(_rows(prepared, prepared.teacher, bar))), views=views)
    return found


def _on_disk(prepared: PreparedRun) -> FeatureStore | None:
    """What `open_logits` does; None if the disk has no room, or cannot be written to."""
    assert prepared.teacher is not None
    instead = "they are kept in memory" if prepared.settings.caches_features else "the teacher runs in every epoch"
    shelf = disk.Shelf(cache_dir() / "teachers", disk.limit())
    digest = _digest(prepared, prepared.teacher)
    views = 1 + prepared.settings.views
    shape = (views * len(prepared.data.images), len(prepared.data.classes))
    what = f"logits of the teacher for {shape[0]:,} images"
    try:
        if (found := _read(shelf, digest, shape, views)) is not None:
            return found
        if not shelf.room(4 * shape[0] * shape[1]):
            output.say(f"no room for the {what}: {instead} instead")
            return None
        output.say(f"caching the {what}, in {shelf.root}")
        with shelf.building(digest) as temporary, output.progress("running the teacher", shape[0]) as bar:
            disk.write_rows(temporary / ROWS, shape[0], _rows(prepared, prepared.teacher, bar))
            (temporary / "what.json").write_text(json_writer.dumps({"what": what, "teacher": prepared.teacher.name}))
        return _read(shelf, digest, shape, views)
    except OSError as error:
        output.warn(
            f"the {what} cannot be written to {shelf.root}: {error.strerror or error}",
            "set POOLZOO_CACHE to another directory",
        )
        return None


def _rows(prepared: PreparedRun, teacher: Teacher, bar: output.Progress) -> Iterator[np.ndarray]:
    done = 0
    for images in image_views(prepared, teacher.batch_size):
        logits = teacher.logits(images)
        if not torch.isfinite(logits).all():
            raise CheckFailed(f"the teacher {teacher.name} gives NaN or infinity", "name another teacher")
        yield from logits.cpu().numpy()
        done += len(images)
        bar.update(done)


def _read(shelf: disk.Shelf, digest: str, shape: tuple[int, int], views: int) -> FeatureStore | None:
    rows = disk.find_rows(shelf, digest, ROWS, shape, "float32")
    return None if rows is None else FeatureStore(rows=rows, views=views)


def _digest(prepared: PreparedRun, teacher: Teacher) -> str:
    """The name of a cache entry: of all that its content depends on."""
    settings = prepared.settings
    parts: dict[str, object] = {
        "version": [VERSION, teacher.batch_size, torch.__version__],
        "teacher": teacher.digest,
        "columns": teacher.columns.tolist(),
        "images": prepared.data.digest,
        "views": [settings.views, settings.seed, repr(prepared.augmentation)] if settings.views else 0,
        "computed": [prepared.policy.device.type, settings.threads, settings.precision],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]  # noqa: TID251 - a digest
