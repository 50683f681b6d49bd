"""What is kept on disk: decoded images of large folders, and the shelf they lie on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import processes

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import decode, disk, headers, images, source, store
from poolzoo.data.choice import choose
from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names

DAY = 24 * 3600


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Where decoded images are kept."""
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POOLZOO_CACHE_LIMIT", raising=False)
    return tmp_path / "cache" / "images"


def load(path: Path, split="train", size=None, **rest) -> tuple[np.ndarray, np.ndarray]:
    return source.load_split(source.open_dataset(f"folder:{path}", size, (split,), **rest), split)


def pixels_of(path: Path, split="train") -> np.ndarray:
    """The oracle: every file opened by itself, in the order of the class folders and the names."""
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in sorted((path / split).glob("*/*"))])


def indexed(path: Path, label: int = 0) -> ImageIndex:
    """The training images of a folder, all with one label."""
    names = [file.relative_to(path / "train").as_posix() for file in sorted((path / "train").glob("*/*"))]
    return ImageIndex(FileStorage(str(path / "train")), Names.of(names), np.full(len(names), label))


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.is_dir() else []


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """The files that were decoded so far."""
    seen: list[Path] = []
    read = images.read
    monkeypatch.setattr(images, "read", lambda path, *rest: seen.append(path) or read(path, *rest))
    return seen


# --- Decoded images ------------------------------------------------------------------------------------------------


def is_mapped(pixels: np.ndarray) -> bool:
    """Whether an array's bytes are those of a file."""
    base: object = pixels
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def test_what_is_kept_is_what_is_decoded(photos, cache, capsys):
    pixels, labels = load(photos)
    assert is_mapped(pixels)
    assert not pixels.flags.writeable
    np.testing.assert_array_equal(pixels, pixels_of(photos))
    assert labels.tolist() == [0] * 12 + [1] * 12
    (place,) = entries(cache)
    assert sorted(p.name for p in place.iterdir()) == [
        *("about.json", "digests.npy", "labels.npy", "pixels.npy", "sums.npy"),
    ]
    np.testing.assert_array_equal(np.load(place / "pixels.npy"), pixels)
    assert json.loads((place / "about.json").read_text())["folder"] == str(photos / "train")
    assert capsys.readouterr().err == ""


def test_a_line_says_where_large_images_are_kept(photos, cache, monkeypatch, capsys):
    monkeypatch.setattr(store, "MENTIONED", 20_000)
    load(photos)
    load(photos, "test")
    (place, _), (line,) = sorted(entries(cache), key=os.path.getmtime), capsys.readouterr().err.splitlines()
    assert str(place) in line
    assert "the 24 train images decoded, 0.0 MB" in line


def test_the_second_load_decodes_nothing(photos, cache, reads, capsys):
    first, labels = load(photos)
    assert len(reads) == 24
    capsys.readouterr()
    second, again = load(photos)
    assert len(reads) == 24
    np.testing.assert_array_equal(second, first)
    assert again.tolist() == labels.tolist()
    assert capsys.readouterr().err == ""


def add(photos):
    shutil.copy2(photos / "train/red/0.png", photos / "train/blue/0a.png")


def remove(photos):
    (photos / "train/red/5.png").unlink()


def rewrite(photos):
    """Other pixels in a file of the same name and size."""
    Image.new("RGB", (16, 16), (77, 77, 77)).save(photos / "train/red/5.bmp")


def replace(photos):
    """Other pixels in a file of the same name and time."""
    Image.new("RGB", (16, 16), (77, 77, 77)).save(photos / "train/red/5.png")
    os.utime(photos / "train/red/5.png", ns=(0, 10**18))


def touch(photos):
    os.utime(photos / "train/red/5.png", ns=(0, 10**18 + 1))


def rename_file(photos):
    (photos / "train/red/9.png").rename(photos / "train/red/z.png")


def rename_class(photos):
    (photos / "train/red").rename(photos / "train/azure")


