"""The cache of a frozen backbone's feature maps of corrupted and shifted test images, for all heads and comparisons."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from torch import Tensor

from poolzoo.artifacts.run import Run
from poolzoo.common import json_writer, output
from poolzoo.data import disk
from poolzoo.data.source import cache_dir
from poolzoo.model.state_dict import weights_digest
from poolzoo.train.device import DevicePolicy
from poolzoo.train.feature_entries import ROWS, FeatureStore

VERSION: Final = 2  # of the content: another one where a corruption or a backbone computes something else


class MapWriter:
    """Writes feature maps to an entry; after an error of the disk it writes nothing more."""

    def __init__(self, writer: disk.RowWriter | None) -> None:
        self._writer = writer
        self.error: OSError | None = None

    def add(self, maps: Tensor) -> None:
        """Writes `float32[n, C, H, W]` with the channels last."""
        if self._writer is None or self.error is not None:
            return
        try:
            self._writer.add(maps.permute(0, 2, 3, 1).float().contiguous().cpu().numpy())
        except OSError as error:
            self.error = error


class ChangedMaps:
    """Feature maps of the same images, one entry a change.

    Args:
        run: A run with the backbone.
        images: The images before they are changed, `uint8[N, H, W, 3]`.
        batch_size: Images at once in the backbone.
        policy: The device.
    """

    def __init__(self, run: Run, images: np.ndarray, batch_size: int, policy: DevicePolicy) -> None:
        self._shelf = disk.Shelf(cache_dir() / "features", disk.limit())
        self._count = len(images)
        layout = run.network.layout
        self._shape = (self._count, *layout.map_size, layout.channels)
        ours = run.config["poolzoo"]
        self._parts: dict[str, object] = {
            "version": [VERSION, batch_size, torch.__version__, np.__version__],
            "backbone": [ours["backbone"], ours["local_pool"], ours["stem"], ours["plugins"].get("backbone")],
            "weights": weights_digest(run.network.backbone),
            "input": [ours["image_size"], list(map(list, run.preprocess.statistics))],
            "images": hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
            "computed": [policy.device.type, str(policy.autocast)],
        }
        self._is_full = False

    def _digest(self, change: str) -> str:
        content = json.dumps({**self._parts, "change": change}, sort_keys=True, default=str)  # noqa: TID251 - a digest
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def find(self, change: str) -> FeatureStore | None:
        """The maps of the images after a change; None where they are not kept."""
        rows = disk.find_rows(self._shelf, self._digest(change), ROWS, self._shape, "float32")
        return None if rows is None else FeatureStore(rows=rows, views=1, channels_last=True)

    @contextmanager
    def writing(self, change: str) -> Iterator[MapWriter]:
        """Keeps the maps that are added in the block; nothing where the disk has no room for them."""
        wanted = 4 * int(np.prod(self._shape))
        try:
            self._is_full = self._is_full or not self._shelf.room(wanted)
        except OSError:
            self._is_full = True
        if self._is_full:
            yield MapWriter(None)
            return
        entry, is_in_block = None, False
        try:
            with self._shelf.building(self._digest(change)) as temporary:
                with disk.row_writer(temporary / ROWS, self._count) as writer:
                    entry, is_in_block = MapWriter(writer), True
                    yield entry
                    is_in_block = False
                    if entry.error is not None:
                        raise entry.error
                what = f"feature maps of {self._count:,} test images, changed by {change}"
                (temporary / "what.json").write_text(json_writer.dumps({"what": what}))
        except OSError as error:  # of the cache, without which it goes on
            if is_in_block:
                raise
            self._is_full = True
            output.detail(f"feature maps cannot be written to {self._shelf.root}: {error.strerror or error}")
            if entry is None:
                yield MapWriter(None)
