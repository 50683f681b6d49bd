"""Images in a plugin's storage: its names tell images of one split apart, and it may raise or give anything."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest

from poolzoo.common.errors import UsageError
from poolzoo.data.streaming.images import StreamedImages
from poolzoo.data.unreadable import BrokenImages
from poolzoo.plugin import loader
from poolzoo.plugin.image_index import ImageIndex, Names
from poolzoo.train.settings import Settings
from poolzoo.train.splits import read_data

PLUGIN = """
    import io
    import numpy as np
    from PIL import Image
    from poolzoo import Dataset, ImageIndex, Names, hookimpl

    class Plain:
        place = "memory"

        def __init__(self, level):
            self.level = level

        def open(self, row, name):
            file = io.BytesIO()
            Image.new("RGB", (32, 32), (self.level, 0, 0)).save(file, "BMP")
            file.seek(0)
            return file

        def stamp(self, row, name):
            return 3126, 0

    def index(split, cache_dir):
        names = Names.of(f"{row}.bmp" for row in range(12))
        return ImageIndex(Plain({"train": 10, "test": 200}[split]), names, np.arange(12, dtype=np.int32) % 2)

    @hookimpl
    def poolzoo_datasets():
        yield Dataset(name="plain", summary="", index=index, splits=("train", "test"), classes=("a", "b"))
"""


class Given:
    """A storage whose images are what a function gives."""

    place = "memory"

    def __init__(self, give: Any) -> None:
        self.give = give

    def open(self, row: int, name: str) -> Any:
        return self.give()

    def stamp(self, row: int, name: str) -> Any:
        return self.give()


def index_of(storage: Any) -> ImageIndex:
    return ImageIndex(storage, Names.of(["0", "1"]), np.zeros(2, np.int32))


def fail() -> None:
    raise LookupError("no such key")


def leave():
    raise SystemExit("no license")


@pytest.mark.parametrize("keep", ["decoded", "reduced"])
def test_splits_with_the_same_names_are_kept_apart(tmp_path, monkeypatch, keep):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "plain.py").write_text(textwrap.dedent(PLUGIN))
    loader.load_plugins(tmp_path / "plain.py", installed=False)
    for _ in range(2):  # the second time from what is kept
        data = read_data(Settings(data="plain", image_size=(16, 16), data_cache=keep, augment="none"))
        assert np.unique(data.images[np.arange(12)][..., 0]).tolist() == [10]
        assert np.unique(data.test.images[np.arange(12)][..., 0]).tolist() == [200]


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (fail, "LookupError: no such key"),
        (leave, "SystemExit: no license"),
        (lambda: None, "NoneType"),
        (lambda: "a.png", "str"),
        (lambda: b"a", "bytes"),
    ],
)
def test_whatever_a_storage_does_names_the_image(give, words):
    index = index_of(Given(give))
    with pytest.raises(BrokenImages, match=f"memory/0: .*{words}"):
        StreamedImages(index, (8, 8))[np.array([0])]
    with pytest.raises(OSError, match="stamp failed"):
        index.stamp(0)


def test_streams_of_several_labels_need_their_task(tmp_path):
    several = PLUGIN.replace("np.arange(12, dtype=np.int32) % 2", "np.ones((12, 2), np.uint8)")
    (tmp_path / "plain.py").write_text(textwrap.dedent(several))
    loader.load_plugins(tmp_path / "plain.py", installed=False)
    with pytest.raises(UsageError, match="several labels"):
        read_data(Settings(data="plain", image_size=16, data_cache="none"))
