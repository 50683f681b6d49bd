"""What the files of a run say: `config.json`, `env.json`, `metrics.json` and the README; and what is loaded of it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

import poolzoo
from poolzoo.artifacts import result_card, run, run_report
from poolzoo.artifacts.run_report import Ending, PeakMemory, RunReport
from poolzoo.artifacts.samples import samples_bytes
from poolzoo.common import json_writer
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data.held_out import HeldOut
from poolzoo.data.resize import Fit
from poolzoo.metrics.calibration import Calibration
from poolzoo.metrics.calibration_fit import CalibrationFit
from poolzoo.metrics.decisions import Decision
from poolzoo.metrics.multilabel_results import LabelMetrics, MultilabelMetrics
from poolzoo.metrics.reliability import Bin, Estimate, Reliability, ReliabilityChange
from poolzoo.metrics.results import ClassMetrics, Metrics
from poolzoo.model.assemble import Assembly, assemble
from poolzoo.model.config import ModelConfig
from poolzoo.model.network import Preprocess

EARLIER = Path(__file__).parents[1] / "data/earlier/run"
PREPROCESS = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (9, 8), (20, 16))
BUILT_IN = {"dist": "poolzoo", "version": poolzoo.__version__, "tier": "built-in", "sha256": None}


@pytest.fixture(scope="module")
def assembly() -> Assembly:
    return assemble(
        ModelConfig("nano/plain", "gem:p=2.5", 3, (9, 8), image_size=(20, 16), local_pool="blur", head="mlp:6")
    )


def test_a_config_holds_what_builds_the_network_again(assembly):
    config = run.configuration(assembly, PREPROCESS, ("a", "b", "c"), "csv:x", Fit("bicubic", 0.875, 1))
    ours = config.pop("poolzoo")
    assert config == {
        "schema": 1,
        "architecture": "plain",
        "num_classes": 3,
        "num_features": 64,
        "global_pool": "gem:p=2.5",
        "label_names": ["a", "b", "c"],
        "pretrained_cfg": {
            "input_size": [3, 20, 16],
            "mean": pytest.approx([0.1, 0.2, 0.3]),
            "std": pytest.approx([0.4, 0.5, 0.6]),
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "reader": 1,
            "num_classes": 3,
            "license": "Apache-2.0",
        },
    }
    assert ours.pop("published_head")["text"] == "avg is the mean of the feature map"
    assert ours.pop("weights")["source"] is None
    assert ours == {
        "backbone": "nano/plain",
        "pool": "gem:p=2.5",
        "options": {"p": 2.5},
        "local_pool": "blur",
        "stem": "stock",
        "head": "mlp:6",
        "final_norm": "head",
        "data": "csv:x",
        "data_size": [9, 8],
        "image_size": [20, 16],
        "map": [64, *assembly.layout.map_size],
        "plugin": BUILT_IN,
        "plugins": {"backbone": BUILT_IN, "pool": BUILT_IN, "local_pool": BUILT_IN},
    }
    assert run.model_config({**config, "poolzoo": ours}) == assembly.config
    del ours["final_norm"]  # as in runs of earlier versions
    assert run.model_config({**config, "poolzoo": ours}).final_norm == "backbone"


def test_a_config_holds_the_decision_and_the_test_part(assembly):
    decision = Decision((0.25, 0.5, 0.75), Calibration(2.0, (1.0, 2.0, 3.0), (0.1, 0.2, 0.3)))
    config = run.configuration(assembly, PREPROCESS, ("a", "b", "c"), "d", Fit(), decision, HeldOut(0.2, 7))
    assert config["task"] == "multilabel"
    assert config["poolzoo"]["test_part"] == {"fraction": 0.2, "seed": 7}
    assert run.decision_of(config) == decision
    plain = run.configuration(assembly, PREPROCESS, ("a", "b", "c"), "d")
    assert not {"task", "thresholds", "calibration"} & plain.keys()
    assert "test_part" not in plain["poolzoo"]
    assert run.decision_of(plain) == Decision()


def test_a_run_without_its_calibration_decides_the_same(assembly):
    decision = Decision((0.25, 0.5, 0.75), Calibration(2.0, (1.0, 2.0, 3.0), (0.1, 0.2, 0.3)))
    config = run.configuration(assembly, PREPROCESS, ("a", "b", "c"), "d", Fit(), decision)
    found = run.Run(Path("r"), assembly.network, PREPROCESS, config, assembly)
    plain = found.uncalibrated()
    logits = torch.linspace(-3, 3, 60).reshape(-1, 3).numpy()
    assert plain.decision.calibration is None
    assert (plain.decision.decide(logits) == found.decision.decide(logits)).all()
    assert found.decision == decision
    assert plain.uncalibrated() is plain
    assert (found.classes, found.data_size, found.fit) == (["a", "b", "c"], (9, 8), Fit())


def test_the_environment_names_versions_and_hardware(monkeypatch):
    monkeypatch.setattr(run, "VERSIONED", ("torch", "no-such-package"))
    assert run.environment(torch.device("cpu")) == {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": "cpu",
        "device_name": platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "versions": {"poolzoo": poolzoo.__version__, "torch": version("torch"), "no-such-package": "none"},
    }


def test_a_new_run_has_a_name_of_its_own():
    names = [run.new_path(Path("runs"), "timm/resnet18", "gem:p=4") for _ in range(2)]
    assert names[0] != names[1]
    assert all(one.parent == Path("runs") for one in names)
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-timm-resnet18-gem-p=4-[0-9a-f]{6}", one.name) for one in names)


def test_a_loaded_network_carries_what_prediction_needs():
    network = poolzoo.load(EARLIER)
    loaded = run.load_run(EARLIER)
    assert not network.training
    assert network.config == loaded.config
    assert network.decision == loaded.decision
    assert network.preprocess.statistics == loaded.preprocess.statistics
    assert not network.preprocess.training


def test_runs_with_the_same_backbone_share_it(tmp_path):
    first, second = run.load_runs([EARLIER, EARLIER])
    assert first.network.backbone is second.network.backbone
    assert first.network is not second.network
    assert all(map(torch.equal, first.network.parameters(), second.network.parameters()))
    other = tmp_path / "other"
    shutil.copytree(EARLIER, other)
    state = first.network.state_dict()
    name = next(name for name in state if name.startswith("backbone.") and name.endswith("weight"))
    state = {**state, name: state[name] + 1}
    (other / "model.safetensors").write_bytes(run.weights_bytes(state))
    run.manifest.write_manifest(other, "run")
    first, second = run.load_runs([EARLIER, other])
    assert first.network.backbone is not second.network.backbone
    assert torch.equal(second.network.state_dict()[name], state[name])


@pytest.mark.parametrize("local_pool", [None, "blur"])
def test_a_config_names_the_parts_that_it_was_made_of(local_pool):
    model = ModelConfig("nano/plain", "gem:p=2.5", 3, (9, 8), image_size=(20, 16), local_pool=local_pool, head="mlp:6")
    assembly = assemble(model)
    config = run.configuration(assembly, PREPROCESS, ("a", "b", "c"), "csv:x")
    assert run.model_config(config) == assembly.config
    assert run.model_config(config).local_pool == local_pool


def altered(folder: Path, part: str | None, **values: object) -> Path:
    """A copy of the earlier run with other values in its config, or in a part of `poolzoo` in it."""
    shutil.copytree(EARLIER, folder)
    config = json.loads((folder / "config.json").read_text())
    (config["poolzoo"] if part is None else config["poolzoo"][part]).update(values)
    (folder / "config.json").write_text(json.dumps(config))
    run.manifest.write_manifest(folder, "run")
    return folder


@pytest.mark.parametrize(
    ("values", "shared"),
    [({"pool": "avg"}, True), ({"local_pool": "avg"}, False), ({"data_size": [9, 9]}, False)],
    ids=["another head", "another backbone", "another size"],
)
def test_a_backbone_is_shared_where_only_what_is_behind_it_differs(tmp_path, values, shared):
    other = altered(tmp_path / "other", None, **values)
    if shared:  # avg has no weights, where gem has a learned exponent
        state = {name: one for name, one in run.load_run(EARLIER).network.state_dict().items() if name != "pool.p"}
        (other / "model.safetensors").write_bytes(run.weights_bytes(state))
        run.manifest.write_manifest(other, "run")
    first, second = run.load_runs([EARLIER, other])
    assert (first.network.backbone is second.network.backbone) == shared


@pytest.mark.parametrize(
    ("was", "warns"),
    [
        ({"tier": "installed", "version": "0.0.1"}, True),
        ({"tier": "installed", "version": poolzoo.__version__}, False),
        ({"tier": "installed", "version": poolzoo.__version__, "sha256": "0" * 64}, True),
        ({"tier": "built-in", "version": "0.0.1"}, False),
        (None, False),
    ],
    ids=["another version", "the same", "another file", "built in", "not recorded"],
)
@pytest.mark.parametrize(("part", "name"), [("pool", "gem"), ("backbone", "nano/plain")])
def test_another_version_of_a_plugin_is_a_warning(tmp_path, capsys, part, name, was, warns):
    source = {**BUILT_IN, **was} if was is not None else None
    folder = altered(tmp_path / "run", "plugins", **{part: source})
    if was is None:
        config = json.loads((folder / "config.json").read_text())
        del config["poolzoo"]["plugins"][part]
        (folder / "config.json").write_text(json.dumps(config))
        run.manifest.write_manifest(folder, "run")
    run.load_run(folder)
    text = f"warning: the {part} {name} comes from another version of poolzoo than the run used\n"
    assert capsys.readouterr().err.count(text) == warns


def test_a_plugin_that_is_missing_is_named_with_its_distribution(tmp_path):
    config = json.loads((EARLIER / "config.json").read_text())
    foreign = {**config["poolzoo"]["plugins"], "pool": {**BUILT_IN, "dist": "acme", "tier": "installed"}}
    folder = altered(tmp_path / "acme", None, pool="no-such", plugins=foreign)
    with pytest.raises(UsageError, match="no-such") as caught:
        run.load_run(folder)
    assert caught.value.hint == "the run's pool came from acme: install it, or name its file with --plugin"
    with pytest.raises(UsageError, match="no-such") as caught:
        run.load_run(altered(tmp_path / "ours", None, pool="no-such"))
    assert "install it" not in caught.value.hint


def test_a_run_keeps_images_of_its_data(tmp_path):
    folder = altered(tmp_path / "run", None)
    images = np.arange(3 * 12, dtype=np.uint8).reshape(3, 2, 2, 3), np.array([2, 0, 1])
    (folder / "samples.npz").write_bytes(samples_bytes(images, np.array([0, 2]), images))
    run.manifest.write_manifest(folder, "run")
    found = run.load_run(folder).samples()
    assert found["train_labels"].tolist() == [2, 1]
    assert np.array_equal(found["train_images"], images[0][[0, 2]])
    assert np.array_equal(found["test_images"], images[0])


def test_weights_that_do_not_fit_name_their_file(tmp_path):
    folder = altered(tmp_path / "run", None)
    state = run.load_run(EARLIER).network.state_dict()
    name = next(one for one in state if one.startswith("backbone."))
    for other in ({**state, "more": torch.zeros(1)}, {one: value for one, value in state.items() if one != name}):
        (folder / "model.safetensors").write_bytes(run.weights_bytes(other))
        run.manifest.write_manifest(folder, "run")
        with pytest.raises(CheckFailed) as caught:
            run.load_run(folder)
        assert str(folder / "model.safetensors") in caught.value.message


def estimate(value: float) -> Estimate:
    return Estimate(value, (value / 2, 2 * value))


def reliability(value: float) -> Reliability:
    return Reliability(*map(estimate, (value, 0.2, 0.3, 0.4)), 0.01, 7, (Bin(7, 0.5, 0.25),))


METRICS = Metrics(
    accuracy=0.75,
    interval=(0.5, 0.875),
    top5=0.9375,
    ece=0.0625,
    precision=0.7,
    recall=0.6,
    f1=0.65,
    n=16,
    per_class=(ClassMetrics("a", 0.5, 0.25, 0.375, 16), ClassMetrics("b", None, None, None, 0)),
    confusion=((12, 4), (0, 0)),
)
MANY = MultilabelMetrics(
    map=0.875,
    interval=(0.8, 0.9),
    precision=0.1,
    recall=0.2,
    f1=0.3,
    f1_interval=(0.25, 0.35),
    micro_precision=0.4,
    micro_recall=0.5,
    micro_f1=0.45,
    micro_f1_interval=(0.4, 0.5),
    exact=0.125,
    ece=0.05,
    n=16,
    per_class=(LabelMetrics("a", 0.5, 0.6, 0.7, 0.8, 0.75, 4, 5), LabelMetrics("b", 0.4, 0.3, 0.2, 0.1, 0.15, 3, 2)),
)
REPORT = RunReport(
    path=Path("runs/r"),
    val=METRICS,
    best_epoch=3,
    test=METRICS,
    test_flip_tta=0.8125,
    seconds=12.4,
    images_per_s=345.6,
    peak_memory=PeakMemory(host_bytes=3_000_000_000, device_bytes=2_500_000_000),
    processes=2,
    skipped=({"file": "x.jpg", "error": "broken"},),
    ending=Ending(epochs=5, steps=40, by="patience"),
    fit=CalibrationFit(Calibration(1.5), 20, 1.5, (1.25, 1.75), 0.01, 0.5, 0.4),
    reliability=ReliabilityChange(reliability(0.1), reliability(0.05), {"ece": estimate(-0.05)}),
)


@pytest.mark.parametrize(
    "report",
    [
        REPORT,
        replace(REPORT, val=MANY, test=MANY),
        replace(REPORT, test_flip_tta=None, skipped=(), ending=None, fit=None, reliability=None),
    ],
    ids=["all", "multilabel", "least"],
)
def test_every_figure_of_a_report_comes_back(tmp_path, report):
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / run_report.FILE).write_text(json_writer.dumps(report.to_json()))
    assert RunReport.load(folder) == replace(report, path=folder)


def test_a_report_has_the_keys_that_readers_know():
    written = REPORT.to_json()
    optional = {"calibration", "ending", "skipped"}
    least = {"run", "val", "test", "test_flip_tta", "seconds", "images_per_s", "peak_memory", "processes"}
    assert written.keys() == least | optional
    assert written["run"] == "r"
    assert written["val"]["epoch"] == 3
    assert written["test_flip_tta"] == {"accuracy": 0.8125}
    assert replace(REPORT, test=MANY).to_json()["test_flip_tta"] == {"map": 0.8125}
    assert written["peak_memory"] == {"host_bytes": 3_000_000_000, "device_bytes": 2_500_000_000}
    plain = replace(REPORT, skipped=(), ending=None, fit=None, reliability=None).to_json()
    assert plain.keys() == least
    assert "reliability" not in plain["test"]
    assert "reliability" in written["test"]


def test_the_summary_is_what_scripts_read():
    assert REPORT.summary() == {
        "run": "runs/r",
        "test": {"accuracy": 0.75, "precision": 0.7, "recall": 0.6, "f1": 0.65, "n": 16},
        "val": {"accuracy": 0.75, "precision": 0.7, "recall": 0.6, "f1": 0.65, "n": 16, "epoch": 3},
        "seconds": 12.4,
        "images_per_s": 345.6,
        "ending": {"epochs": 5, "steps": 40, "by": "patience"},
        "skipped": [{"file": "x.jpg", "error": "broken"}],
    }


def test_reports_of_earlier_versions_lack_keys(tmp_path):
    written = REPORT.to_json()
    for key in ("test_flip_tta", "peak_memory", "processes", "skipped", "ending", "calibration"):
        del written[key]
    (tmp_path / run_report.FILE).write_text(json_writer.dumps(written))
    found = RunReport.load(tmp_path)
    assert found.peak_memory == PeakMemory(None, None)
    assert (found.processes, found.skipped, found.test_flip_tta) == (1, (), None)
    assert (found.ending, found.fit) == (None, None)


@pytest.fixture
def config(assembly):
    return run.configuration(assembly, PREPROCESS, ("a", "b"), "digits")


def test_a_card_says_what_the_run_achieved(config):
    text = result_card.render(config, {"epochs": 5, "lr": None, "pool": "gem"}, REPORT)
    for words in (
        'tags: [image-classification, pooling, "gem-p=2.5"]',
        'license: "Apache-2.0"',
        "metrics: [accuracy, precision, recall, f1]",
        "# nano/plain with gem:p=2.5 pooling on digits",
        "Images of 9×8 pixels (height × width) enter the network at\n20×16; its 64×",
        "feature map is pooled to\n64 features.",
        "Weights at the start: from scratch",
        "Accuracy 0.7500 (95 % interval 0.5000 to 0.8750), macro F1 0.6500 on 16 test images.",
        "Top-5 accuracy 0.9375.",
        "Expected calibration error 0.0500 (0.0250 to 0.1000), without the calibration 0.1000 (0.0500 to 0.2000); "
        "negative log-likelihood 0.4000 and 0.4000.",
        "No test image of b:",
        "Probabilities are calibrated on 20 validation images: temperature 1.5 (95 % interval 1.25 to 1.75)",
        "Averaged over each image and its mirror image: 0.8125.",
        "1 images could not be read and were left out",
        "The patience ended training after 5 epochs.",
        "Training took 12 s at 346 images/s, peak memory 2.5 GB.",
        "| class | n | precision | recall | F1 |",
        "| a | 16 | 0.500 | 0.250 | 0.375 |",
        "| b | 0 | – | – | – |",
        "| argument | value |",
        "| epochs | 5 |",
    ):
        assert words in text, words
    assert "Published head" not in text
    assert "| lr |" not in text


def test_a_card_leaves_out_what_a_run_has_not(config):
    plain = replace(
        REPORT,
        test=replace(METRICS, top5=None, per_class=METRICS.per_class[:1]),
        test_flip_tta=None,
        skipped=(),
        ending=Ending(5, 40, None),
        fit=None,
        reliability=ReliabilityChange(before=reliability(0.1), after=None, change={}),
        peak_memory=PeakMemory(None, None),
    )
    config["pretrained_cfg"]["license"] = None
    text = result_card.render(config, {}, plain)
    for absent in ("Top-5", "without the calibration", "mirror image", "could not be read", "ended training", "memory"):
        assert absent not in text, absent
    assert "Expected calibration error 0.0625." in text
    assert 'license: "unknown"' in text
    assert "at 346 images/s." in text


def test_a_card_of_several_labels_has_their_scores(config):
    config["poolzoo"]["published_head"]["changes"] = True
    config["poolzoo"]["teacher"] = {"name": "big", "sha256": "0", "temperature": 2.0, "weight": 0.25}
    text = result_card.render(config, {}, replace(REPORT, val=MANY, test=MANY))
    assert "metrics: [mAP, precision, recall, f1]" in text
    low, high = MANY.interval
    assert f"mAP {MANY.map:.4f} on {MANY.n} images (95 % interval {low:.4f} to {high:.4f})." in text
    assert f"Macro F1 {MANY.f1:.4f} (" in text
    assert "A label is predicted where its probability reaches its threshold" in text
    assert "Published head: avg is the mean of the feature map." in text
    assert "Distilled from big at temperature 2, with weight 0.25." in text
    assert "Accuracy" not in text
