"""Learning curves: what is drawn is what was measured, the file is the same every time, and nothing is said."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from poolzoo.report import canvas, curves


def lines(epochs: int) -> list[dict]:
    return [
        {
            "epoch": epoch,
            "loss": 2 / epoch,
            "val_loss": 2 / epoch + 0.1,
            "train_accuracy": 1 - 0.8 / epoch,
            "val_accuracy": 0.9 - 0.6 / epoch - 0.001 * max(0, epoch - 30),
            "lr": 0.1,
            "seconds": 1.5,
        }
        for epoch in range(1, epochs + 1)
    ]


def draw_lines(given: list[dict], path: Path, title: str) -> None:
    """Draws the objects of a `metrics.jsonl`."""
    curves.draw([curves.CurvePoint.from_json(line) for line in given], path, title)


@pytest.fixture
def figure(monkeypatch, tmp_path):
    """Draws some lines; gives matplotlib's own account of the picture."""
    figures = []
    png = canvas.png
    monkeypatch.setattr(canvas, "png", lambda drawn: (figures.append(drawn), png(drawn))[1])

    def draw(some_lines, title="a run"):
        draw_lines(some_lines, tmp_path / "curves.png", title)
        return figures[-1]

    return draw


def drawn(axes) -> dict[str, list[tuple[float, float]]]:
    handles, labels = axes.get_legend_handles_labels()
    return {name: list(zip(*line.get_data(), strict=True)) for name, line in zip(labels, handles, strict=True)}


def words(figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.mark.parametrize("epochs", [0, 1, 2, 5, 60])
def test_the_picture_has_one_size_and_is_reproducible(tmp_path, epochs):
    for name in ("a.png", "b.png"):
        draw_lines(lines(epochs), tmp_path / name, "nano/plain with gem on digits")
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert (image.format, image.size, set(image.info)) == ("PNG", (1000, 450), {"dpi"})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    draw_lines(lines(epochs + 1), tmp_path / "b.png", "nano/plain with gem on digits")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_the_curves_are_the_numbers_of_the_lines(figure):
    given = lines(40)
    left, right = figure(given).axes
    for axes, name, key in (
        (left, "training", "loss"),
        (left, "validation", "val_loss"),
        (right, "training", "train_accuracy"),
        (right, "validation", "val_accuracy"),
    ):
        assert drawn(axes)[name] == [(line["epoch"], line[key]) for line in given]
        low, high = axes.get_ylim()
        assert all(low <= line[key] <= high for line in given)
    assert left.get_ylim()[0] == 0


def test_the_best_epoch_is_the_first_of_the_best(figure):
    given = lines(10)
    given[3]["val_accuracy"] = given[7]["val_accuracy"] = 0.98764
    picture = figure(given)
    assert words(picture) == "best epoch 4\nvalidation 0.9876"
    assert ([4], [0.98764]) in [tuple(map(list, line.get_data())) for line in picture.axes[1].lines]


def test_epochs_are_whole_numbers(figure):
    for epochs in (1, 2, 5, 60):
        for axes in figure(lines(epochs)).axes:
            low, high = axes.get_xlim()
            shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
            assert shown
            assert all(tick == round(tick) for tick in shown), (epochs, shown)


def test_optional_keys_may_be_missing(figure):
    bare = [{key: line[key] for key in ("epoch", "loss", "train_accuracy", "val_accuracy")} for line in lines(5)]
    left, right = figure(bare).axes
    assert list(drawn(left)) == ["training"]
    assert list(drawn(right)) == ["training", "validation"]


def test_what_is_no_number_leaves_a_gap(figure):
    given = lines(6)
    given[1]["loss"], given[2]["val_loss"], given[3]["val_loss"] = math.nan, math.inf, None
    given[0]["val_accuracy"] = given[5]["val_accuracy"] = math.nan
    picture = figure(given)
    left, right = map(drawn, picture.axes)
    assert [math.isnan(value) for _, value in left["training"]] == [False, True, False, False, False, False]
    assert [math.isnan(value) for _, value in left["validation"]] == [False, False, True, True, False, False]
    assert math.isnan(right["validation"][5][1])
    assert words(picture).startswith("best epoch 5\n")
    assert max(picture.axes[0].get_ylim()) < 3


def test_a_run_without_any_number_says_so(figure):
    nothing = [{"epoch": 1, "loss": math.nan, "train_accuracy": math.nan, "val_accuracy": None}]
    assert words(figure(nothing)) == "no finite values\nno finite values"


def test_a_title_is_shown_as_it_is_on_one_line(figure):
    (title,) = figure(lines(2), "folder:$\\frac$ 照片\nwith gem").texts
    assert title.get_text() == "folder:$\\frac$ 照片 with gem"


def test_a_long_title_is_cut_to_fit(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = figure(lines(2), "timm/resnet18 with gem on folder:" + "/some_folder" * 10)
    (title,) = picture.texts
    assert title.get_text().endswith("…")
    box = title.get_window_extent(FigureCanvasAgg(picture).get_renderer())
    assert 0 < box.x0 < box.x1 < 1000


def test_nothing_of_the_callers_matplotlib_changes(tmp_path, caplog):
    import matplotlib

    draw_lines(lines(2), tmp_path / "before.png", "run")
    log = logging.getLogger("matplotlib")
    log.setLevel(logging.INFO)
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 30.0, "axes.facecolor": "red"}):
        draw_lines(lines(2), tmp_path / "after.png", "run")
        assert matplotlib.rcParams["font.size"] == 30
    assert log.level == logging.INFO
    log.setLevel(logging.NOTSET)
    assert (tmp_path / "before.png").read_bytes() == (tmp_path / "after.png").read_bytes()
    assert "matplotlib.pyplot" not in sys.modules


