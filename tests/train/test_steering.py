"""How a run is steered: patience, a time budget, a teacher, unequal classes; all of them exact after interruptions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.interruptions import stopped_in

from poolzoo.artifacts import manifest
from poolzoo.artifacts.run import load_run
from poolzoo.common.errors import UsageError
from poolzoo.train import checkpoint
from poolzoo.train.build import build_engine
from poolzoo.train.prepare import prepare
from poolzoo.train.settings import Settings
from poolzoo.train.step_plan import StepPlan
from poolzoo.train.training_module import TrainingModule

pytestmark = pytest.mark.usefixtures("_no_pictures")

BASE = ("finetune", "--data", "digits", "--backbone", "nano/plain", "--threads", "1", "-q", "--no-check-export")
QUICK = (*BASE, "--limit", 160)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A finished run of another network at another size."""
    from poolzoo.train.run import finetune

    place = tmp_path_factory.mktemp("teacher") / "run"
    finetune(
        Settings(data="digits", backbone="nano/plain", pool="max", image_size=24, epochs=1, limit=160, threads=1), place
    )
    return place


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def settings(**rest) -> Settings:
    given = {"data": "digits", "backbone": "nano/plain", "epochs": 2, "limit": 160, "threads": 1, **rest}
    return Settings(**given)


def engine_of(chosen: Settings):
    return build_engine([prepare(chosen)], checkpoint.Checkpoint(Path("nowhere"), checkpoint.RunIdentity({}, "")))


def cut_and_resumed(poolzoo, monkeypatch, arguments: tuple, path: Path, every: int = 17) -> int:
    """Interrupts a run after every so many steps and resumes it to its end; gives the number of interruptions."""
    real, count, stops = TrainingModule.step, [0], 0

    def counted(self, step, number):
        real(self, step, number)
        count[0] += 1
        if count[0] % every == 0:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(TrainingModule, "step", counted)
    try:
        outcome = poolzoo(*arguments, "--out", path)
        while outcome.code == 130 and (path / checkpoint.FILE).is_file():
            stops += 1
            outcome = poolzoo("finetune", "--resume", path, "-q")
    finally:
        signal.signal(signal.SIGINT, before)
        monkeypatch.setattr(TrainingModule, "step", real)
    assert outcome.code == 0, outcome.err
    return stops


# --- The end of a run ------------------------------------------------------------------------------------------------


def test_patience_ends_a_run_also_across_interruptions(poolzoo, tmp_path, monkeypatch):
    arguments = (*QUICK, "--batch-size", 16, "--epochs", 20, "--patience", 1, "--lr", "0.02")
    assert poolzoo(*arguments, "--out", tmp_path / "whole").code == 0
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    scores = [line["val_accuracy"] for line in lines]
    best = int(np.argmax(scores)) + 1
    assert len(scores) == best + 1 < 20
    assert metrics(tmp_path / "whole")["ending"]["by"] == "patience"
    assert metrics(tmp_path / "whole")["val"]["epoch"] == best
    assert cut_and_resumed(poolzoo, monkeypatch, arguments, tmp_path / "cut", every=15) >= 1
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert metrics(tmp_path / "cut")["ending"] == metrics(tmp_path / "whole")["ending"]


@pytest.mark.slow
def test_each_head_has_its_own_patience(tmp_path):
    from poolzoo.train.heads import finetune_heads
    from poolzoo.train.run import finetune

    chosen = settings(freeze="backbone", epochs=12, patience=1, lr=0.05)
    together = finetune_heads(chosen, ["avg", "gem"], tmp_path / "heads")
    for pool, report in together.items():
        alone = finetune(Settings(**{**vars(chosen), "pool": pool}), tmp_path / pool)
        assert alone is not None
        assert report.ending == alone.ending
        assert weights(report.path) == weights(alone.path)


