"""`--test-fraction`: which images are held out to test on, and that every command uses the same."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from poolzoo.common.errors import UsageError
from poolzoo.data import source, test_fraction
from poolzoo.data.held_out import HeldOut
from poolzoo.data.identity import DataIdentity
from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names


def indexed(labels: list[int], seed: int = 0) -> ImageIndex:
    """An index of images of some labels, in an order that a seed shuffles."""
    named = [(f"{label}/{number}.png", label) for number, label in enumerate(labels)]
    random.Random(seed).shuffle(named)
    return ImageIndex(FileStorage("photos"), Names.of(name for name, _ in named), np.array([one for _, one in named]))


def held(index: ImageIndex, fraction: float, seed: int = 0) -> list[str]:
    return sorted(np.array(list(index.names))[test_fraction.test_images(index, HeldOut(fraction, seed))].tolist())


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_classes_keep_their_proportions(fraction):
    labels = [0] * 400 + [1] * 40 + [2] * 10
    counts = Counter(name[0] for name in held(indexed(labels), fraction))
    assert [counts[str(label)] for label in range(3)] == pytest.approx(
        [400 * fraction, 40 * fraction, 10 * fraction], abs=1
    )
    assert counts.total() == round(450 * fraction)


def test_the_seed_matters_and_the_order_of_images_does_not():
    labels = [0] * 100 + [1] * 50
    first = held(indexed(labels), 0.2)
    assert held(indexed(labels, seed=7), 0.2) == first
    assert held(indexed(labels), 0.2, seed=1) != first


def test_one_image_classes_stay_in_training():
    labels = [*range(100), *[100] * 100]
    assert {name.partition("/")[0] for name in held(indexed(labels), 0.3)} == {"100"}


def test_of_small_classes_some_have_a_test_image():
    chosen = held(indexed([label for label in range(100) for _ in range(3)]), 0.1)
    assert len(chosen) == len({name.partition("/")[0] for name in chosen}) == 30


def test_of_several_labels_the_rarest_keeps_its_proportion():
    labels = np.zeros((200, 3), np.uint8)
    labels[:, 0] = 1
    labels[:40, 1] = 1
    labels[:20, 2] = 1
    names = Names.of(f"{number}.png" for number in range(200))
    chosen = test_fraction.test_images(ImageIndex(FileStorage("photos"), names, labels), HeldOut(0.2))
    assert labels[chosen].sum(0).tolist() == [40, 8, 4]


def test_too_few_images_are_refused():
    with pytest.raises(UsageError, match="leaves no test image"):
        test_fraction.test_images(indexed([0, 1, 2]), HeldOut(0.3))


@pytest.fixture
def whole(photos: Path) -> Path:
    """One folder of class folders without a test part."""
    shutil.rmtree(photos / "test")
    for name in ("red", "blue"):
        (photos / "train" / name).rename(photos / name)
    (photos / "train").rmdir()
    return photos


OPTIONS = ("--backbone", "nano/plain", "--epochs", 1, "--threads", 1)
ONLY_TRAIN = ("--no-check-export", "-q")


def test_without_a_test_part_the_hint_names_the_option(poolzoo, whole):
    outcome = poolzoo("finetune", "--data", f"folder:{whole}", *OPTIONS, "--out", whole / "run")
    assert outcome.code == 2
    assert "has no test images" in outcome.err
    assert "--test-fraction 0.2" in outcome.err


def test_an_existing_test_part_is_not_held_out_again(poolzoo, photos):
    for data in (f"folder:{photos}", "digits"):
        outcome = poolzoo("finetune", "--data", data, "--test-fraction", 0.2, *OPTIONS, "--out", photos / "run")
        assert outcome.code == 2
        assert "has a test part" in outcome.err


def test_beside_val_the_test_part_comes_from_the_training_images(photos):
    (photos / "test").rename(photos / "val")
    dataset = source.open_dataset(f"folder:{photos}", test_part=HeldOut(0.25), validation=True)
    assert [len(source.load_split(dataset, split)[1]) for split in ("train", "test")] == [18 + 8, 6]
    assert source.reader(dataset).validation == 8


def test_a_run_records_its_test_images_and_evaluate_uses_them(poolzoo, whole, tmp_path):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    data = ("--data", f"folder:{whole}", "--test-fraction", 0.25)
    assert poolzoo("finetune", *data, *OPTIONS, *ONLY_TRAIN, "--seed", 3, "--out", run).code == 0
    identity = DataIdentity.load(run / "data.npz")
    train, test = (set(identity.splits[split].names) for split in ("train", "test"))
    assert (len(train), len(test), train & test) == (18, 6, set())
    assert "test_fraction = 0.25" in (run / "run.toml").read_text()
    expected = json.loads((run / "metrics.json").read_text())["test"]
    evaluated = poolzoo("evaluate", run, "--json").json
    assert (evaluated["confusion"], evaluated["ece"]) == (
        expected["confusion"],
        pytest.approx(expected["ece"], abs=1e-5),
    )
    assert poolzoo("export", run, "--no-bench", "-q", "--out", bundle).code == 0
    found = poolzoo("evaluate", bundle, "--onnx", "--json").json
    assert (found["n"], found["accuracy"]) == (6, expected["accuracy"])
    assert poolzoo("evaluate", run, "--data", f"folder:{whole}", "--test-fraction", 0.5, "--json").json["n"] == 12
    assert "held out 0.25" in poolzoo("evaluate", run, "--test-fraction", 0.5).err


def test_other_seeds_have_the_same_test_images(whole):
    from poolzoo.train.settings import Settings
    from poolzoo.train.splits import read_data

    tested = [
        read_data(Settings(data=f"folder:{whole}", test_fraction=0.25, **seeds)).identity.splits["test"].names
        for seeds in ({"seed": 0}, {"seed": 1}, {"seed": 1, "split_seed": 5})
    ]
    assert tested[0] == tested[1] != tested[2]


@pytest.mark.parametrize("value", ["0", "0.95", "-1", "much"])
def test_a_fraction_out_of_range_is_refused(poolzoo, whole, value):
    outcome = poolzoo(
        "finetune", "--data", f"folder:{whole}", "--test-fraction", value, *OPTIONS, "--out", whole / "run"
    )
    assert outcome.code == 2
    assert "--test-fraction" in outcome.err


def test_every_trial_of_a_comparison_has_the_same_test_images(poolzoo, whole, tmp_path):
    data = ("--data", f"folder:{whole}", "--test-fraction", 0.25, "--pool", "avg", "--seeds", 2)
    rest = ("--robustness-samples", 4, "--export-top", 0, "--out", tmp_path / "comparison", "-q")
    assert poolzoo("compare", *data, *OPTIONS, *rest).code == 0
    tested = [DataIdentity.load(path).splits["test"].names for path in sorted(tmp_path.glob("comparison/**/data.npz"))]
    assert tested
    assert all(names == tested[0] for names in tested)
    assert len(tested[0]) == 6