@pytest.mark.parametrize("change", [add, remove, rewrite, replace, touch, rename_file, rename_class])
def test_a_changed_folder_is_decoded_anew(photos, cache, reads, change):
    os.utime(photos / "train/red/5.png", ns=(0, 10**18))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(photos / "train/red/5.bmp")
    load(photos)
    reads.clear()
    change(photos)
    pixels, labels = load(photos)
    np.testing.assert_array_equal(pixels, pixels_of(photos))
    assert len(reads) == len(pixels) == len(labels)


def test_folders_of_equal_names_sizes_and_times_stay_apart(tmp_path, cache):
    """As uncompressed files out of an archive that was packed with one time for all are."""
    for split, gray in (("train", 10), ("test", 200)):
        for index in range(10):
            file = tmp_path / "same" / split / "thing" / f"{index}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (gray, gray, gray)).save(file)
            os.utime(file, ns=(0, 0))
    assert (load(tmp_path / "same", "train")[0] == 10).all()
    assert (load(tmp_path / "same", "test")[0] == 200).all()


def test_another_size_and_another_choice_are_kept_beside(photos, cache, reads):
    whole, small = load(photos)[0], load(photos, size=(8, 8))[0]
    few, labels = load(photos, limit=10, seed=1)
    assert (whole.shape, small.shape, few.shape) == ((24, 16, 16, 3), (24, 8, 8, 3), (10, 16, 16, 3))
    chosen = choose(np.repeat([0, 1], 12), 10, 1)
    np.testing.assert_array_equal(few, pixels_of(photos)[chosen])
    assert labels.tolist() == np.repeat([0, 1], 12)[chosen].tolist()
    assert len(entries(cache)) == 3
    reads.clear()
    load(photos, size=(8, 8))
    load(photos, limit=10, seed=1)
    assert reads == []


def test_files_that_differ_in_their_labels_only_are_told_apart(photos):
    """With --limit the same files may be chosen where another class comes before theirs."""
    keys = [store.Images(indexed(photos, label), "train", None).key for label in (0, 1, 0)]
    assert keys[0] == keys[2] != keys[1]


def test_evaluation_finds_the_test_images_that_training_kept(photos, cache, reads):
    """Training reads the test part at the size of the training part; `evaluate` asks for it by the run's size."""
    dataset = source.open_dataset(f"folder:{photos}")
    for split in ("train", "test"):
        source.load_split(dataset, split)
    reads.clear()
    np.testing.assert_array_equal(load(photos, "test", size=(16, 16))[0], pixels_of(photos, "test"))
    assert reads == []


def test_mixed_sizes_that_no_sample_shows_are_remembered(photos, cache, reads, monkeypatch, capsys):
    monkeypatch.setattr(headers, "SAMPLE", 1)
    Image.new("RGB", (40, 20), (0, 0, 255)).save(photos / "train/red/wide.png")
    first = load(photos)[0]
    assert first.shape == (25, 128, 128, 3)
    assert "mixed sizes (16×16, 20×40" in capsys.readouterr().err
    reads.clear()
    second = load(photos)[0]
    assert reads == []
    np.testing.assert_array_equal(second, first)
    assert "mixed sizes (16×16, 20×40" in capsys.readouterr().err
    expected = images.read(photos / "train/red/wide.png", (128, 128))
    np.testing.assert_array_equal(second[-1], expected)


def spoil(photos: Path, *names: str) -> None:
    for name in names:
        (photos / name).write_bytes(b"this is no image")


def test_unreadable_images_are_named_and_the_others_are_decoded_once(photos, cache, reads):
    spoil(photos, "train/red/3.png", "train/red/4.png")
    for _ in range(2):
        with pytest.raises(CheckFailed, match=r"2 of 24 images cannot be read, first .*3\.png"):
            load(photos)
    assert len(reads) == 26  # the second time only the two, which may have been repaired
    pixels, labels = load(photos, skip="all")
    assert len(reads) == 28
    for name in ("train/red/3.png", "train/red/4.png"):
        (photos / name).unlink()
    np.testing.assert_array_equal(pixels, pixels_of(photos))
    np.testing.assert_array_equal(labels, load(photos)[1])