def test_a_time_budget_is_repeated_without_a_clock(poolzoo, tmp_path, monkeypatch):
    """On a clock on which a step takes 20 ms, and 40 ms from the hundredth on."""
    now, count, real = [0.0], [0], TrainingModule.step

    def timed(self, step, number):
        real(self, step, number)
        count[0] += 1
        now[0] += 0.02 if count[0] < 100 else 0.04

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(TrainingModule, "step", timed)
    with stopped_in(2):
        assert poolzoo(*QUICK, "--time-budget", "4s", "--out", tmp_path / "run").code == 130
    now[0] += 1000  # nobody trains between an interruption and its resumption
    assert poolzoo("finetune", "--resume", tmp_path / "run", "-q").code == 0
    toml = tomllib.loads((tmp_path / "run/run.toml").read_text())
    plan = StepPlan.parse(toml["steps"])
    ending = metrics(tmp_path / "run")["ending"]
    assert ending == {"epochs": ending["epochs"], "steps": plan.total, "by": "time budget"}
    probed = count[0] - plan.total
    assert 4 - 0.1 <= 0.02 * 99 + 0.04 * (count[0] - 99) <= 4
    assert probed <= 0.05 * 4 / 0.02 + 4
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["lr"] < 0.05 * toml["lr"]
    monkeypatch.undo()
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    again = ("finetune", "--config", tmp_path / "run/run.toml", "--out", tmp_path / "again", "-q", "--no-check-export")
    assert poolzoo(*again).code == 0
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    assert "time_budget" not in tomllib.loads((tmp_path / "again/run.toml").read_text())


