"""Images that are read while the network trains: their pixels, their order, what is kept, and files that are broken."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import photographs
from torchvision.transforms.v2 import functional as v2

from poolzoo.data import images
from poolzoo.data.augment import crops
from poolzoo.data.augment.augmentation import Augmentation, EpochParams
from poolzoo.data.augment.crops import Box, CropSampler
from poolzoo.data.batches import Rank
from poolzoo.data.streaming import row_file
from poolzoo.data.streaming.images import StreamedImages, batches
from poolzoo.data.streaming.loader import StreamLoader
from poolzoo.data.streaming.photographs import Encoded, Reduced, reduced_size
from poolzoo.data.streaming.row_file import RECORD, RowFile, sweep
from poolzoo.data.streaming.skipped import Skipped
from poolzoo.data.unreadable import BrokenImages
from poolzoo.plugin.image_index import FileStorage, ImageIndex

CPU = torch.device("cpu")
SIZE = (32, 32)
CROPS = Augmentation(flip="random", crop_scale=(0.2, 1.0))


@pytest.fixture
def index(tmp_path):
    return photographs.index(tmp_path / "photos")


def loader(index: ImageIndex, crops=None, augmentation=CROPS, **rest) -> StreamLoader:
    images_, labels = StreamedImages(index, SIZE), index.labels.astype(np.int64)
    return StreamLoader(images_, labels, 4, augmentation, seed=7, device=CPU, crops=crops or Encoded(index), **rest)


def served(given: StreamLoader, number: int = 1, start: int = 0) -> list[tuple[bytes, list[int]]]:
    return [(batch.images.numpy().tobytes(), batch.labels.tolist()) for batch in given.epoch(number, start)]


# --- Pixels --------------------------------------------------------------------------------------------------------


def test_streamed_images_are_what_the_reader_gives(index):
    streamed = StreamedImages(index, SIZE)
    expected = np.stack([images.read(index.where(position), SIZE) for position in range(len(index))])
    assert streamed.shape == expected.shape
    np.testing.assert_array_equal(streamed[np.array([3, 0, -1])], expected[[3, 0, -1]])
    np.testing.assert_array_equal(streamed[2:9:3], expected[2:9:3])
    np.testing.assert_array_equal(streamed[5], expected[5])
    found = np.concatenate(list(batches(streamed, np.arange(12)[::-1], 5)))
    np.testing.assert_array_equal(found, expected[::-1])


def test_crop_has_the_pixels_of_torchvision_and_pillow(tmp_path):
    """Of a file without loss: torchvision's own crop and resize of the whole image, to one level."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(pixels).resize((240, 180), Image.Resampling.BICUBIC))
    Image.fromarray(pixels).save(tmp_path / "x.png")
    one = ImageIndex(FileStorage(str(tmp_path)), photographs.Names.of(["x.png"]), np.zeros(1, np.int32))
    out, box = np.empty((48, 64, 3), np.uint8), Box(11, 30, 130, 170)
    Encoded(one).crop(0, lambda full: box, out)
    whole = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    expected = v2.resized_crop(whole, *box, size=[48, 64], antialias=True).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(out.astype(int), expected.astype(int), atol=1)
    part = Image.fromarray(pixels).crop((30, 11, 200, 141)).resize((64, 48), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(out.astype(int), np.asarray(part).astype(int), atol=1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_scaled_decoding_of_a_crop_shows_the_same_part(tmp_path, orientation):
    """A large JPEG, perhaps turned: decoded at a part of its size the crop is that of the full-size image, nearly."""
    small = np.random.default_rng(1).integers(0, 256, (7, 9, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = Image.fromarray(small).resize((611, 405), Image.Resampling.BICUBIC)
    large.save(tmp_path / "x.jpg", quality=95, exif=exif)
    one = ImageIndex(FileStorage(str(tmp_path)), photographs.Names.of(["x.jpg"]), np.zeros(1, np.int32))
    whole = images.read(tmp_path / "x.jpg")
    box = Box(40, 64, 304, 280)  # in whole pixels at an eighth, where turning puts no rest of a pixel first
    assert crops.part_of(box, SIZE) == 8
    out, expected = np.empty((*SIZE, 3), np.uint8), np.empty((*SIZE, 3), np.uint8)
    Encoded(one).crop(0, lambda full: box, out)
    crops.resize_into(whole, box, expected)
    moved = np.abs(np.roll(expected, 1, 1).astype(int) - expected).mean()
    assert np.abs(out.astype(int) - expected).mean() < moved / 2


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (224, 224), (3, 12_000)])
def test_mirroring_is_exact(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = image[:, ::-1].copy()
    crops.mirror(image)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux lists them")
def test_threads_that_load_images_wait_for_none_of_torch():
    """A team of torch's threads belongs to the thread that first divides an operation, and stays."""
    image = np.zeros((448, 448, 3), np.uint8)

    def begun(work) -> int:
        found: list[int] = []

        def count() -> None:
            before = set(os.listdir("/proc/self/task"))
            work()
            found.append(len(set(os.listdir("/proc/self/task")) - before))

        thread = threading.Thread(target=count)
        thread.start()
        thread.join()
        return found[0]

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert begun(lambda: torch.from_numpy(image).flip(1)) == 1, "torch divides an image of this size"
        assert begun(lambda: crops.mirror(image)) == 0
        assert begun(lambda: crops.resize_into(image, Box(0, 0, 448, 448), np.empty((400, 400, 3), np.uint8))) == 0
    finally:
        torch.set_num_threads(threads)


def test_reduced_photograph_gives_nearly_the_same_crop(index):
    reduced = Reduced(index, (24, 24), None)
    pixels, full = reduced.reduce(2)
    assert full == (150, 210)
    assert pixels.shape[:2] == reduced_size(full, (24, 24)) == (28, 39)
    assert reduced_size((20, 30), (24, 24)) == (20, 30)
    out, expected = np.empty((24, 24, 3), np.uint8), np.empty((24, 24, 3), np.uint8)
    box = Box(2 * 150 // 28, 3 * 210 // 39, 24 * 150 // 28, 30 * 210 // 39)  # in whole pixels of the reduced one
    reduced.crop(2, lambda full: box, out)
    crops.resize_into(images.read(index.where(2)), box, expected)
    moved = np.abs(np.roll(expected, 1, 1).astype(int) - expected)[:, 1:].mean()
    assert np.abs(out.astype(int) - expected).mean() < moved / 3


def test_boxes_are_distributed_as_those_of_torchvision():
    from torchvision.transforms import v2 as transforms

    sampler, full = CropSampler((0.08, 1.0), (3 / 4, 4 / 3), seed=3, epoch=2), (300, 400)
    found = np.array([sampler.box(position, full) for position in range(3000)])
    assert (found >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= full).all()
    torch.manual_seed(0)
    theirs = transforms.RandomResizedCrop(8).make_params
    image = torch.empty(3, *full)
    drawn = (theirs([image]) for _ in range(3000))
    expected = np.array([[each[key] for key in ("top", "left", "height", "width")] for each in drawn])
    np.testing.assert_allclose(found.mean(0), expected.mean(0), rtol=0.05)
    np.testing.assert_allclose(found.std(0), expected.std(0), rtol=0.07)
    assert sampler.box(5, (10, 400)) == Box(0, 193, 10, 13)  # too wide for any ratio: the middle


# --- Order ---------------------------------------------------------------------------------------------------------


def test_epoch_is_what_a_plain_loop_over_the_files_gives(index):
    """Without threads and prefetching: the permutation, a box by position, Pillow's decoding, mirrored where drawn."""
    params = EpochParams.sample(12, SIZE, CROPS, seed=7, epoch=3)
    sampler = CropSampler((0.2, 1.0), CROPS.crop_ratio, seed=7, epoch=3)
    found = list(loader(index, threads=3).epoch(3))
    assert len(found) == 3
    for step, batch in enumerate(found):
        positions = params.order[step * 4 : step * 4 + 4]
        assert batch.labels.tolist() == (positions % 3).tolist()
        for position, image in zip(positions, batch.images.numpy(), strict=True):
            with Image.open(index.where(position)) as whole:
                box = sampler.box(position, whole.size[::-1])
                part = crops.part_of(box, SIZE)
                whole.draft(None, (whole.width // part, whole.height // part))
                edges = [round(edge / part) for edge in (box.left, box.top, box.left + box.width, box.top + box.height)]
                expected = np.asarray(whole.crop(edges).resize(SIZE[::-1], Image.Resampling.BILINEAR)).astype(int)
            expected = expected[:, ::-1] if params.flipped[position] else expected
            np.testing.assert_allclose(image.astype(int), expected, atol=1)


def test_repeated_images_of_a_balanced_epoch_are_cropped_anew(index):
    labels = np.ones(len(index), np.int64)
    labels[0] = 0
    how = Augmentation(crop_scale=(0.08, 1.0))
    given = StreamLoader(
        StreamedImages(index, SIZE), labels, 4, how, seed=7, device=CPU, crops=Encoded(index), sampler="balanced"
    )
    rare = [
        image.numpy().tobytes()
        for batch in given.epoch(1)
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True)
        if label == 0
    ]
    assert len(set(rare)) == len(rare) > 2


@pytest.mark.parametrize("augmentation", [CROPS, Augmentation(shift=2, cutout=8, flip="alternating")])
def test_number_of_threads_changes_nothing(index, augmentation):
    one, many = (loader(index, augmentation=augmentation, threads=threads) for threads in (1, 5))
    assert served(one) == served(many)
    assert served(one, 1) != served(one, 2)


def test_an_epoch_resumes_at_any_step(index, tmp_path):
    whole = served(loader(index))
    assert [served(loader(index), start=step) for step in (1, 2, 3)] == [whole[1:], whole[2:], []]
    first = iter(loader(index, Reduced(index, SIZE, RowFile(tmp_path / "rows", 12, 10**9))).epoch(1))
    begun = next(first).images.numpy().tobytes()
    first.close()  # what was reduced until then is kept, and the rest of the epoch is the same
    rest = served(loader(index, Reduced(index, SIZE, RowFile(tmp_path / "rows", 12, 10**9))), start=1)
    fresh = served(loader(index, Reduced(index, SIZE, None)))
    assert [begun, *(pixels for pixels, _ in rest)] == [pixels for pixels, _ in fresh]


def test_ranks_share_the_batches_of_one_process(index):
    mixing = Augmentation(flip="random", crop_scale=(0.2, 1.0), mixup=0.4, cutmix=1.0)
    (alone,), *shares = (
        [list(loader(index, augmentation=mixing, rank=Rank(rank, count)).epoch(1)) for rank in range(count)]
        for count in (1, 2)
    )
    for step, batch in enumerate(alone):
        for rank, own in enumerate(shares[0]):
            torch.testing.assert_close(own[step].images, batch.images[rank::2], rtol=0, atol=0)
            assert own[step].mixed_labels.tolist() == batch.mixed_labels[rank::2].tolist()


# --- What is kept --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """A storage that notes what it opens."""

    storage: FileStorage
    opened: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return self.storage.place

    def open(self, row, name):
        self.opened.append(name)
        return self.storage.open(row, name)

    def stamp(self, row, name):
        return self.storage.stamp(row, name)


def test_reduced_photographs_are_decoded_once(index, tmp_path):
    storage = Counted(index.storage)
    counted = ImageIndex(storage, index.names, index.labels)

    def given():
        return loader(counted, Reduced(counted, SIZE, RowFile(tmp_path / "rows", 12, 10**9)))

    first = served(given())
    assert sorted(storage.opened) == list(index.names)
    assert served(given()) == first
    served(given(), 2)
    assert len(storage.opened) == 12


def test_images_to_test_on_are_kept_where_asked(index, tmp_path):
    keep = np.arange(12) < 2
    one = StreamedImages(index, SIZE, kept=RowFile(tmp_path / "rows", 12, 10**9), keep=keep)
    expected = one[:]
    rows = RowFile(tmp_path / "rows", 12, 0)
    assert [rows.find(position) is not None for position in range(12)] == keep.tolist()
    np.testing.assert_array_equal(StreamedImages(index, SIZE, kept=rows)[:], expected)


def test_killed_process_leaves_whole_rows_alone(tmp_path):
    """It is killed behind a flush with more rows unflushed: those flushed are there, the others are made again."""
    script = (
        "import os, sys, numpy as np; from pathlib import Path; from poolzoo.data.streaming.row_file import RowFile\n"
        "rows = RowFile(Path(sys.argv[1]), 9, 10**9)\n"
        "for i in range(6):\n"
        "    rows.add(i, np.full((4 + i, 5, 3), i, np.uint8), (40, 50))\n"
        "    i == 3 and rows.flush()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "rows"])
    (table,) = (tmp_path / "rows").glob("*.table")
    with table.open("ab") as file:
        file.write(b"half a record")
    living = RowFile(tmp_path / "rows", 9, 10**9)
    living.add(8, np.zeros((2, 2, 3), np.uint8), (8, 8))  # no record of it is written yet
    (tmp_path / "rows" / "part-dead.rows").write_bytes(bytes(99))
    sweep(tmp_path / "rows")
    sizes = sorted(path.stat().st_size for path in (tmp_path / "rows").glob("*.rows"))
    assert sizes == [12, sum((4 + i) * 5 * 3 for i in range(4))]
    rows = RowFile(tmp_path / "rows", 9, 10**9)
    assert [rows.find(position) is not None for position in range(9)] == [True] * 4 + [False] * 5
    kept = rows.find(3)
    assert (kept.size, kept.full) == ((7, 5), (40, 50))
    np.testing.assert_array_equal(rows.read(kept, 2, 6), np.full((4, 5, 3), 3))
    rows.add(4, np.full((2, 2, 3), 9, np.uint8), (8, 8))
    rows.flush()
    other = RowFile(tmp_path / "rows", 9, 0)
    np.testing.assert_array_equal(other.read(other.find(4)), np.full((2, 2, 3), 9))


def damage_a_field(table: Path) -> None:
    content = bytearray(table.read_bytes())
    content[0] ^= 1  # the first record is of another image now
    table.write_bytes(content)


def remove_the_pixels(table: Path) -> None:
    table.with_suffix(".rows").unlink()


def overwrite_pixels(table: Path) -> None:
    rows = table.with_suffix(".rows")
    content = np.fromfile(rows, np.uint8)
    content[500:2500] ^= 255
    content.tofile(rows)


@pytest.mark.parametrize(
    "spoil", [damage_a_field, remove_the_pixels, overwrite_pixels], ids=lambda spoil: spoil.__name__
)
def test_damaged_records_of_kept_rows_are_made_again(index, tmp_path, spoil):
    crop = Box(1, 2, 20, 20)

    def crops() -> np.ndarray:
        rows = RowFile(tmp_path / "rows", 12, 10**9)
        out, reduced = np.empty((12, *SIZE, 3), np.uint8), Reduced(index, SIZE, rows)
        for position in range(12):
            reduced.crop(position, lambda full: crop, out[position])
        rows.close()
        return out

    expected = crops()
    (table,) = (tmp_path / "rows").glob("*.table")
    spoil(table)
    np.testing.assert_array_equal(crops(), expected)
    assert len(list((tmp_path / "rows").glob("*.table"))) == 2  # what was lost lies in a part of its own


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no advice")
def test_disk_begins_to_write_long_before_it_must(tmp_path, monkeypatch):
    """So that the end of an epoch waits for little: all but the last few bytes were handed over, each once."""
    handed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, start, count, advice: handed.append((start, count)))
    monkeypatch.setattr(row_file, "BEGIN_BYTES", 1000)
    rows = RowFile(tmp_path / "rows", 20, 10**9)
    for position in range(20):
        rows.add(position, np.zeros((10, 10, 3), np.uint8), (10, 10))
    ends = [start + count for start, count in handed]
    assert [start for start, _ in handed] == [0, *ends[:-1]]
    assert 20 * 300 - 1000 < ends[-1] <= 20 * 300
    assert not list((tmp_path / "rows").glob("*.table"))  # no record is written before the disk has the pixels


def test_processes_read_what_others_reduced(tmp_path):
    one, other = (RowFile(tmp_path / "rows", 4, 10**9) for _ in range(2))
    one.add(0, np.ones((2, 3, 3), np.uint8), (2, 3))
    other.add(1, np.full((3, 2, 3), 2, np.uint8), (3, 2))
    for rows in (one, other):
        rows.flush()
    for rows in (one, other):
        rows.refresh()
        assert [int(rows.read(rows.find(position)).max()) for position in (0, 1)] == [1, 2]


def test_spent_budget_keeps_no_more(tmp_path):
    rows = RowFile(tmp_path / "rows", 4, 20)
    for position in range(3):
        rows.add(position, np.zeros((2, 3, 3), np.uint8), (2, 3))
    assert [rows.find(position) is not None for position in range(4)] == [True, False, False, False]


def test_rows_that_cannot_be_written_are_said_once(tmp_path, capsys):
    (tmp_path / "rows").write_text("a file where the directory would be")
    rows = RowFile(tmp_path / "rows", 4, 10**9)
    for position in range(2):
        rows.add(position, np.zeros((2, 3, 3), np.uint8), (2, 3))
    assert capsys.readouterr().err.count("no more images are kept") == 1
    assert rows.find(0) is None


def test_records_on_a_full_disk_are_whole(tmp_path):
    """The kernel allows the process no file above 1,000 bytes, as a full disk would not."""
    resource = pytest.importorskip("resource")
    rows = RowFile(tmp_path / "rows", 30, 10**9)
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, allowed[1]))
    try:
        for position in range(30):
            rows.add(position, np.full((1, 2, 3), position, np.uint8), (1, 2))
        rows.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    (table,) = (tmp_path / "rows").glob("*.table")
    assert table.stat().st_size == 1000 // RECORD.itemsize * RECORD.itemsize
    other = RowFile(tmp_path / "rows", 30, 0)
    kept = [position for position in range(30) if other.find(position) is not None]
    assert kept == list(range(1000 // RECORD.itemsize))
    assert [other.read(other.find(position)).max() for position in kept] == kept


# --- Broken files --------------------------------------------------------------------------------------------------


def spoil(index: ImageIndex, position: int) -> Path:
    path = index.where(position)
    path.write_bytes(path.read_bytes()[:300])
    return path


def test_broken_file_ends_the_epoch_with_its_name(index):
    path = spoil(index, 5)
    with pytest.raises(BrokenImages, match="1 of 12 images cannot be read") as caught:
        served(loader(index, threads=2))
    assert str(path) in caught.value.message
    with pytest.raises(BrokenImages, match=path.name):
        StreamedImages(index, SIZE)[:]


def test_another_image_takes_the_place_of_a_broken_one(index, capsys):
    whole = [label for _, labels in served(loader(index)) for label in labels]
    path = spoil(index, 5)
    known = []
    given = [loader(index, threads=threads, skipped=Skipped("all", 12, known)) for threads in (1, 4)]
    first, second = (served(one) for one in given)
    assert first == second
    labels = [label for _, labels in first for label in labels]
    order = EpochParams.sample(12, SIZE, CROPS, seed=7, epoch=1).order.tolist()
    assert labels == [6 % 3 if position == 5 else label for position, label in zip(order, whole, strict=True)]
    assert [found for found, _ in known] == [path]
    assert capsys.readouterr().err.count("another image takes its place") == 1


def test_more_broken_files_than_allowed_are_refused(index):
    for position in (2, 7):
        spoil(index, position)
    with pytest.raises(BrokenImages, match="2 of 12 images cannot be read"):
        served(loader(index, skipped=Skipped(1, 12)))
    with pytest.raises(BrokenImages):
        served(loader(index.take(np.array([2, 7, 7, 2])), skipped=Skipped("all", 4)))


def test_an_error_elsewhere_stops_the_threads(index):
    """A batch that nobody takes does not keep the process alive."""

    class Unwilling(Encoded):
        def crop(self, position, choose, out):
            raise RuntimeError("a storage of a plugin")

    with pytest.raises((BrokenImages, RuntimeError)):
        served(loader(index, Unwilling(index)))


def test_reading_says_nothing_of_odd_files(index, capfd):
    path = index.where(0)
    buffer = io.BytesIO()
    Image.new("P", (40, 40)).save(buffer, "PNG", transparency=b"\0" * 9)
    path.write_bytes(buffer.getvalue())
    StreamedImages(index, SIZE)[:]
    assert capfd.readouterr().err == ""
