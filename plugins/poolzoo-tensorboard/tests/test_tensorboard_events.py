"""Real runs with the plugin, their event files read back by TensorBoard itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import poolzoo
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import poolzoo_tensorboard

MODULE = Path(poolzoo_tensorboard.__file__)
EPOCH_TAGS = {"loss", "train_accuracy", "val_accuracy", "seconds", "images_per_s"}
SETTINGS = ["--data", "digits", "--backbone", "nano/plain", "--epochs", "2", "--limit", "200", "--threads", "1"]


def command(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with no plugin but the one that is named."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POOLZOO_")}
    return subprocess.run(
        [sys.executable, "-m", "poolzoo", *map(str, arguments)],
        env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def read(folder: Path) -> dict[str, dict[int, float]]:
    """Value by step by tag, as TensorBoard shows them; a step that is there twice is an error."""
    log = EventAccumulator(str(folder)).Reload()
    found = {}
    for tag in log.Tags()["scalars"]:
        events = log.Scalars(tag)
        found[tag] = {event.step: event.value for event in events}
        assert len(found[tag]) == len(events), (tag, events)
    return found


def expected(lines: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """What lines of `metrics.jsonl` look like in a log, which keeps float32."""
    tags = {tag for line in lines for tag in line} - {"epoch"}
    return {tag: {line["epoch"]: float(np.float32(line[tag])) for line in lines} for tag in tags}


def line(epoch: int, loss: float) -> dict[str, Any]:
    figures = {"train_accuracy": 0.5, "val_accuracy": 0.25, "seconds": 1.5, "images_per_s": 10.0}
    return {"epoch": epoch, "loss": loss, **figures}


REPORT = {"test": {"accuracy": 0.75, "n": 10}, "val": {"accuracy": 0.5, "n": 5, "epoch": 2}}


# --- Through poolzoo -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs on digits, made with the plugin. Read it, do not change it."""
    path = tmp_path_factory.mktemp("runs") / "mine"
    result = command("finetune", *SETTINGS, "--out", path, "--plugin", MODULE, "--json", "--strict")
    assert result.returncode == 0, result.stderr
    assert len([json.loads(text) for text in result.stdout.splitlines()]) == 3  # two epochs and the report, no more
    assert "poolzoo_" not in result.stderr  # no hook failed
    return path


def test_the_scalars_are_the_lines_of_metrics_jsonl(run):
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[0].keys() >= {*EPOCH_TAGS, "val_loss"}
    found = read(run.parent / "tensorboard" / "mine")
    assert {tag: values for tag, values in found.items() if "/" not in tag} == expected(lines)
    assert [one["epoch"] for one in lines] == [1, 2]


def test_final_scalars_match_metrics_json_at_the_best_epoch(run):
    figures = json.loads((run / "metrics.json").read_text())
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda one: one["val_accuracy"])["epoch"]
    found = {tag: values for tag, values in read(run.parent / "tensorboard" / "mine").items() if "/" in tag}
    names = ("accuracy", "precision", "recall", "f1")
    assert found == {f"{p}/{n}": {best: float(np.float32(figures[p][n]))} for p in ("val", "test") for n in names}


def test_the_run_is_whole_and_can_be_evaluated(run):
    result = command("evaluate", run, "--json")
    assert result.returncode == 0, result.stderr
    figures = json.loads((run / "metrics.json").read_text())["test"]
    # Of all test images, where --limit left 200 for the run's own figures.
    assert json.loads(result.stdout.splitlines()[-1])["accuracy"] == pytest.approx(figures["accuracy"], abs=0.2)
    assert not [path for path in run.rglob("*") if "tfevents" in path.name]


INTERRUPT = """
from poolzoo import hookimpl

@hookimpl
def poolzoo_epoch_finished(epoch):
    if epoch == 1:
        raise KeyboardInterrupt
"""


def test_a_resumed_run_has_the_curves_of_metrics_jsonl(tmp_path):
    interrupt = tmp_path / "interrupt.py"  # a name that sorts after `__init__`, so that its hook is called last
    interrupt.write_text(INTERRUPT)
    run = tmp_path / "run"
    result = command("finetune", *SETTINGS, "--out", run, "--plugin", MODULE, "--plugin", interrupt)
    assert result.returncode == 130, result.stderr
    assert set(read(tmp_path / "tensorboard" / "run")["loss"]) == {1}
    result = command("finetune", "--resume", run)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    found = read(tmp_path / "tensorboard" / "run")
    assert {tag: values for tag, values in found.items() if "/" not in tag} == expected(lines)
    assert [one["epoch"] for one in lines] == [1, 2]
    assert command("evaluate", run).returncode == 0


def test_a_run_finishes_if_its_log_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ("finetune", *SETTINGS, "--out", tmp_path / "run", "--plugin", MODULE)
    result = command(*arguments, POOLZOO_TENSORBOARD_DIR=str(tmp_path / "file"))
    assert result.returncode == 0, result.stderr
    assert "failed at poolzoo_epoch_finished" in result.stderr
    assert (tmp_path / "run" / "manifest.json").is_file()