def test_measuring_the_first_steps_changes_nothing():
    chosen = settings(ema=0.9, mixup=0.2)
    plain = engine_of(chosen)
    timed = engine_of(Settings(**{**vars(chosen), "epochs": None, "time_budget": "1s"}))
    assert timed.clock is not None
    timed.clock.start()
    plan = timed.clock.plan(timed.modules, timed.loader, val_images=len(timed.val_labels))
    assert plan.total >= 1
    for engine in (plain, timed):
        (module,) = engine.modules.values()
        module.follow(StepPlan.of(40))
        module.start_epoch(1)
        for number, batch in zip(range(4), engine.loader.epoch(1), strict=False):
            module.step(batch, number)
    (one,), (other,) = plain.modules.values(), timed.modules.values()
    for name, value in one.module.state_dict().items():
        assert torch.equal(value, other.module.state_dict()[name]), name
    for name, value in one.eval_module.state_dict().items():
        assert torch.equal(value, other.eval_module.state_dict()[name]), name


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"time_budget": "5x", "epochs": None}, "no duration"),
        ({"time_budget": "0s", "epochs": None}, "no duration"),
        ({"time_budget": "5m"}, "exclude each other"),
        ({"patience": 0}, "at least 1"),
        ({"loss": "focus"}, "neither cross-entropy, focal"),
        ({"loss": "focal:-1"}, "neither cross-entropy, focal"),
        ({"loss": "cross-entropy:1"}, "neither cross-entropy, focal"),
        ({"sampler": "unequal"}, "neither all nor balanced"),
        ({"sampler": "balanced", "task": "multilabel"}, "one label each"),
        ({"distill_weight": 0.2}, "needs a teacher"),
        ({"distill_from": "x", "distill_weight": 1.5}, "between 0 and 1"),
        ({"distill_from": "x", "distill_temperature": 0.0}, "between 0.01"),
        ({"steps": "ten"}, "no plan"),
    ],
)
def test_bad_values_are_refused(given, part):
    with pytest.raises(UsageError, match=part):
        settings(**given)


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        (("--class-weights", "nowhere.json"), "neither balanced nor a file"),
        (("--distill-from", "nowhere"), "neither a run directory nor a backbone"),
        (("--distill-from", "nano/plain"), "no classifier of its own"),
    ],
)
def test_what_is_not_there_is_one_line(poolzoo, tmp_path, extra, part):
    outcome = poolzoo(*QUICK, *extra, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert part in outcome.err
    assert len(outcome.err.strip().splitlines()) == 2
    assert not (tmp_path / "run").exists()


def test_weights_that_are_no_json_say_what_they_hold(poolzoo, tmp_path):
    (tmp_path / "weights.json").write_text('{"0": 1,')
    outcome = poolzoo(*QUICK, "--class-weights", tmp_path / "weights.json", "--dry-run")
    assert outcome.code == 1
    assert 'hint: it holds an object such as {"cat": 1' in outcome.err


# --- Unequal classes -------------------------------------------------------------------------------------------------


def test_cached_features_obey_the_sampler():
    chosen = settings(freeze="backbone", sampler="balanced", limit=200, batch_size=20)
    prepared = prepare(chosen)
    data = prepared.data
    rare = np.flatnonzero(data.labels == 3)[1:]
    kept = np.setdiff1d(data.train_indices, rare)
    unequal = replace(prepared, data=replace(data, train_indices=kept))
    engine = build_engine([unequal], checkpoint.Checkpoint(Path("nowhere"), checkpoint.RunIdentity({}, "")))
    found = torch.bincount(torch.cat([batch.labels for batch in engine.loader.epoch(1)]), minlength=10)
    assert found.min() > 0
    assert found.max() - found.min() <= 1 + len(kept) % 20


def test_no_step_with_a_teacher_waits_for_the_device(teacher):
    chosen = settings(
        loss="focal", class_weights="balanced", mixup=0.2, grad_accum=2, distill_from=str(teacher), sampler="balanced"
    )
    engine = engine_of(chosen)
    (module,) = engine.modules.values()
    module.start_epoch(1)
    batches = engine.loader.epoch(1)
    module.step(next(batches), 0)

    class Guard(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")
            assert not any(word in str(function) for word in waits), function
            return function(*args, **(kwargs or {}))

    with Guard():
        module.step(next(batches), 1)
        with pytest.raises(AssertionError):
            module.training_means()


# --- A teacher -------------------------------------------------------------------------------------------------------


def test_a_teacher_sees_its_own_size_and_statistics(teacher):
    prepared = prepare(settings(distill_from=str(teacher)))
    assert prepared.teacher is not None
    images = torch.from_numpy(prepared.data.images[:20])
    found = load_run(teacher)
    with torch.no_grad():
        expected = found.network(found.preprocess(images))
    torch.testing.assert_close(prepared.teacher.logits(images), expected)
    assert not any(parameter.requires_grad for parameter in prepared.teacher.network.parameters())


def test_the_classes_of_a_teacher_are_matched_by_name(teacher, tmp_path):
    turned = shutil.copytree(teacher, tmp_path / "turned")
    config = json.loads((turned / "config.json").read_text())
    names = config["label_names"]
    config["label_names"] = names[::-1]
    (turned / "config.json").write_text(json.dumps(config))
    manifest.write_manifest(turned, "run")
    images = torch.from_numpy(prepare(settings()).data.images[:5])
    one, other = (prepare(settings(distill_from=str(path))).teacher for path in (teacher, turned))
    assert torch.equal(one.logits(images).flip(1), other.logits(images))
    config["label_names"] = [*names[:-1], "x"]
    (turned / "config.json").write_text(json.dumps(config))
    manifest.write_manifest(turned, "run")
    with pytest.raises(UsageError, match="only the data has '9'; only it has 'x'"):
        prepare(settings(distill_from=str(turned)))


def test_a_teacher_of_another_task_is_refused(teacher, tmp_path):
    other = shutil.copytree(teacher, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "task": "multilabel", "thresholds": [0.5] * 10}))
    manifest.write_manifest(other, "run")
    with pytest.raises(UsageError, match="was trained for multilabel"):
        prepare(settings(distill_from=str(other)))


def test_logits_of_unchanged_images_are_stored(teacher):
    engine = engine_of(settings(distill_from=str(teacher), shift=0, flip="off"))
    prepared = prepare(settings(distill_from=str(teacher)))
    assert engine.loader.teacher_logits is not None
    batch, images = next(engine.loader.epoch(1)), next(engine.loader.batches.epoch(1)).images
    torch.testing.assert_close(batch.teacher_logits, prepared.teacher.logits(images))
    assert engine_of(settings(distill_from=str(teacher))).loader.teacher_logits is None


def test_without_a_cache_a_teacher_runs_in_every_epoch(teacher, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "file" / "cache"))
    assert engine_of(settings(distill_from=str(teacher), shift=0, flip="off")).loader.teacher_logits is None
    assert "cannot be written to" in capsys.readouterr().err