def test_a_file_that_becomes_readable_is_among_the_images(photos, cache, monkeypatch):
    read = images.read

    def failing(path, *rest):
        if Path(getattr(path, "name", path)).name == "3.png":
            raise PermissionError(13, "Permission denied")
        return read(path, *rest)

    with monkeypatch.context() as broken:
        broken.setattr(images, "read", failing)
        assert len(load(photos, skip="all")[1]) == 23 - (photos / "train/blue/3.png").is_file()
    np.testing.assert_array_equal(load(photos, skip="all")[0], pixels_of(photos))


def test_nothing_is_kept_where_no_image_can_be_read(photos, cache):
    spoil(photos, *(str(file.relative_to(photos)) for file in photos.glob("train/*/*")))
    for skip in (None, "all"):
        with pytest.raises(CheckFailed, match="be read"):
            load(photos, skip=skip, size=(16, 16))
    assert entries(cache) == []


def truncate(place):
    os.truncate(place / "pixels.npy", (place / "pixels.npy").stat().st_size - 1)


def lengthen(place):
    raw = (place / "pixels.npy").read_bytes()
    (place / "pixels.npy").write_bytes(raw[:200] + b"x" + raw[200:])


def empty(place):
    (place / "pixels.npy").write_bytes(b"")


def garble(place):
    raw = (place / "pixels.npy").read_bytes()
    (place / "pixels.npy").write_bytes(b"\x80\x04" + raw[2:])


def other_shape(place):
    np.save(place / "pixels.npy", np.zeros((24, 8, 32, 3), np.uint8))


def fewer(place):
    np.save(place / "pixels.npy", np.zeros((23, 16, 16, 3), np.uint8))


def other_type(place):
    np.save(place / "pixels.npy", np.zeros((24, 16, 16, 3), np.int8))


def other_order(place):
    np.save(place / "pixels.npy", np.asfortranarray(np.zeros((24, 16, 16, 3), np.uint8)))


