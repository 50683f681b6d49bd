"""Prediction: what is in the files, whatever the files are, as the command says it."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.linear_bundle import LABELS, chances, linear_bundle
from support.odd_images import HEIGHT, ODD, PIXELS, WIDTH, png

from poolzoo.data import images
from poolzoo.runtime import ort_session
from poolzoo.runtime.prediction import predict as predicting


@pytest.fixture(params=["uint8", "float"])
def linear(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return linear_bundle(tmp_path / "linear", request.param)


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    return linear_bundle(tmp_path / "linear", "uint8")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """150 images, which make three batches."""
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(150):
        Image.fromarray(np.roll(PIXELS, index)).save(folder / f"{index:03}.png")
    return folder


# --- What becomes of an image --------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", ODD, ids=lambda save: save.__name__)
def test_an_odd_image_becomes_the_pixels_that_it_means(tmp_path, save):
    expected = save(tmp_path / "odd")
    (file,) = tmp_path.iterdir()
    with warnings.catch_warnings(action="ignore"):
        np.testing.assert_array_equal(images.read(file, (HEIGHT, WIDTH)), expected)


def test_odd_images_are_labeled_by_what_they_mean(poolzoo, linear, tmp_path):
    (tmp_path / "odd").mkdir()
    expected = np.stack([save(tmp_path / "odd" / save.__name__) for save in sorted(ODD, key=lambda s: s.__name__)])
    rows = poolzoo("predict", linear, tmp_path / "odd", "--json", "--top", 4).json
    assert [Path(row["file"]).stem for row in rows] == sorted(save.__name__ for save in ODD)
    got = [[{one["label"]: one["score"] for one in row["top"]}[label] for label in LABELS] for row in rows]
    np.testing.assert_allclose(got, chances(expected), atol=1e-5)


def test_a_photograph_is_resized_as_the_bundle_says(poolzoo, tmp_path):
    path = linear_bundle(tmp_path / "b", "uint8", interpolation="bicubic", crop_pct=0.75)
    photo = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    (row,) = poolzoo("predict", path, tmp_path / "photo.png", "--json").json
    by_hand = photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=(7.5, 5, 52.5, 35))  # the central 45 × 30
    assert row["score"] == pytest.approx(chances(np.asarray(by_hand)).max(), abs=1e-5)


def test_predict_says_how_much_is_cut_off(poolzoo, linear, tmp_path):
    for name, (height, width) in {"same": (2 * HEIGHT, 2 * WIDTH), "wide": (HEIGHT, 4 * WIDTH)}.items():
        Image.new("RGB", (width, height)).save(tmp_path / f"{name}.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "turned.jpg", exif=turned)
    outcome = poolzoo("predict", linear, *sorted(tmp_path.glob("*.*g")), "--csv")
    assert (outcome.code, outcome.err.splitlines()) == (
        *(0, [f"1 of 3 images are not of the aspect {HEIGHT}×{WIDTH}: up to 75 % of a side is cut off"]),
    )


@pytest.mark.skipif(os.name == "nt", reason="no named pipes")
def test_an_image_may_come_through_a_pipe(poolzoo, linear, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "x.png").read_bytes()))
    writer.start()
    rows = poolzoo("predict", linear, tmp_path / "pipe", tmp_path / "x.png", "--json").json
    writer.join()
    assert rows[0]["top"] == rows[1]["top"]


# --- What cannot be read -------------------------------------------------------------------------------------------


def broken_files(folder: Path) -> list[Path]:
    """A file for each way in which one can be broken."""
    folder.mkdir()
    whole = {}
    for kind in ("png", "jpeg", "webp", "gif", "bmp", "avif"):
        content = io.BytesIO()
        Image.fromarray(np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(content, kind)
        whole[kind] = content.getvalue()
    content = {
        **{f"half.{kind}": raw[: len(raw) // 2] for kind, raw in whole.items()},
        "damaged.png": whole["png"][:60] + bytes(60) + whole["png"][120:],
        "empty.png": b"",
        "text.jpg": b"no image\n",
        "bomb.png": png(20_000, 10_000, 8, 2, b""),
        "nothing.png": png(0, 0, 8, 2, b""),
    }
    for name, raw in content.items():
        (folder / name).write_bytes(raw)
    (folder / "leads-nowhere.png").symlink_to(folder / "nowhere")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    return [*(folder / name for name in (*content, "leads-nowhere.png", "circle.png")), folder / "missing.png"]


def test_a_broken_file_is_a_row_among_the_others(poolzoo, simple, tmp_path):
    broken, good = broken_files(tmp_path / "broken"), tmp_path / "good.png"
    Image.fromarray(PIXELS).save(good)
    (tmp_path / "folder.png").mkdir()
    broken += [tmp_path / "folder.png"]
    listed = tmp_path / "names"
    listed.write_text("\n".join(f"{file}\n{good}" for file in broken))
    outcome = run_on(simple, "-", "--json", names=listed)
    rows = json.loads(outcome.stdout)
    assert outcome.returncode == 1
    assert [row["file"] for row in rows] == [str(name) for file in broken for name in (file, good)]
    assert [row["file"] for row in rows if "error" in row] == [str(file) for file in broken]
    for row in rows:
        if "error" in row:
            assert set(row) == {"file", "error"}
            assert row["error"].isprintable()
            assert row["error"]
        else:
            assert row["score"] == pytest.approx(chances(PIXELS).max(), abs=1e-5)
    reasons = {Path(row["file"]).name: row["error"] for row in rows if "error" in row}
    assert reasons["missing.png"] == "No such file or directory"
    assert reasons["folder.png"] == "Is a directory"
    assert "bomb" in reasons["bomb.png"]
    assert outcome.stderr.splitlines()[0].startswith(f"error: {len(broken)} of {2 * len(broken)} images cannot be read")
    assert len(outcome.stderr.splitlines()) == 2


RAISED = [
    (KeyError("x"), "KeyError: 'x'"),
    (struct.error("unpack requires 4 bytes"), "unpack requires 4 bytes"),
    (MemoryError(), "MemoryError"),
    (RecursionError("too deep"), "too deep"),
    (EOFError(), "EOFError"),
    (TypeError("two\nlines"), "two lines"),
    (OSError(5, "Input/output error"), "Input/output error"),
]


@pytest.mark.parametrize(("error", "reason"), RAISED, ids=[type(error).__name__ for error, _ in RAISED])
def test_whatever_pillow_raises_is_a_row(poolzoo, simple, many, monkeypatch, error, reason):
    opened = Image.open

    def refuse(path, *args):
        if Path(path.name).name == "070.png":
            raise error
        return opened(path, *args)

    monkeypatch.setattr(Image, "open", refuse)
    outcome = poolzoo("predict", simple, many, "--json")
    assert outcome.code == 1
    assert {Path(row["file"]).name: row["error"] for row in outcome.json if "error" in row} == {"070.png": reason}


def test_what_may_not_be_read_is_a_row(poolzoo, simple, many):
    (many / "007.png").chmod(0)
    if os.access(many / "007.png", os.R_OK):
        pytest.skip("the superuser may read everything")
    closed, listed = many / "closed", many / "listed"
    closed.mkdir(mode=0)
    listed.mkdir()
    (listed / "x.png").touch()
    listed.chmod(0o400)
    outcome = poolzoo("predict", simple, many, "--json")
    for folder in (closed, listed):
        folder.chmod(0o700)
    refused = {row["file"]: row["error"] for row in outcome.json if "error" in row}
    assert refused == dict.fromkeys(map(str, (many / "007.png", closed, listed / "x.png")), "Permission denied")
    assert len(outcome.json) == 152


def test_an_odd_image_is_no_reason_to_warn(poolzoo, simple, many, monkeypatch):
    """These tests turn warnings into errors; Pillow warns of images larger than this, and refuses twice as large."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    outcome = poolzoo("predict", simple, many / "000.png", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    with pytest.warns(UserWarning, match="still heard"):  # and afterwards it may warn again
        warnings.warn("still heard", UserWarning, stacklevel=1)