def test_without_a_cache_features_and_logits_are_the_same(teacher, tmp_path, monkeypatch):
    chosen = settings(distill_from=str(teacher), freeze="backbone", views=1, shift=1)

    def first_batch() -> list[torch.Tensor]:
        engine = engine_of(chosen)
        batch = next(engine.loader.epoch(1))
        return [batch.inputs[one.input_key] for one in engine.modules.values()] + [batch.teacher_logits]

    stored = first_batch()
    (tmp_path / "file").touch()
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "file" / "cache"))
    assert all(map(torch.equal, first_batch(), stored))


def test_logits_are_stored_for_every_view_of_cached_features(teacher):
    chosen = settings(distill_from=str(teacher), freeze="backbone", views=1, shift=1)
    engine, prepared = engine_of(chosen), prepare(chosen)
    count = len(prepared.data.images)
    own = prepared.teacher.logits(torch.from_numpy(prepared.data.images))
    stored = engine.loader.teacher_logits
    first, second = (stored.take(np.full(count, view), np.arange(count), torch.device("cpu")) for view in (0, 1))
    torch.testing.assert_close(first, own)
    assert not torch.equal(second, own)
    for batch in engine.loader.epoch(1):
        shown = (batch.teacher_logits[:, None] == torch.stack([first, second]).flatten(0, 1)).all(2).any(1)
        assert shown.all()


def test_a_student_resumes_exactly_and_checks_its_teacher(poolzoo, tmp_path, teacher):
    own = shutil.copytree(teacher, tmp_path / "teacher")
    arguments = (*QUICK, "--batch-size", 16, "--epochs", 2, "--distill-from", own, "--mixup", "0.2")
    assert poolzoo(*arguments, "--out", tmp_path / "whole").code == 0
    for name in ("cut", "other"):
        with stopped_in(2):
            assert poolzoo(*arguments, "--out", tmp_path / name).code == 130
    assert poolzoo("finetune", "--resume", tmp_path / "cut", "-q").code == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    config = json.loads((own / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (own / "config.json").write_text(json.dumps(config))
    manifest.write_manifest(own, "run")
    outcome = poolzoo("finetune", "--resume", tmp_path / "other", "-q")
    assert outcome.code == 1
    assert "the teacher changed since the run began" in outcome.err
    said = json.loads((tmp_path / "whole/config.json").read_text())["poolzoo"]["teacher"]
    assert said["name"] == "teacher"
    assert "Distilled from teacher" in (tmp_path / "whole/README.md").read_text()


# --- The range test --------------------------------------------------------------------------------------------------


def test_a_range_test_writes_its_plot_and_trains_nothing(poolzoo, tmp_path):
    outcome = poolzoo(*BASE, "--limit", 400, "--find-lr", "--json", "--out", tmp_path / "lr")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found == json.loads((tmp_path / "lr/lr.json").read_text())
    assert 1e-4 < found["suggestion"] < 1
    assert found["rates"] == sorted(found["rates"])
    assert (tmp_path / "lr/lr.svg").read_text().startswith("<?xml")
    assert sorted(path.name for path in (tmp_path / "lr").iterdir()) == ["lr.json", "lr.svg"]


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        (("--batch-size", 160), "--find-lr needs 4 batches"),
        (("--lr", "1e3"), "there is no learning rate to suggest"),
        (("--lr", "1e-9"), "does not fall clearly"),
    ],
)
def test_a_range_without_a_rate_is_one_line(poolzoo, tmp_path, extra, part):
    outcome = poolzoo(*QUICK, "--find-lr", *extra, "--out", tmp_path / "lr")
    assert outcome.code in (1, 2)
    assert part in outcome.err
    assert len(outcome.err.strip().splitlines()) == 2


@pytest.mark.parametrize("other", [("--dry-run",), ("--show-batch", "batch.png")])
def test_a_range_test_beside_what_trains_nothing_is_refused(poolzoo, other):
    outcome = poolzoo("finetune", "--data", "digits", "--find-lr", *other)
    assert outcome.code == 2
    assert "--find-lr trains" in outcome.err