def overwritten(place):
    with (place / "pixels.npy").open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        last = file.read(1)
        file.seek(-9, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def other_labels(place):
    np.save(place / "labels.npy", np.zeros(24, np.int64))


def no_labels(place):
    (place / "labels.npy").unlink()


def no_json(place):
    (place / "about.json").write_text("{")


def odd_json(place):
    (place / "about.json").write_text("[]")


def nothing(place):
    for file in place.iterdir():
        file.unlink()


DAMAGES = [truncate, lengthen, empty, garble, other_shape, fewer, other_type, other_order, overwritten]
DAMAGES += [other_labels, no_labels]


@pytest.mark.parametrize("damage", [*DAMAGES, no_json, odd_json, nothing])
def test_a_damaged_cache_is_made_anew(photos, cache, reads, damage):
    load(photos)
    (place,) = entries(cache)
    damage(place)
    pixels, labels = load(photos)
    np.testing.assert_array_equal(pixels, pixels_of(photos))
    assert labels.tolist() == [0] * 12 + [1] * 12
    assert len(reads) == 48
    assert entries(cache) == [place]
    load(photos)
    assert len(reads) == 48


def test_only_a_few_images_are_in_memory_at_a_time(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(decode, "AHEAD", 8)
    one = 128 * 128 * 3
    for index in range(150):
        file = tmp_path / "large" / "train" / "thing" / f"{index}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (128, 128), (index, 0, 0)).save(file)
    tracemalloc.start()
    try:
        pixels = load(tmp_path / "large")[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pixels.nbytes == 150 * one
    assert peak < 60 * one, f"{peak / one:.0f} images of 150 were in memory"
    np.testing.assert_array_equal(pixels[:, 0, 0, 0], [int(p.stem) for p in sorted(tmp_path.glob("large/*/*/*"))])


def test_decoding_stops_when_nobody_wants_more(photos, monkeypatch):
    seen, read, closed = [], images.read, threading.Event()

    def waiting(path, *rest):
        seen.append(path)
        if len(seen) > 4:
            closed.wait(60)
        return read(path, *rest)

    class Two(ThreadPoolExecutor):
        def __init__(self, *_):
            super().__init__(2)

        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            closed.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(images, "read", waiting)
    monkeypatch.setattr(decode, "ThreadPoolExecutor", Two)
    rows = decode.each(indexed(photos), "train", None)
    next(rows)
    rows.close()
    assert len(seen) < 12, f"{len(seen)} of 24 files were read for one image"


# --- Interrupted and concurrent builds -----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_build_leaves_nothing_and_the_next_one_builds(photos, cache, monkeypatch, error):
    dataset = source.open_dataset(f"folder:{photos}")
    read, seen = images.read, []

    def stop_half_way(path, *rest):
        seen.append(path)
        if len(seen) > 12:
            raise error("half way")
        return read(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(images, "read", stop_half_way)
        with pytest.raises(error, match="half way"):
            dataset.load("train", cache.parent)
    assert entries(cache) == []
    np.testing.assert_array_equal(load(photos)[0], pixels_of(photos))


BUILDER = """
import hashlib, sys
from pathlib import Path
from poolzoo.data import images, source, store

folder, ready, go = map(Path, sys.argv[1:])
read, seen = images.read, []

def waiting(path, *rest):
    seen.append(path)
    if len(seen) == 6:  # in the middle of a build
        ready.write_text("here")  # both are pipes: it waits for the other end
        go.read_text()
    return read(path, *rest)

images.read = waiting
pixels = source.load_split(source.open_dataset(f"folder:{folder}"), "train")[0]
print(pixels.flags.writeable, hashlib.sha256(pixels.tobytes()).hexdigest())
"""


def builder(photos: Path, ready: Path, go: Path) -> subprocess.Popen[str]:
    """Another process that loads the folder, and waits in the middle of it until something comes through `go`."""
    os.mkfifo(ready)
    os.mkfifo(go)
    arguments = [sys.executable, "-c", BUILDER, *map(str, (photos, ready, go))]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there is neither SIGKILL nor a named pipe")
def test_a_killed_build_is_no_cache_and_is_removed(photos, cache, tmp_path):
    process = builder(photos, tmp_path / "ready", tmp_path / "never")
    assert processes.read_pipe(tmp_path / "ready") == "here"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = entries(cache)
    assert left.name.startswith(".")
    assert [p.name for p in left.iterdir()] == ["pixels.npy"]
    np.testing.assert_array_equal(load(photos)[0], pixels_of(photos))
    assert left not in entries(cache)
    assert len(entries(cache)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no named pipe")
def test_two_processes_that_build_the_same_do_no_harm(photos, cache, tmp_path):
    both = [builder(photos, tmp_path / f"ready{i}", tmp_path / f"go{i}") for i in range(2)]
    for index in range(2):
        assert processes.read_pipe(tmp_path / f"ready{index}") == "here"
    assert [p.name[:1] for p in entries(cache)] == ["."] * 2  # both are in the middle of it
    outputs = []
    for index, process in enumerate(both):
        (tmp_path / f"go{index}").write_text("on")
        outputs.append(process.communicate(timeout=60))
        assert process.returncode == 0, outputs[-1][1]
    first, second = (out.split() for out, _ in outputs)
    assert first == second
    assert first[0] == "False"  # it is the file that is mapped, and may not be written to
    (place,) = entries(cache)
    np.testing.assert_array_equal(np.load(place / "pixels.npy"), pixels_of(photos))


# --- Limits, full disks and places that cannot be written ----------------------------------------------------------


def test_images_beyond_the_cache_limit_are_read_into_memory(photos, cache, monkeypatch, capsys):
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "0.00002")
    pixels = load(photos)[0]
    assert not is_mapped(pixels)
    np.testing.assert_array_equal(pixels, pixels_of(photos))
    (line,) = capsys.readouterr().err.splitlines()
    assert "POOLZOO_CACHE_LIMIT is 0.0 MB" in line
    assert entries(cache) == []


def test_a_limit_of_zero_keeps_nothing_and_says_nothing(photos, cache, monkeypatch, capsys):
    load(photos)
    capsys.readouterr()
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "0")
    assert not is_mapped(load(photos)[0])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(photos, cache, monkeypatch, text):
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", text)
    with pytest.raises(UsageError, match=f"POOLZOO_CACHE_LIMIT '{text}'"):
        load(photos)


def test_the_test_part_does_not_push_out_the_training_part(photos, cache, reads, monkeypatch):
    """Or every run would decode both anew, where the limit holds either."""
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "0.00003")  # 30 kB: 27 are the training part's, 15 the test part's
    for decoded in (32, 8):
        reads.clear()
        dataset = source.open_dataset(f"folder:{photos}")
        train, test = (source.load_split(dataset, split)[0] for split in ("train", "test"))
        assert is_mapped(train)
        assert not is_mapped(test)
        assert len(reads) == decoded


def test_a_cache_that_cannot_be_written_is_one_warning(photos, cache, capsys):
    cache.parent.mkdir()
    cache.write_text("a file where the directory should be")
    for split in ("train", "test"):
        np.testing.assert_array_equal(load(photos, split)[0], pixels_of(photos, split))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert str(cache) in line
    assert "POOLZOO_CACHE" in line


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_without_permission_is_one_warning(photos, cache, capsys):
    cache.parent.mkdir()
    cache.parent.chmod(0o555)
    np.testing.assert_array_equal(load(photos)[0], pixels_of(photos))
    assert "Permission denied" in capsys.readouterr().err


def test_a_write_that_fails_half_way_is_one_warning(photos, cache):
    """A real failing write: the kernel allows the process no file above 16 kB, as a full disk would not."""
    resource = pytest.importorskip("resource")
    code = (
        "import resource, sys; from poolzoo.data import source\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (16384, {resource.RLIM_INFINITY}))\n"
        "pixels = source.load_split(source.open_dataset(sys.argv[1]), 'train')[0]\n"
        "print(type(pixels).__name__, pixels.sum())"
    )
    arguments = [sys.executable, "-c", code, f"folder:{photos}"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.stdout.split() == ["ndarray", str(pixels_of(photos).sum())], done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("warning: ")] != []
    assert entries(cache) == []


# --- The shelf -----------------------------------------------------------------------------------------------------


def shelve(shelf: disk.Shelf, key: str, size: int = 100, age: float = 0) -> Path:
    with shelf.building(key) as place:
        (place / "x").write_bytes(bytes(size))
    at = time.time() - age
    os.utime(shelf.root / key, (at, at))
    return shelf.root / key


@pytest.fixture
def shelf(tmp_path) -> disk.Shelf:
    return disk.Shelf(tmp_path / "shelf", 350)


def test_the_least_recently_used_entries_go_as_needed(shelf):
    for age, key in enumerate("cab", start=1):  # b was used least recently, then a, then c
        shelve(shelf, key, age=age * 1000)
    assert disk.Shelf(shelf.root, 350).find("b") is not None  # now a was
    assert shelf.room(50)
    assert sorted(p.name for p in shelf.root.iterdir()) == ["a", "b", "c"]
    assert shelf.room(51)
    assert sorted(p.name for p in shelf.root.iterdir()) == ["b", "c"]
    assert shelf.room(250)
    assert [p.name for p in shelf.root.iterdir()] == ["b"]


def test_nothing_is_evicted_for_what_cannot_fit(shelf, monkeypatch):
    shelve(shelf, "a")
    assert not shelf.room(351)
    assert shelf.find("a") is not None
    other = disk.Shelf(shelf.root, 350)
    monkeypatch.setattr(other, "free", lambda: disk.SPARE + 200)  # 100 more when "a" is gone
    assert not other.room(301)
    assert other.root.joinpath("a").is_dir()
    assert other.room(200)
    assert other.root.joinpath("a").is_dir()


def test_a_full_disk_evicts_too(shelf, monkeypatch):
    shelve(shelf, "a")
    monkeypatch.setattr(shelf, "free", lambda: disk.SPARE + 10 + (0 if (shelf.root / "a").is_dir() else 100))
    assert shelf.room(10)
    assert (shelf.root / "a").is_dir()
    assert shelf.room(110)
    assert not (shelf.root / "a").is_dir()


def test_what_a_shelf_gave_out_it_does_not_evict(shelf):
    shelve(shelf, "a", age=1000)
    shelve(shelf, "b")
    assert shelf.find("a") is not None
    assert shelf.room(200)
    assert [p.name for p in shelf.root.iterdir()] == ["a"]
    assert not shelf.room(251)


def test_unfinished_builds_count_and_are_not_evicted(shelf):
    shelve(shelf, "a")
    with shelf.building("b") as place:
        (place / "x").write_bytes(bytes(200))
        assert not disk.Shelf(shelf.root, 350).room(151)
        assert disk.Shelf(shelf.root, 350).room(150)
        assert place.is_dir()
        assert shelf.find("b") is None
        assert not (shelf.root / "a").exists()
    assert shelf.find("b") == shelf.root / "b"


def test_a_build_without_a_lock_is_removed_after_a_day(shelf):
    left = shelf.root / ".building-of-an-earlier-version"
    left.mkdir(parents=True)
    (left / "x").write_bytes(b"x")
    shelf.room(1)
    assert left.is_dir()  # it could be another process that builds
    for path in (left, left / "x"):
        os.utime(path, (time.time() - DAY - 60,) * 2)
    shelf.room(1)
    assert not left.exists()


def test_a_build_that_fails_leaves_nothing(shelf):
    def stopped() -> None:
        with shelf.building("a") as place:
            (place / "x").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(shelf.root.iterdir()) == []


def test_of_two_builds_the_first_is_kept(shelf):
    with shelf.building("a") as slow:
        (slow / "x").write_text("slow")
        with shelf.building("a") as fast:
            (fast / "x").write_text("fast")
    assert [p.name for p in shelf.root.iterdir()] == ["a"]
    assert (shelf.root / "a" / "x").read_text() == "fast"


def test_what_was_evicted_stays_readable_where_it_is_mapped(tmp_path):
    shelf = disk.Shelf(tmp_path / "shelf", 10_000)
    with shelf.building("a") as place:
        disk.write_rows(place / "x.npy", 100, (np.full(64, i, np.uint8) for i in range(100)))
    mapped = np.load(shelf.root / "a" / "x.npy", mmap_mode="r")
    assert shelf.room(9_000)
    assert list(shelf.root.iterdir()) == []
    assert mapped.sum() == 64 * sum(range(100))


def test_what_is_built_can_be_read_by_its_owner_only(shelf):
    assert shelve(shelf, "a").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_rows_become_the_file_that_numpy_would_write(tmp_path, dtype):
    whole = np.random.default_rng(0).integers(0, 99, (7, 5, 3)).astype(dtype)
    disk.write_rows(tmp_path / "rows.npy", 7, iter(whole))
    np.save(tmp_path / "whole.npy", whole)
    assert (tmp_path / "rows.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize(
    "rows",
    [
        [np.zeros(3)] * 2,
        [np.zeros(3)] * 4,
        [],
        [np.zeros(3), np.zeros(2), np.zeros(4)],
        [np.zeros(3), np.zeros(3), np.zeros(3, np.float32)],
    ],
)
def test_rows_that_do_not_fit_together_are_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="row"):
        disk.write_rows(tmp_path / "rows.npy", 3, rows)
