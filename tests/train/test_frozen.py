"""Frozen backbones: features that are kept, and many heads that learn as if each were alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.interruptions import stopped_in

import poolzoo as package
from poolzoo.common import resources
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.data import disk
from poolzoo.plugin import loader
from poolzoo.train import feature_entries, feature_writer, features
from poolzoo.train.heads import finetune_heads
from poolzoo.train.prepare import prepare, prepare_heads
from poolzoo.train.run import finetune
from poolzoo.train.settings import Settings

pytestmark = pytest.mark.usefixtures("_no_pictures")

BASE = ("finetune", "--data", "digits", "--backbone", "nano/plain", "--threads", "1", "-q")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def settings(**rest) -> Settings:
    given = {"data": "digits", "backbone": "nano/plain", "epochs": 2, "limit": 300, "threads": 1, **rest}
    return Settings(**given)


FROZEN = (*BASE, "--freeze", "backbone", "--epochs", 2, "--limit", 300)


@pytest.fixture
def start(tmp_path) -> Path:
    """Weights of nano/plain."""
    torch.manual_seed(5)
    network = package.create_model("nano/plain", pool="gem", num_classes=10, image_size=16)
    save_file({k: v.contiguous() for k, v in network.backbone.state_dict().items()}, tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def caches(tmp_path: Path, dtype: type = np.float16) -> list[tuple[int, ...]]:
    """Shapes of the feature caches on disk: of a type, float16 to train on and float32 to validate and test on."""
    found = [np.load(path, mmap_mode="r") for path in (tmp_path / "cache" / "features").glob("*/rows.npy")]
    return sorted(rows.shape for rows in found if rows.dtype == dtype)


def test_the_backbone_runs_once_for_each_part_and_never_again(poolzoo, tmp_path, start, monkeypatch):
    real, seen = feature_writer.frozen_feature_map, []
    monkeypatch.setattr(feature_writer, "frozen_feature_map", lambda n, x, p: (seen.append(len(x)), real(n, x, p))[1])
    arguments = (*BASE, "--freeze", "backbone", "--epochs", 1, "--weights", start, "--pool", "gem")
    poolzoo(*arguments, "--out", tmp_path / "a")
    assert sum(seen) == 1437 + 142 + 360  # to train on, to validate on and to test on
    seen.clear()
    poolzoo(*arguments, "--epochs", 2, "--seed", 3, "--split-seed", 0, "--threads", 2, "--out", tmp_path / "b")
    assert seen == []
    assert caches(tmp_path) == [(1437, 4, 4, 64)]
    assert [shape[1:] for shape in caches(tmp_path, np.float32)] == [(4, 4, 64)] * 2
    recorded = json.loads((tmp_path / "b" / "metrics.json").read_text())["test"]
    for threads in (1, 2):
        assert poolzoo("evaluate", tmp_path / "b", "--threads", threads, "--json").json == recorded


def test_cached_features_are_the_backbones_own_in_half_precision(start, tmp_path):
    prepared = prepare(settings(freeze="backbone", weights=str(start), pool="gem", views=2))
    (stored,) = features.open_features([prepared]).values()
    assert stored.views == 3
    network = prepared.assembly.network.eval()
    images = torch.from_numpy(prepared.data.images)
    with torch.no_grad():
        expected = network.forward_map(prepared.preprocess(images)).half()
    plain = stored.take(np.zeros(300, int), np.arange(300), torch.device("cpu"))
    torch.testing.assert_close(plain, expected.float(), atol=2e-3, rtol=2e-3)
    other = [stored.take(np.full(300, view), np.arange(300), torch.device("cpu")) for view in (1, 2)]
    assert not torch.equal(plain, other[0])
    assert not torch.equal(other[0], other[1])


def test_of_a_pooling_without_parameters_vectors_are_kept(poolzoo, tmp_path, start):
    for pool in ("avg", "catavgmax"):
        assert poolzoo(*FROZEN, "--weights", start, "--pool", pool, "--out", tmp_path / pool).code == 0
    assert caches(tmp_path) == [(300, 64), (300, 128)]
    poolzoo(*FROZEN, "--weights", start, "--pool", "stochastic", "--out", tmp_path / "s")  # it draws at random
    assert (300, 4, 4, 64) in caches(tmp_path)


def test_another_backbone_input_or_augmentation_has_its_own_cache(start):
    def key(**rest):
        prepared = prepare(settings(**{"freeze": "backbone", "weights": str(start), "pool": "gem", **rest}))
        return feature_entries.feature_config(prepared, feature_entries.input_key(prepared)).digest

    first = key()
    assert key() == first
    assert key(epochs=7, lr=0.1, seed=4, limit=1437) == key(limit=1437)
    others = [
        {"pool": "avg"},
        {"weights": None},
        {"image_size": 32},
        {"views": 1},
        {"views": 1, "shift": 0},
        {"views": 1, "seed": 2, "limit": None},
        {"limit": 200},
        {"local_pool": "avg"},
        {"precision": "bfloat16"},
    ]
    keys = [key(**other) for other in others]
    assert len({first, *keys}) == len(others) + 1


def test_features_beyond_half_precision_are_kept_in_single(poolzoo, tmp_path, start):
    state = load_file(start)
    state["conv3.norm.weight"] = state["conv3.norm.weight"] * 1e6
    save_file(state, start)
    outcome = poolzoo(*FROZEN, "--weights", start, "--pool", "gem", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert caches(tmp_path) == []
    assert (300, 4, 4, 64) in caches(tmp_path, np.float32)


PLUGIN = """
from poolzoo import Pooling, hookimpl