CODE = (
    "import io, sys\n"
    "from contextlib import redirect_stderr\n"
    "from pathlib import Path\n"
    "from poolzoo.report import curves\n"
    "assert not [name for name in ('matplotlib', 'numpy', 'torch') if name in sys.modules]\n"
    "line = {'epoch': 1, 'loss': 1.0, 'train_accuracy': 0.5, 'val_accuracy': 0.4}\n"
    "notebook = io.StringIO()\n"  # where sys.stderr is not the stderr of the process
    "try:\n"
    "    with redirect_stderr(notebook):\n"
    "        curves.draw([curves.CurvePoint.from_json(line)], Path(sys.argv[1]), 'run')\n"
    "finally:\n"
    "    print(notebook.getvalue() + 'end', file=sys.stderr)\n"
)


def in_a_new_process(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Draws where matplotlib has no font cache yet, and where the tool that lists fonts complains."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "fc-list").write_text("#!/bin/sh\ntouch $0.called\necho 'Fontconfig error: no cache' >&2\necho --format\n")
    (tools / "fc-list").chmod(0o755)
    unset = ("MPLCONFIGDIR", "MPLBACKEND", "MATPLOTLIBRC", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    environment = {**kept, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **environment}
    command = [sys.executable, "-c", CODE, str(tmp_path / "new.png")]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="matplotlib looks elsewhere for a home and for fonts")
@pytest.mark.parametrize(
    "home", ["unusable", pytest.param("new", marks=pytest.mark.slow), pytest.param("odd", marks=pytest.mark.slow)]
)
def test_the_first_picture_of_a_machine_is_drawn_in_silence(tmp_path, home):
    place = tmp_path / "home"
    if home == "unusable":  # nothing can be made in it, even by root
        place.write_text("no directory")
    else:
        place.mkdir()
    if home == "odd":
        (place / ".config" / "matplotlib").mkdir(parents=True)
        (place / ".config" / "matplotlib" / "matplotlibrc").write_text("font.size: 30\nno such line\nnone.such: 1\n")
    result = in_a_new_process(tmp_path, HOME=str(place))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "end\n")
    assert (tmp_path / "tools" / "fc-list.called").is_file()
    bare = {"epoch": 1, "loss": 1.0, "train_accuracy": 0.5, "val_accuracy": 0.4}
    draw_lines([bare], tmp_path / "here.png", "run")
    assert (tmp_path / "new.png").read_bytes() == (tmp_path / "here.png").read_bytes()


def test_a_matplotlib_that_cannot_be_loaded_is_told(tmp_path):
    result = in_a_new_process(tmp_path, MPLBACKEND="nonsense")
    assert result.returncode == 1
    assert "EnvironmentProblem: matplotlib cannot be loaded: Key backend: 'nonsense'" in result.stderr
