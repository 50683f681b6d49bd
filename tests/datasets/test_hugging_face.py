"""Data sets in the Hugging Face layout: Parquet files, saved data sets and local folders; the Hub without a network."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.data import source

pytest.importorskip("datasets.arrow_dataset")  # any folder called `datasets` would do for `datasets` alone
pytestmark = pytest.mark.filterwarnings("ignore")


def rows(photos: Path, split: str, *, embed: bool = True, **labels: Any) -> Any:
    """The images of a split as `datasets.Dataset`."""
    import datasets

    files = sorted((photos / split).glob("*/*.png"))
    images = [{"bytes": file.read_bytes() if embed else None, "path": str(file)} for file in files]
    found = {"image": images, "label": [file.parent.name for file in files]} | labels
    kind = datasets.ClassLabel(names=["green", "red", "blue"])
    features = {"image": datasets.Image(), "label": kind} if not labels else {"image": datasets.Image()}
    made = datasets.Dataset.from_dict(found)
    for name, feature in features.items():
        made = made.cast_column(name, feature)
    return made


def parquet(photos: Path) -> str:
    for split, file in (("train", "train-00000-of-00002"), ("test", "validation-00000-of-00001")):
        (photos / "parquet").mkdir(exist_ok=True)
        found = rows(photos, split)
        if split == "train":
            found.select(range(20, 24)).to_parquet(photos / "parquet/train-00001-of-00002.parquet")
            found = found.select(range(20))
        found.to_parquet(photos / f"parquet/{file}.parquet")
    return f"parquet:{photos}/parquet"


def saved(photos: Path) -> str:
    import datasets

    made = datasets.DatasetDict(train=rows(photos, "train"), validation=rows(photos, "test"))
    made.save_to_disk(photos / "saved")
    return f"hf:{photos}/saved"


def folder_of_parquet(photos: Path) -> str:
    return parquet(photos).replace("parquet:", "hf:")


def folder_of_images(photos: Path) -> str:
    """What the library itself makes of a folder of images."""
    return f"hf:{photos}"


def paths(photos: Path) -> str:
    """Only the paths are kept, relative to nothing."""
    import datasets

    made = datasets.DatasetDict(train=rows(photos, "train", embed=False), test=rows(photos, "test", embed=False))
    made.save_to_disk(photos / "paths")
    return f"hf:{photos}/paths"


@pytest.mark.parametrize("form", [parquet, saved, folder_of_parquet, folder_of_images, paths])
def test_each_layout_gives_what_its_folder_gives(photos, form):
    dataset, folder = source.open_dataset(form(photos)), source.open_dataset(f"folder:{photos}")
    assert dataset.classes == ("blue", "red")  # green has no image
    for split in ("train", "test"):
        found, expected = (source.load_split(one, split) for one in (dataset, folder))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_a_saved_split_without_rows_is_named(photos):
    import datasets

    made = rows(photos, "train")
    datasets.DatasetDict(train=made, validation=made.select([])).save_to_disk(photos / "half")
    with pytest.raises(UsageError, match=r"half/validation holds no rows"):
        source.open_dataset(f"hf:{photos}/half")
    made.select([]).save_to_disk(photos / "none")
    with pytest.raises(UsageError, match=r"none holds no rows"):
        source.open_dataset(f"hf:{photos}/none")
    made.to_parquet(photos / "train.parquet")
    made.select([]).to_parquet(photos / "test.parquet")
    with pytest.raises(UsageError, match=r"test\.parquet holds no rows of split test"):
        source.open_dataset(f"parquet:{photos}/*.parquet")
    assert source.open_dataset(f"parquet:{photos}/*.parquet", splits=("train",)).classes == ("blue", "red")


def test_an_index_is_small_and_reads_in_another_process(photos):
    index = source.indexed(source.open_dataset(parquet(photos)), "train")
    packed = pickle.dumps(index)
    assert len(packed) < 8000  # the rows are mapped from their files
    again = pickle.loads(packed)
    file = sorted((photos / "train").glob("*/*.png"))[17]
    with again.open(17) as image:
        assert image.read() == file.read_bytes()
    assert again.stamp(17) == index.stamp(17)
    assert again.stamp(17)[0] == file.stat().st_size


def test_rewritten_files_are_read_again_though_names_and_sizes_stay(photos):
    import datasets
    from PIL import Image

    found = []
    for gray in (10, 200):
        Image.new("RGB", (8, 8), (gray, gray, gray)).save(photos / "one.bmp")
        rows = {"image": [(photos / "one.bmp").read_bytes()] * 4, "label": [0, 1, 0, 1]}
        datasets.Dataset.from_dict(rows).to_parquet(photos / "same.parquet")
        dataset = source.open_dataset(f"parquet:{photos}/same.parquet", splits=("train",))
        found.append(source.load_split(dataset, "train")[0].max())
    assert found == [10, 200]


def test_a_rewritten_file_of_the_same_time_is_read_again(photos):
    import datasets
    from PIL import Image

    Image.new("RGB", (8, 8)).save(photos / "one.png")
    counts = []
    for count in (4, 8):
        image = (photos / "one.png").read_bytes()
        rows = {"image": [image + bytes([row] * count) for row in range(count)], "label": [0, 1] * (count // 2)}
        datasets.Dataset.from_dict(rows).to_parquet(photos / "same.parquet")
        os.utime(photos / "same.parquet", (1_700_000_000, 1_700_000_000))
        dataset = source.open_dataset(f"parquet:{photos}/same.parquet", splits=("train",))
        counts.append(len(source.indexed(dataset, "train")))
    assert counts == [4, 8]


@pytest.mark.parametrize("form", [parquet, folder_of_parquet], ids=lambda form: form.__name__)
def test_stamps_outlast_the_library_s_own_files(photos, form):
    """A run stays valid when the library makes its Arrow files anew: for fewer splits, or after they were removed."""
    text = form(photos)
    both = source.indexed(source.open_dataset(text), "test")
    stamps = [both.stamp(position) for position in range(len(both))]
    shutil.rmtree(source.cache_dir() / "arrow")
    alone = source.indexed(source.open_dataset(text, splits=("test",)), "test")
    assert [alone.stamp(position) for position in range(len(alone))] == stamps


def test_rows_without_an_image_are_broken_images(photos):
    import datasets

    image = (photos / "train/red/0.png").read_bytes()
    rows = {"image": [image, None, image, b"this is no image"], "label": ["a", "b", "b", "a"]}
    datasets.Dataset.from_dict(rows).to_parquet(photos / "holes.parquet")
    data = f"parquet:{photos}/holes.parquet"
    with pytest.raises(
        CheckFailed, match=r"2 of 4 images cannot be read, first .*train/0000001: the row holds no image"
    ):
        source.load_split(source.open_dataset(data, splits=("train",)), "train")
    pixels, labels = source.load_split(source.open_dataset(data, splits=("train",), skip=2), "train")
    assert (len(pixels), labels.tolist()) == (2, [0, 1])


@pytest.mark.parametrize("labels", [[["a", "b"], ["b"], [], ["a"]], ["a|b", "b", "", "a"]])
def test_several_labels_of_a_row_are_read(photos, labels):
    import datasets

    image = (photos / "train/red/0.png").read_bytes()
    datasets.Dataset.from_dict({"image": [image] * 4, "labels": labels}).to_parquet(photos / "tags.parquet")
    dataset = source.open_dataset(f"parquet:{photos}/tags.parquet", splits=("train",), multilabel=True)
    assert dataset.classes == ("a", "b")
    assert source.indexed(dataset, "train").labels.tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]
    assert len(source.load_split(dataset, "train")[0]) == 4
    with pytest.raises(UsageError, match=r"train, row 0 has 2 labels|has no label"):
        source.open_dataset(f"parquet:{photos}/tags.parquet", splits=("train",))


def secret(photos: Path) -> str:
    import datasets

    kind = datasets.ClassLabel(names=["a", "b"])
    made = rows(photos, "test", label=[-1] * 8).cast_column("label", kind)
    made.to_parquet(photos / "secret/test.parquet")
    rows(photos, "train").to_parquet(photos / "secret/train.parquet")
    return f"parquet:{photos}/secret"


def other_class(photos: Path) -> str:
    (photos / "other").mkdir()
    rows(photos, "train").to_parquet(photos / "other/train.parquet")
    rows(photos, "test", label=["red"] * 7 + ["green"]).to_parquet(photos / "other/test.parquet")
    return f"parquet:{photos}/other"


def no_label(photos: Path) -> str:
    rows(photos, "train").remove_columns("label").to_parquet(photos / "train.parquet")
    return f"parquet:{photos}/train.parquet"


def number(photos: Path) -> str:
    rows(photos, "train", label=[0.5] * 24).to_parquet(photos / "train.parquet")
    return f"parquet:{photos}/train.parquet"


def broken(photos: Path) -> str:
    (photos / "train.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    return f"parquet:{photos}/train.parquet"


def cut(photos: Path) -> str:
    place = parquet(photos)
    file = photos / "parquet/train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-200])
    return place


def missing(photos: Path) -> str:
    parquet(photos)
    return f"parquet:{photos}/parqet"


def not_saved(photos: Path) -> str:
    return f"hf:{photos}/sved"


BAD = [
    (secret, UsageError, "test, row 0 has label -1"),
    (other_class, UsageError, "only test has 'green'"),
    (no_label, UsageError, "train: no column label among 'image'"),
    (number, UsageError, "train, row 0: 0.5 is no label"),
    (broken, CheckFailed, "train.parquet is no Parquet file, or damaged"),
    (cut, CheckFailed, "train-00001-of-00002.parquet is no Parquet file, or damaged"),
    (missing, UsageError, "did you mean parquet?"),
    (not_saved, UsageError, "sved' does not exist"),
]


@pytest.mark.parametrize(("spoil", "error", "says"), BAD, ids=[one[0].__name__ for one in BAD])
def test_bad_data_is_one_line_that_names_it(photos, spoil, error, says):
    with pytest.raises(error) as caught:
        source.open_dataset(spoil(photos))
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.skipif(bool(os.environ.get("HF_ENDPOINT")), reason="there may be a network")
def test_without_a_network_the_way_out_is_named(monkeypatch):
    import datasets

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'food101' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(EnvironmentProblem, match="hf:food101 cannot be reached on the Hub") as caught:
        source.open_dataset("hf:food101")
    assert "then --data hf:DIR" in caught.value.hint


def rewritten(photos: Path, change: Callable[[Any], Any]) -> str:
    """A saved data set whose training rows are changed."""
    import pyarrow

    place = saved(photos)
    (file,) = (photos / "saved/train").glob("*.arrow")
    with pyarrow.memory_map(str(file)) as mapped:
        table = change(pyarrow.ipc.open_stream(mapped).read_all())
    file.unlink()
    with pyarrow.OSFile(str(file), "wb") as out, pyarrow.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return place


def test_a_split_without_rows_is_no_split(photos):
    with pytest.raises(UsageError, match="no training images"):
        source.open_dataset(rewritten(photos, lambda table: table.slice(0, 0)))


def test_an_arrow_file_with_bytes_that_are_no_text_is_refused(photos):
    import pyarrow

    def change(table: Any) -> Any:
        offsets, content = pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff")
        path = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, offsets, content])
        images = pyarrow.StructArray.from_arrays([pyarrow.array([b"image"]), path], ["bytes", "path"])
        at = table.schema.get_field_index("image")
        return table.slice(0, 1).set_column(at, table.schema.field(at), images)

    with pytest.raises(CheckFailed, match=r"train: the Arrow file is damaged: .*Invalid UTF8"):
        source.open_dataset(rewritten(photos, change))