def means(added):
    def build(channels: int):
        import torch
        from torch import nn
        class Means(nn.Module):
            def forward(self, x):
                return x.mean((2, 3)) + added(torch.arange(len(x)))[:, None]
        return Means()
    return build


@hookimpl
def poolzoo_poolings():
    numbers = dict(placed=lambda places: places, counted=lambda places: places * 0 + len(places) / 64)
    for name, added in numbers.items():
        yield Pooling(name=name, summary="", kind="global", build=means(added), parameter_free=True)
"""


@pytest.fixture
def odd_poolings(tmp_path) -> Iterator[None]:
    """Mean poolings that add to an image its place in the batch, or how many images the batch has."""
    (tmp_path / "odd.py").write_text(PLUGIN)
    loader.load_plugins(tmp_path / "odd.py")
    yield
    loader.forget()


@pytest.fixture
def somewhere_else(tmp_path, monkeypatch, capsys) -> Callable[[], Iterator[str]]:
    """Places for features without a disk: first the memory, then none; each is what the program says of it."""

    def places() -> Iterator[str]:
        monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "another"))
        monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "0.00001")
        for memory, says in ((1 << 30, "kept in memory instead"), (1 << 18, "runs in every epoch instead")):
            capsys.readouterr()
            monkeypatch.setattr(resources, "available_memory", lambda memory=memory: memory)
            yield says
            assert says in capsys.readouterr().err

    return places


@pytest.mark.usefixtures("odd_poolings")
def test_features_that_the_disk_cannot_keep_have_the_same_bits(start, somewhere_else):
    """Of 260 images in two views 4 are a smaller batch."""
    common = settings(freeze="backbone", weights=str(start), views=1, threads=2, limit=260)
    heads = prepare_heads(common, ["counted", "gem"])
    random = np.random.default_rng(0)
    chosen = [(np.array([1]), np.array([259])), (np.array([0]), np.array([7]))]
    chosen += [(random.integers(2, size=30), random.integers(260, size=30)) for _ in range(3)]

    def taken() -> list[torch.Tensor]:
        stores = features.open_features(heads)
        return [stores[key].take(*each, torch.device("cpu")) for each in chosen for key in ("counted", "map")]

    stored = taken()
    for _ in somewhere_else():
        assert all(map(torch.equal, taken(), stored))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["nano/plain", "nano/resnet"])
def test_without_room_on_disk_heads_learn_the_same_weights(tmp_path, somewhere_else, backbone):
    common = settings(freeze="backbone", backbone=backbone, views=1, batch_size=37, threads=2)
    pools = ["avg", "gem", "cov", "stochastic"]
    finetune_heads(common, pools, tmp_path / "stored")
    for place in somewhere_else():
        finetune_heads(common, pools, tmp_path / place)
        for pool in pools:
            for name in ("model.safetensors", "validation.npz", "test.npz"):
                assert (tmp_path / place / pool / name).read_bytes() == (tmp_path / "stored" / pool / name).read_bytes()


@pytest.mark.usefixtures("odd_poolings")
def test_features_that_depend_on_the_batch_are_not_computed_again(start, monkeypatch):
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "0")
    monkeypatch.setattr(resources, "available_memory", lambda: 1 << 16)
    with pytest.raises(EnvironmentProblem, match="gives other bits in another batch"):
        features.open_features([prepare(settings(freeze="backbone", weights=str(start), pool="placed"))])


def test_features_that_are_not_finite_are_refused(start):
    save_file({**load_file(start), "conv3.norm.weight": torch.full((64,), torch.inf)}, start)
    with pytest.raises(CheckFailed, match="NaN or infinity"):
        features.open_features([prepare(settings(freeze="backbone", weights=str(start), pool="gem"))])


def test_a_cache_that_cannot_be_written_does_not_end_a_run(poolzoo, tmp_path, start):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features").write_text("a file where the directory should be")
    arguments = [word for word in FROZEN if word != "-q"]
    outcome = poolzoo(*arguments, "--weights", start, "--pool", "gem", "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "features cannot be written to" in outcome.err
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_features_that_another_process_evicts_at_once_are_done_without(start, monkeypatch):
    head = prepare(settings(freeze="backbone", weights=str(start), pool="gem"))
    real = disk.Shelf.building

    @contextmanager
    def evicted_at_once(shelf, key):
        with real(shelf, key) as temporary:
            yield temporary
        disk.Shelf(shelf.root, 10**10).drop(key)

    monkeypatch.setattr(disk.Shelf, "building", evicted_at_once)
    assert features.open_features([head], "test") is None


def test_what_has_no_room_to_be_tested_on_gives_the_same_metrics(poolzoo, tmp_path, start, monkeypatch):
    arguments = (*FROZEN, "--weights", start, "--pool", "gem", "--threads", 2)
    found = []
    for name, limit in (("some", "0.00068"), ("all", "1")):  # GB; the maps to train on need 0.00061
        monkeypatch.setenv("POOLZOO_CACHE_LIMIT", limit)
        assert poolzoo(*arguments, "--out", tmp_path / name).code == 0
        found.append(json.loads((tmp_path / name / "metrics.json").read_text()))
        assert caches(tmp_path) == [(300, 4, 4, 64)]
        assert bool(caches(tmp_path, np.float32)) == (name == "all")
    assert [one["test"] for one in found] == [found[0]["test"]] * 2
    assert weights(tmp_path / "some") == weights(tmp_path / "all")


def test_a_cached_head_learns_what_a_live_one_does(poolzoo, tmp_path, start):
    """The same accuracy but for the rounding, where nothing is augmented."""
    arguments = (*BASE, "--freeze", "backbone", "--weights", start, "--pool", "gem", "--epochs", 5)
    for name, extra in (("cached", ()), ("live", ("--no-feature-cache", "--shift", 0))):
        assert poolzoo(*arguments, *extra, "--out", tmp_path / name).code == 0
    a, b = (
        json.loads((tmp_path / name / "metrics.json").read_text())["test"]["accuracy"] for name in ("cached", "live")
    )
    assert a == pytest.approx(b, abs=0.03)
    assert a > 0.5


POOLS = ["avg", "stochastic", "netvlad"]


@pytest.mark.parametrize("cached", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_heads_trained_together_equal_those_trained_alone_bitwise(tmp_path, start, cached, monkeypatch):
    """Stored features give the same on any number of threads: two heads at a time, and one."""
    common = settings(freeze="backbone", weights=str(start), feature_cache=cached, ema=0.9, threads=1 + cached)
    together = finetune_heads(common, POOLS, tmp_path / "together")
    for pool in POOLS:
        if cached:
            monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / f"cache-{pool}"))  # nothing is taken over
        from dataclasses import replace

        threads = 1 if pool in POOLS[1:3] else common.threads
        alone = finetune(replace(common, pool=pool, threads=threads), tmp_path / f"alone-{pool}")
        assert weights(tmp_path / "together" / pool) == weights(tmp_path / f"alone-{pool}"), pool
        assert together[pool].test == alone.test
        toml = [(tmp_path / name / "run.toml").read_text() for name in (f"together/{pool}", f"alone-{pool}")]
        assert toml[0] == toml[1].replace(f"threads = {threads}", f"threads = {common.threads}")


def test_heads_that_are_interrupted_go_on_together(tmp_path, start):
    common = settings(freeze="backbone", weights=str(start), epochs=3)
    finetune_heads(common, POOLS, tmp_path / "whole")
    with stopped_in(3), pytest.raises(KeyboardInterrupt):
        finetune_heads(common, POOLS, tmp_path / "cut")
    lines = []
    finetune_heads(common, POOLS, tmp_path / "cut", lambda pool, metrics: lines.append((pool, metrics.epoch)))
    assert lines == [(pool, 3) for pool in POOLS]
    for pool in POOLS:
        assert weights(tmp_path / "cut" / pool) == weights(tmp_path / "whole" / pool)
    again = finetune_heads(common, POOLS, tmp_path / "cut")  # nothing is left to do
    assert again.keys() == set(POOLS)
    with pytest.raises(UsageError, match="lr"):
        finetune_heads(settings(freeze="backbone", weights=str(start), epochs=3, lr=0.1), POOLS, tmp_path / "cut")


def test_several_heads_need_a_frozen_backbone_and_different_names(tmp_path):
    with pytest.raises(UsageError, match="frozen"):
        finetune_heads(settings(), ["avg", "max"], tmp_path / "x")
    with pytest.raises(UsageError, match="different"):
        finetune_heads(settings(freeze="backbone"), ["avg", "avg"], tmp_path / "x")


def test_heads_on_one_backbone_share_its_module():
    heads = prepare_heads(settings(freeze="backbone"), ["avg", "gem"])
    assert heads[0].assembly.network.backbone is heads[1].assembly.network.backbone


@pytest.mark.parametrize("extra", [(), ("--no-feature-cache",)])
def test_resumed_head_keeps_the_weights_below_it(poolzoo, tmp_path, start, extra):
    arguments = (*FROZEN, "--weights", start, "--no-check-export", *extra)
    assert poolzoo(*arguments, "--out", tmp_path / "whole").code == 0
    with stopped_in(2):
        assert poolzoo(*arguments, "--out", tmp_path / "cut").code == 130
    kept = start.read_bytes()
    save_file({name: 1.5 * tensor for name, tensor in load_file(start).items()}, start)
    refused = poolzoo("finetune", "--resume", tmp_path / "cut", "-q")
    assert refused.code == 1
    assert "the weights of the backbone changed since the run began" in refused.err
    start.write_bytes(kept)
    assert poolzoo("finetune", "--resume", tmp_path / "cut", "-q").code == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