# --- The hooks alone -------------------------------------------------------------------------------------------------


def emit_epochs(path: Path, epochs: list[dict[str, Any]], *, finished: bool = True) -> None:
    """What poolzoo says of a run, or of a part of one that was interrupted."""
    run = {"path": str(path)}
    poolzoo_tensorboard.poolzoo_run_started(run)
    for metrics in epochs:
        poolzoo_tensorboard.poolzoo_epoch_finished(run, metrics["epoch"], metrics)
    if finished:
        poolzoo_tensorboard.poolzoo_run_finished(run, REPORT)


def test_an_interrupted_run_keeps_its_epochs_and_resumes(tmp_path):
    path, folder = tmp_path / "run", tmp_path / "tensorboard" / "run"
    emit_epochs(path, [line(1, 3.0), line(2, 2.0), line(3, 1.0)], finished=False)
    assert read(folder) == expected([line(1, 3.0), line(2, 2.0), line(3, 1.0)])
    emit_epochs(path, [line(3, 0.9), line(4, 0.8)])  # epoch 3 was emitted and is trained again
    found = read(folder)
    assert {tag: found[tag] for tag in EPOCH_TAGS} == expected([line(1, 3.0), line(2, 2.0), line(3, 0.9), line(4, 0.8)])
    assert found["test/accuracy"] == {2: 0.75}


def test_a_run_interrupted_after_its_last_epoch_gets_final_scalars(tmp_path):
    path = tmp_path / "run"
    emit_epochs(path, [line(1, 3.0), line(2, 2.0)], finished=False)
    emit_epochs(path, [])
    found = read(tmp_path / "tensorboard" / "run")
    assert {tag: found[tag] for tag in EPOCH_TAGS} == expected([line(1, 3.0), line(2, 2.0)])
    assert found["val/accuracy"] == {2: 0.5}


def test_a_new_run_replaces_curves_of_the_same_name(tmp_path):
    emit_epochs(tmp_path / "run", [line(1, 3.0), line(2, 2.0), line(3, 1.0)])
    emit_epochs(tmp_path / "run", [line(1, 9.0)], finished=False)
    found = read(tmp_path / "tensorboard" / "run")
    assert found["loss"] == {1: 9.0}
    assert not found.get("test/accuracy")


def test_two_runs_at_once_do_not_mix(tmp_path):
    first, second = ({"path": str(tmp_path / name)} for name in ("a", "b"))
    for run in (first, second):
        poolzoo_tensorboard.poolzoo_run_started(run)
    for run, loss in ((first, 1.0), (second, 2.0)):
        poolzoo_tensorboard.poolzoo_epoch_finished(run, 1, line(1, loss))
    for run in (first, second):
        poolzoo_tensorboard.poolzoo_run_finished(run, REPORT)
    assert read(tmp_path / "tensorboard" / "a")["loss"] == {1: 1.0}
    assert read(tmp_path / "tensorboard" / "b")["loss"] == {1: 2.0}


def test_a_run_that_never_finished_an_epoch_leaves_nothing(tmp_path):
    emit_epochs(tmp_path / "run", [], finished=False)
    assert list(tmp_path.iterdir()) == []


def test_the_variable_names_the_directory_of_all_logs(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLZOO_TENSORBOARD_DIR", str(tmp_path / "logs"))
    emit_epochs(tmp_path / "run", [line(1, 3.0)])
    assert read(tmp_path / "logs" / "run")["loss"] == {1: 3.0}
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("inside", [True, False])
def test_a_log_inside_the_run_directory_is_refused(tmp_path, monkeypatch, inside):
    run = tmp_path / ("run" if inside else "tensorboard")
    if inside:
        monkeypatch.setenv("POOLZOO_TENSORBOARD_DIR", str(run / "logs"))
    with pytest.raises(ValueError, match="lies in the run directory; set POOLZOO_TENSORBOARD_DIR"):
        poolzoo_tensorboard.poolzoo_run_started({"path": str(run)})
    poolzoo_tensorboard.poolzoo_epoch_finished({"path": str(run)}, 1, line(1, 3.0))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed(tmp_path, capfd):
    emit_epochs(tmp_path / "run", [line(1, 3.0)])
    assert capfd.readouterr().out == ""


def test_missing_tensorboard_is_reported_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it raises ImportError
    catalog = poolzoo.load_plugins(MODULE, installed=False)
    run = {"path": str(tmp_path / "run")}
    catalog.emit("poolzoo_run_started", run=run)
    catalog.emit("poolzoo_epoch_finished", run=run, epoch=1, metrics=line(1, 3.0))
    catalog.emit("poolzoo_run_finished", run=run, metrics=REPORT)
    poolzoo.load_plugins()
    assert [problem.stage for problem in catalog.problems] == ["poolzoo_run_started"]


def test_loading_the_plugin_imports_neither_torch_nor_tensorboard():
    code = (
        f"import sys, poolzoo; catalog = poolzoo.load_plugins({str(MODULE)!r}, installed=False);"
        "print(catalog.problems, [name for name in ('torch', 'tensorboard', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] []"