def test_what_a_library_below_python_says_stays_there(simple, tmp_path):
    file = tmp_path / "damaged.tif"
    Image.fromarray(np.tile(PIXELS, (8, 8, 1))).save(file, compression="tiff_lzw")
    with Image.open(file) as image:
        (start,), (length,) = image.tag_v2[273], image.tag_v2[279]
    raw = bytearray(file.read_bytes())
    raw[start : start + length] = b"\xff" * length
    file.write_bytes(raw)
    noise = "from PIL import Image; import sys\ntry: Image.open(sys.argv[1]).load()\nexcept OSError: pass"
    told = subprocess.run([sys.executable, "-c", noise, str(file)], capture_output=True, text=True, check=True)
    assert told.stderr, "libtiff says nothing of this file, so that nothing is tested"
    outcome = run_on(simple, file)
    assert outcome.returncode == 1
    assert [line.split(": ")[0] for line in outcome.stderr.splitlines()] == ["error", "hint"]


# --- What is named -------------------------------------------------------------------------------------------------


def run_on(*arguments: object, names: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with warnings as errors."""
    command = [sys.executable, "-W", "error", "-m", "poolzoo", "predict", *map(str, arguments)]
    with (names or Path(os.devnull)).open("rb") as stdin:
        return subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)


def test_a_folder_means_its_images_at_any_depth_in_order(poolzoo, simple, tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a.png", "c/d/e.webp", ".hidden.png", ".cache/x.png", "b/.y.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "b" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "in" / "b" / "pipe.png")
    outcome = poolzoo("predict", simple, tmp_path / "in", tmp_path / "in" / "a.png", "--json")
    assert outcome.err == "ignored: 1 .txt, 1 pipes or devices, 1 dangling link, 3 hidden\n"
    rows = outcome.json
    names = [Path(row["file"]).relative_to(tmp_path / "in").as_posix() for row in rows]
    assert names == ["a.png", "b/1.JPG", "b/2.png", "c/d/e.webp", "a.png"]
    assert [row for row in rows if "error" in row] == []


def test_a_folder_without_images_is_a_usage_error(poolzoo, simple, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    outcome = poolzoo("predict", simple, tmp_path / "empty")
    assert (outcome.code, outcome.out) == (2, "")
    assert "holds no image" in outcome.err


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_names_come_on_stdin(simple, tmp_path, end):
    odd = "two\nlines.png" if end == "\0" else "with spaces.png"
    files = [tmp_path / odd, tmp_path / "b.png"]
    for file in files:
        Image.fromarray(PIXELS).save(file)
    (tmp_path / "names").write_bytes(end.join(str(file) for file in files).encode() + end.encode())
    outcome = run_on(simple, "-", "--json", names=tmp_path / "names")
    assert [row["file"] for row in json.loads(outcome.stdout)] == [str(file) for file in files]
    assert outcome.returncode == 0


def test_no_name_on_stdin_is_a_usage_error(simple):
    outcome = run_on(simple, "-")
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert "stdin names no image" in outcome.stderr


# --- How it is told ------------------------------------------------------------------------------------------------


def test_csv_is_read_back_as_it_was_meant(poolzoo, simple, tmp_path):
    names = [
        "plain.png",
        "a,b.png",
        'with "quotes".png',
        "two\nlines.png",
        "carriage\rreturn.png",
        "ä.png",
        "missing,png",
    ]
    for name in names[:-1]:
        Image.fromarray(PIXELS).save(tmp_path / name)
    outcome = poolzoo("predict", simple, *(tmp_path / name for name in names), "--csv")
    header, *rows = csv.reader(io.StringIO(outcome.out, newline=""))
    assert header == ["file", "label", "score", "error"]
    assert [row[0] for row in rows] == [str(tmp_path / name) for name in names]
    best = chances(PIXELS)
    for row in rows[:-1]:
        assert row[1] == LABELS[best.argmax()]
        assert float(row[2]) == pytest.approx(best.max(), abs=1e-5)
        assert row[3] == ""
    assert rows[-1][1:] == ["", "", "No such file or directory"]


def test_a_name_of_any_bytes_can_be_told(simple, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(name, "wb") as file:
        Image.fromarray(PIXELS).save(file, "png")
    for how in ("--json", "--csv", "-q"):
        outcome = run_on(simple, os.fsdecode(name), how)
        assert (outcome.returncode, outcome.stderr) == (0, "")
        assert "caf" in outcome.stdout


def test_the_table_in_a_pipe_has_a_line_an_image(poolzoo, simple, many):
    lines = poolzoo("predict", simple, many / "000.png", many / "gone.png").out.splitlines()
    cells = [line.split("\t") for line in lines]
    assert cells[0] == ["image", "label", "score", "then"]
    assert cells[1][1:3] == [LABELS[chances(PIXELS).argmax()], f"{chances(PIXELS).max():.4f}"]
    assert cells[2] == [str(many / "gone.png"), "", "", "cannot be read: No such file or directory"]


def test_csv_and_json_exclude_each_other(poolzoo, simple, many):
    assert poolzoo("predict", simple, many, "--csv", "--json").code == 2


def test_a_damaged_bundle_prints_nothing(poolzoo, simple, many):
    (simple / "config.json").write_text("{ }")
    outcome = poolzoo("predict", simple, many, "--csv")
    assert (outcome.code, outcome.out) == (1, "")
    assert "config.json was altered" in outcome.err


# --- While it runs -------------------------------------------------------------------------------------------------


def test_json_comes_row_by_row_and_always_ends_well(poolzoo, simple, many, monkeypatch, capsys):
    real, told = ort_session.OnnxModel.run, []

    def run(model, pixels):
        told.append(capsys.readouterr().out)
        if len(told) == 3:
            raise KeyboardInterrupt
        return real(model, pixels)

    monkeypatch.setattr(ort_session.OnnxModel, "run", run)
    outcome = poolzoo("predict", simple, many, "--json")
    assert outcome.code == 130
    assert [text.count('"file"') for text in told] == [0, 64, 64]
    assert len(json.loads("".join(told) + outcome.out)) == 128


@pytest.mark.parametrize("how", ["--csv", "-q"])
def test_rows_are_told_as_they_become_known(poolzoo, simple, many, monkeypatch, capsys, how):
    real, told = ort_session.OnnxModel.run, []

    def run(model, pixels):
        told.append(len(capsys.readouterr().out.splitlines()))
        return real(model, pixels)

    monkeypatch.setattr(ort_session.OnnxModel, "run", run)
    assert poolzoo("predict", simple, many, how).code == 0
    assert told == [1, 64, 64]  # the header, then a batch each


def test_at_most_one_batch_is_read_ahead(poolzoo, simple, many, monkeypatch):
    real_run, real_read = ort_session.OnnxModel.run, images.read_with_size
    read, told, ahead, next_batch = [], [], [], threading.Event()

    def count(path, *args):
        read.append(path)
        ahead.append(len(read) - len(told))
        if len(read) > predicting.BATCH:
            next_batch.set()
        return real_read(path, *args)

    def run(model, pixels):
        assert next_batch.wait(30), "the graph runs alone"
        found = real_run(model, pixels)
        told.extend(pixels)
        return found

    monkeypatch.setattr(images, "read_with_size", count)
    monkeypatch.setattr(ort_session.OnnxModel, "run", run)
    assert poolzoo("predict", simple, many, "--json").code == 0
    assert predicting.BATCH < max(ahead) <= 2 * predicting.BATCH
    assert len(read) == 150


def test_an_interrupt_leaves_what_was_told_and_no_thread(poolzoo, simple, many, monkeypatch):
    real, runs = ort_session.OnnxModel.run, []

    def run(model, pixels):
        runs.append(len(pixels))
        if len(runs) == 2:
            raise KeyboardInterrupt
        return real(model, pixels)

    monkeypatch.setattr(ort_session.OnnxModel, "run", run)
    before = set(threading.enumerate())
    outcome = poolzoo("predict", simple, many, "--csv")
    assert (outcome.code, outcome.err) == (130, "error: interrupted\n")
    assert len(outcome.out.splitlines()) == 65
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_one_line(simple, many, tmp_path, number, code):
    (tmp_path / "names").write_text("".join(f"{many}/{index % 150:03}.png\n" for index in range(100_000)))
    command = [sys.executable, "-m", "poolzoo", "predict", str(simple), "-", "--csv"]
    with (
        (tmp_path / "names").open("rb") as names,
        subprocess.Popen(command, stdin=names, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout.readline() == "file,label,score,error\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err in ("error: interrupted\n", "error: terminated\n")


def test_who_has_seen_enough_may_close_the_pipe(simple, many):
    line = f"{sys.executable} -m poolzoo predict {simple} {many} --csv | head -2"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1].startswith(str(many / "000.png"))


def test_the_bar_goes_to_the_terminal_rows_to_the_file(simple, many, tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "poolzoo", "predict", str(simple), str(many), "--csv"]
    with (tmp_path / "out.csv").open("wb") as out, subprocess.Popen(command, stdout=out, stderr=theirs) as process:
        os.close(theirs)
        shown = bytearray()
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # what Linux says at the end
            pass
        os.close(ours)
    assert process.returncode == 0
    assert b"150/150" in shown
    assert b".png" not in shown
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 151
