"""`poolzoo report --check`: an honest submission passes, and every kind of change is found for its own reason."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.submissions import edit_arrays, edit_json, run_of, sign_again, tiny_protocol

from poolzoo.artifacts import manifest
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare.board import protocol
from poolzoo.compare.board.checking import CHECKS, check
from poolzoo.compare.board.checks.context import Context
from poolzoo.compare.board.checks.outcome import attempt
from poolzoo.compare.board.rerun import Rerun
from poolzoo.compare.board.submission import Submission
from poolzoo.compare.gather import compare_runs
from poolzoo.plugin import loader

EARLIER = Path(__file__).parents[1] / "data" / "earlier" / "run"
NAMES = (
    *("files", "manifests", "protocol", "plan", "trials", "settings", "network", "length", "data", "labels", "metrics"),
    *("weights", "plugins", "versions", "statistics"),
)


def failures(folder, honest, **more):
    """The reasons of failed checks by their names."""
    report = check([folder], str(honest / "tiny.toml"), **more)
    assert not report.passed
    return {one.name: one.reason for one in report.checks if one.status == "failed"}


def outcome(folder, honest, name):
    """One check alone."""
    context = Context(Submission.of([folder]), protocol.load(honest / "tiny.toml"))
    return attempt(name, lambda: CHECKS[name](context))


# --- What passes ---------------------------------------------------------------------------------------------------


def test_an_honest_submission_passes_and_executes_nothing(poolzoo, honest):
    done = poolzoo("report", "--check", honest / "submission", "--protocol", honest / "tiny.toml", "--json")
    assert done.code == 0, done.out
    assert done.err == ""
    rows = {row["check"]: row for row in done.json["checks"]}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == set(NAMES)
    assert {name for name, row in rows.items() if row["status"] == "skipped"} == {"evaluation", "training"}
    assert "not loaded" in rows["plugins"]["reason"]
    assert not (honest / "executed").exists()


def test_runs_without_their_comparison_can_be_checked(honest):
    runs = sorted(path.parent for path in honest.glob("submission/trials/*/*/manifest.json"))
    report = check(runs, str(honest / "tiny.toml"))
    assert report.passed
    assert {one.name for one in report.checks if one.status == "skipped"} >= {"plan", "statistics"}


def test_a_rerun_needs_the_plugin(poolzoo, honest):
    words = ("report", "--check", honest / "submission", "--protocol", honest / "tiny.toml", "--rerun", "evaluate")
    done = poolzoo(*words)
    assert done.code == 2
    assert "needs the plugin of mine" in done.err
    assert not (honest / "executed").exists()


@pytest.mark.slow
def test_weights_and_a_training_are_run_again(poolzoo, honest):
    words = ("report", "--check", honest / "submission", "--protocol", honest / "tiny.toml", "--rerun", "train")
    done = poolzoo(*words, "--plugin", honest / "mine.py", "--json")
    (honest / "executed").unlink()
    assert done.code == 0, done.out
    rows = {row["check"]: row["reason"] for row in done.json["checks"]}
    assert "exactly their predictions" in rows["evaluation"]
    assert "bitwise the same weights" in rows["training"]


# --- Files ---------------------------------------------------------------------------------------------------------


def link(folder):
    target = run_of(folder, "mine", 0) / "predictions.npz"
    target.unlink()
    target.symlink_to(run_of(folder, "mine", 1) / "predictions.npz")


def executable(folder):
    os.chmod(run_of(folder, "mine", 0) / "README.md", 0o755)


def unknown(folder):
    (run_of(folder, "mine", 0) / "plugin.py").write_text("raise SystemExit")


def pipe(folder):
    os.mkfifo(folder / "trials" / "pipe")


def bomb(folder):
    with zipfile.ZipFile(run_of(folder, "mine", 0) / "samples.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(9):
            archive.writestr(f"{number}.npy", bytes(64 << 20))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (link, "predictions.npz is a link"),
        (executable, "README.md is executable"),
        (unknown, "plugin.py is no file that poolzoo writes"),
        (pipe, "pipe is no plain file"),
        pytest.param(bomb, "samples.npz unpacks to more", marks=pytest.mark.slow),
    ],
)
def test_unsafe_files_stop_all_reading(honest, copied, change, reason):
    change(copied)
    report = check([copied], str(honest / "tiny.toml"))
    found = {one.name: (one.status, one.reason) for one in report.checks}
    assert found["files"][0] == "failed"
    assert reason in found["files"][1]
    assert {status for name, (status, _) in found.items() if name != "files"} == {"skipped"}
    assert not report.passed


def test_an_altered_file_is_found(honest, copied):
    edit_json(run_of(copied, "mine", 0) / "metrics.json", lambda found: found["test"].update(accuracy=0.99))
    assert "metrics.json was altered" in failures(copied, honest)["manifests"]


def test_a_file_that_the_manifest_does_not_list_is_found(honest, copied):
    run = run_of(copied, "mine", 0)
    aside = (run / "predictions.npz").rename(copied.parent / "aside")
    sign_again(run)
    shutil.copy(aside, run / "predictions.npz")
    assert "predictions.npz is not listed" in failures(copied, honest)["manifests"]


# --- Figures -------------------------------------------------------------------------------------------------------


def metrics(folder):
    edit_json(run_of(folder, "mine", 0) / "metrics.json", lambda found: found["test"].update(accuracy=0.99))


def confusion(folder):
    edit_json(run_of(folder, "mine", 0) / "metrics.json", lambda found: found["test"]["confusion"].reverse())


def predictions(folder):
    shutil.copy(run_of(folder, "avg", 0) / "predictions.npz", run_of(folder, "mine", 0))


def labels(folder):
    edit_arrays(run_of(folder, "mine", 0) / "predictions.npz", lambda found: found.update(labels=found["predicted"]))


def class_order(folder):
    edit_json(run_of(folder, "mine", 0) / "config.json", lambda found: found["label_names"].reverse())


def other_pixels(folder):
    edit_arrays(
        run_of(folder, "mine", 0) / "data.npz", lambda found: found.update(test_digests=found["test_digests"][::-1])
    )


def fewer_images(folder):
    edit_arrays(
        run_of(folder, "mine", 0) / "data.npz",
        lambda found: found.update({name: found[name][:-1] for name in ("train_digests", "train_labels")}),
    )


def permuted_classes(folder):
    def change(found):
        text = found["classes"].tobytes().decode().split("\0")
        found["classes"] = np.frombuffer("\0".join(reversed(text)).encode(), np.uint8)

    edit_arrays(run_of(folder, "mine", 0) / "data.npz", change)


def normalization(folder):
    edit_json(
        run_of(folder, "mine", 0) / "config.json", lambda found: found["pretrained_cfg"].update(mean=[0.0, 0.0, 0.0])
    )


def image_size(folder):
    edit_json(run_of(folder, "mine", 0) / "config.json", lambda found: found["poolzoo"].update(image_size=[64, 64]))


def thresholds(folder):
    edit_json(run_of(folder, "mine", 0) / "config.json", lambda found: found.update(thresholds=[0.1] * 10))


def no_class(folder):
    lowest = np.iinfo(np.int64).min
    edit_arrays(
        run_of(folder, "mine", 0) / "predictions.npz",
        lambda found: found.update(predicted=np.full(360, lowest)),
    )


def no_images(folder):
    none = np.zeros(0, np.int32)
    edit_arrays(run_of(folder, "mine", 0) / "predictions.npz", lambda found: found.update(predicted=none, labels=none))


def epochs(folder):
    path = run_of(folder, "mine", 0) / "run.toml"
    path.write_text(path.read_text().replace("epochs = 1\n", "epochs = 9\n"))


def longer(folder):
    path = run_of(folder, "mine", 0) / "metrics.jsonl"
    path.write_text(path.read_text() * 9)


def backbone(folder):
    backbone_of(run_of(folder, "mine", 0))


def backbone_of(run):
    path = run / "model.safetensors"
    state = load_file(path)
    name = next(key for key in state if key.startswith("backbone.") and state[key].ndim == 4)
    save_file({**state, name: state[name] * np.float32(1.01)}, path, metadata={"format": "pt"})


def shape(folder):
    path = run_of(folder, "avg", 0) / "model.safetensors"
    state = load_file(path)
    save_file({**state, "classifier.bias": state["classifier.bias"][:9]}, path, metadata={"format": "pt"})


def not_finite(folder):
    path = run_of(folder, "mine", 0) / "model.safetensors"
    state = load_file(path)
    state["classifier.bias"][0] = np.nan
    save_file(state, path, metadata={"format": "pt"})


def pickle(folder):
    (run_of(folder, "mine", 0) / "model.safetensors").write_bytes(b"\x80\x04K\x01." * 99)


def plugin_of_baseline(folder):
    def change(found):
        found["poolzoo"]["plugins"]["pool"] |= {"tier": "file", "sha256": "0" * 64}

    edit_json(run_of(folder, "avg", 0) / "config.json", change)


def no_plugin_digest(folder):
    edit_json(
        run_of(folder, "mine", 0) / "config.json", lambda found: found["poolzoo"]["plugins"]["pool"].update(sha256=None)
    )


def no_digest(folder):
    edit_json(
        run_of(folder, "mine", 0) / "config.json",
        lambda found: found["poolzoo"]["plugins"]["pool"].update(sha256="<b>trust me</b>"),
    )


def claims_built_in(folder):
    edit_json(
        run_of(folder, "mine", 0) / "config.json",
        lambda found: found["poolzoo"]["plugins"]["pool"].update(tier="built-in"),
    )


def two_plugins(folder):
    edit_json(
        run_of(folder, "mine", 0) / "config.json",
        lambda found: found["poolzoo"]["plugins"]["pool"].update(sha256="0" * 64),
    )


def version(folder):
    edit_json(run_of(folder, "mine", 0) / "env.json", lambda found: found["versions"].update(torch="1.0.0"))


def device(folder):
    edit_json(run_of(folder, "mine", 0) / "env.json", lambda found: found.update(device="cuda:0"))


def unpinned(folder):
    path = run_of(folder, "mine", 0) / "run.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith(("#", "protocol"))]  # no count
    path.write_text("\n".join(lines) + "\n")


def one_seed_twice(folder):
    first, second = (run_of(folder, "mine", seed) for seed in (0, 1))
    shutil.rmtree(second)
    shutil.copytree(first, second)
    (second / "run.toml").write_text((first / "run.toml").read_text().replace("\nseed = 0\n", "\nseed = 1\n"))
    sign_again(second)


def biases(folder):
    """Fitted to the test images, they would raise the accuracy."""
    vector = {"method": "vector", "temperature": 1.0, "scale": [1.0] * 10, "bias": [9.0] + [0.0] * 9}
    edit_json(run_of(folder, "mine", 0) / "config.json", lambda found: found.update(calibration=vector))


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        (metrics, "metrics", "accuracy in metrics.json is not that of predictions.npz (0.99 instead of"),
        (confusion, "metrics", "confusion in metrics.json"),
        (predictions, "metrics", "is not that of predictions.npz"),
        (labels, "labels", "labels in predictions.npz are not those of the test images"),
        (class_order, "labels", "classes in config.json are in another order"),
        (other_pixels, "data", "pixels of test differ"),
        (fewer_images, "data", "train has 1,436 images instead of 1,437"),
        (permuted_classes, "data", "the classes are in another order"),
        (epochs, "settings", "epochs is 9 instead of 1"),
        (normalization, "network", "mean is [0.0, 0.0, 0.0] in config.json"),
        (image_size, "network", "image_size is [64, 64] in config.json instead of [32, 32]"),
        (thresholds, "network", "thresholds is [0.1"),
        (biases, "network", "bias of the calibration is [9.0"),
        (no_class, "metrics", "does not hold a class for each image"),
        (no_images, "metrics", "does not hold a class for each image"),
        (longer, "length", "trained for 9 epochs"),
        (backbone, "weights", "frozen backbone has other weights"),
        (shape, "weights", "of another shape (classifier.bias)"),
        (not_finite, "weights", "classifier.bias in model.safetensors is not finite"),
        (pickle, "weights", "holds no weights"),
        (plugin_of_baseline, "plugins", "the baseline avg comes from a plugin"),
        (no_plugin_digest, "plugins", "does not name the plugin file of mine"),
        (no_digest, "plugins", "does not name the plugin file of mine by its sha256"),
        (claims_built_in, "plugins", "mine is no built-in pooling"),
        (two_plugins, "plugins", "two versions of a plugin"),
        (version, "versions", "torch 1.0.0 is not >=2.9,<3"),
        (device, "versions", "device cuda:0 instead of cpu"),
        (unpinned, "protocol", "names no protocol"),
        (one_seed_twice, "trials", "mine has the same weights from seeds 0 and 1"),
    ],
)
def test_a_change_that_was_signed_again_is_found(honest, copied, change, name, reason):
    change(copied)
    for path in copied.glob("trials/*/*/manifest.json"):
        if manifest.differences(path.parent):
            sign_again(path.parent)
    found = outcome(copied, honest, name)
    assert found.status == "failed"
    assert reason in found.reason


def test_a_missing_seed_is_found(honest, copied):
    shutil.rmtree(run_of(copied, "mine", 1))
    assert outcome(copied, honest, "trials").reason == "1 of 4 trials are missing: mine from seed 1"


def test_an_edited_table_is_found(honest, copied):
    def better(found):
        next(row for row in found["results"] if row["pool"] == "mine")["delta"]["p_adjusted"] = 0.001

    edit_json(copied / "compare.json", better)
    assert list(found := failures(copied, honest)) == ["statistics"]
    assert "delta of mine in compare.json is not that of the predictions" in found["statistics"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda found: found.update(conclusions=["mine wins"]), "conclusions in compare.json is ['mine wins'] instead"),
        (lambda found: found["results"].pop(), "compare.json has other rows than the plan"),
    ],
    ids=["conclusions", "rows"],
)
def test_other_conclusions_or_rows_are_found(honest, copied, change, reason):
    edit_json(copied / "compare.json", change)
    assert reason in outcome(copied, honest, "statistics").reason


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("alpha", 0.2, "alpha is 0.2 instead of 0.05"),
        ("seeds", 9, "seeds is 9 instead of 2"),
        ("unofficial", "torch 1.0", "it is unofficial: torch 1.0"),
        ("pools", "mine,avg", "does not begin with the baseline avg"),
    ],
)
def test_an_edited_plan_is_found(honest, copied, key, value, reason):
    edit_json(copied / "plan.json", lambda found: found.update({key: value}))
    assert reason in outcome(copied, honest, "plan").reason


@pytest.mark.parametrize(
    ("name", "check_name", "change"),
    [
        ("plan.json", "plan", lambda text: "[" * 100_000),
        ("plan.json", "plan", lambda text: text.replace('"settings": {', '"settings": -1, "others": {')),
        ("plan.json", "plan", lambda text: text.replace('"lr": 0.005', f'"lr": {10**400}')),
        ("compare.json", "statistics", lambda text: "[" * 100_000),
        ("compare.json", "statistics", lambda text: text.replace('"low": ', f'"low": {10**400}')),
    ],
    ids=["deep plan", "number for settings", "large number", "deep table", "large figure"],
)
def test_damaged_json_fails_its_check_alone(honest, copied, name, check_name, change):
    before = (copied / name).read_text()
    (copied / name).write_text(change(before))
    assert (copied / name).read_text() != before
    found = outcome(copied, honest, check_name)
    assert found.status == "failed"
    assert "unexpected" not in found.reason


def test_another_protocol_of_the_same_name_is_found(honest, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny_protocol(lr="0.006"))
    report = check([honest / "submission"], str(tmp_path / "tiny.toml"))
    found = {one.name: one.reason for one in report.checks if one.status == "failed"}
    assert "instead of digits-tiny@1:" in found["protocol"]
    assert "lr is 0.005 instead of 0.006" in found["settings"]


# --- Running it again ----------------------------------------------------------------------------------------------


def test_weights_of_another_run_do_not_give_the_predictions(poolzoo, honest, copied):
    first, second = (run_of(copied, "mine", seed) for seed in (0, 1))
    aside = (first / "model.safetensors").rename(copied.parent / "aside")
    shutil.copy(second / "model.safetensors", first)
    shutil.copy(aside, second / "model.safetensors")
    for run in (first, second):
        sign_again(run)
    words = ("report", "--check", copied, "--protocol", honest / "tiny.toml", "--plugin", honest / "mine.py")
    done = poolzoo(*words, "--rerun", "evaluate", "--json")
    (honest / "executed").unlink()
    assert done.code == 1
    rows = {row["check"]: row for row in done.json["checks"]}
    assert [name for name, row in rows.items() if row["status"] == "failed"] == ["evaluation"]
    assert "images differently than predictions.npz; 2 are allowed" in rows["evaluation"]["reason"]


def rerun_of(folder, honest, **settings):
    own = protocol.load(honest / "tiny.toml")
    context = Context(Submission.of([folder]), replace(own, settings={**own.settings, **settings}))
    loader.load_plugins(honest / "mine.py")
    return Rerun(context, "digits")


@pytest.mark.slow
def test_statistics_of_other_images_are_found_in_a_rerun(honest):
    """Runs with pretrained weights normalize as these ask for, those from scratch by their training images."""
    again = rerun_of(honest / "submission", honest, pretrained=False)
    with pytest.raises(CheckFailed, match="normalizes by other statistics"):
        again.evaluation_check()
    loader.forget()
    (honest / "executed").unlink()


@pytest.mark.slow
def test_predictions_that_no_training_gives_are_found(honest, copied):
    for seed in (0, 1):
        edit_arrays(
            run_of(copied, "mine", seed) / "predictions.npz", lambda found: found.update(predicted=found["labels"])
        )
        backbone_of(run_of(copied, "mine", seed))
    again = rerun_of(copied, honest)
    with pytest.raises(CheckFailed, match=r"points from the submitted run .*, beyond chance"):
        again.training_check()
    loader.forget()
    (honest / "executed").unlink()


def test_runs_on_other_images_are_not_compared(honest, copied):
    first, second = (run_of(copied, pool, 0) for pool in ("avg", "mine"))
    other_pixels(copied)
    sign_again(second)
    with pytest.raises(UsageError, match="were not tested on the same images: test"):
        compare_runs([first, second], None, 0.05)


def test_other_data_here_is_no_reason_to_accuse_anybody(honest):
    report = check([honest / "submission"], str(honest / "tiny.toml"), data="folder:nowhere")
    assert not report.passed
    assert [one.name for one in report.checks if one.status == "failed"] == ["data here"]


# --- What cannot be asked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--merge", "b.json"), "--merge and --author belong together"),
        (("--merge", "b.json", "--author", " "), "printable characters"),
        (("--merge", "b.json", "--author", "a\nb"), "printable characters"),
        (("--out", "there"), "--check takes neither --baseline nor --out"),
        ((), "is not built in"),
        (("--protocol", "digits-local", "--rerun", "train"), ""),
    ],
)
def test_what_does_not_fit_is_refused(poolzoo, honest, words, message):
    done = poolzoo("report", "--check", honest / "submission", *words)
    assert done.code == (2 if message else 1)
    assert message in done.err


def test_options_of_checks_need_one(poolzoo, tmp_path):
    done = poolzoo("report", tmp_path, "--author", "somebody")
    assert done.code == 2
    assert "--author is for --check" in done.err


def test_runs_without_a_protocol_cannot_be_checked(poolzoo):
    done = poolzoo("report", "--check", EARLIER)
    assert done.code == 2
    assert "follow no protocol" in done.err
