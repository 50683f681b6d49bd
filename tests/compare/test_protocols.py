"""`poolzoo compare --protocol`: what it pins, what it refuses, and where it is written down."""

from __future__ import annotations

import json
import re
import tomllib

import numpy as np
import pytest
from support.submissions import run_of, tiny_protocol

from poolzoo import __version__
from poolzoo.common.errors import CheckFailed
from poolzoo.compare.board import pinning, protocol, protocol_names
from poolzoo.compare.config import ComparisonConfig
from poolzoo.data.identity import DataIdentity, SplitIdentity
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_run_settings

# --- The files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", protocol_names())
def test_built_in_protocols_are_sound(name):
    found = protocol.find(name)
    assert found.name == name
    assert found.reference == f"{name}@{found.version}:{found.digest}"
    assert found.base.protocol == found.reference


def test_the_digest_is_that_of_the_content():
    text = tiny_protocol()
    lines = text.splitlines()
    place = lines.index("[versions]  # the range that is allowed, and what made the baseline")
    moved = "\n".join([*lines[: place + 1], *reversed(lines[place + 1 :])])
    same = [text, "# a comment\n" + text, moved, text.replace(" = ", "   =  ")]
    assert len({protocol.parse(one).digest for one in same}) == 1
    for key, value in (("lr", "0.006"), ("question", '"why"'), ("seeds", "3"), ("epochs", "2")):
        assert protocol.parse(tiny_protocol(**{key: value})).digest != protocol.parse(text).digest


@pytest.mark.parametrize("name", ["digits-heads", "digits-local"])
def test_built_in_digests_are_those_of_the_data(name):
    from poolzoo.train.splits import read_data

    found = protocol.find(name)
    assert pinning.differing_data(found.data, read_data(found.base).identity) == []


@pytest.mark.slow
def test_digests_of_the_photographs_are_those_of_the_data(cifar_images):
    from poolzoo.train.splits import read_data

    found = protocol.find("cifar10-local")
    settings = Settings(**{**vars(found.base), "data": f"folder:{cifar_images}"})
    assert pinning.differing_data(found.data, read_data(settings).identity) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr = 0.005\n", "", "leaves lr open"),
        ('device = "cpu"', 'device = "auto"', "leaves device open"),
        ("seeds = 2", "seeds = 1", "two seeds or more"),
        ("size = [8, 8]", "size = [8]", "size of [data] is height and width"),
        ('free = "pool"', 'free = "head"', "neither pool nor local_pool"),
        ("epochs = 1", 'epochs = 1\ndata = "mnist"', "data is free"),
        ("epochs = 1", "epoch = 1", "unknown setting 'epoch'"),
        ("epochs = 1", 'epochs = "1"', "is not int"),
        ('">=2.9,<3"', '"about 2"', "about 2"),
        ("\nbackbone_sha256", "\nother", "unexpected keyword argument 'other'"),
        ("[data.test]", "[data.tests]", "it lacks 'test'"),
        ("classes = [", "classes = ", "is not TOML"),
        ('source = "digits"', 'source = "folder:"', 'data_cache = "decoded"'),
    ],
)
def test_what_is_no_protocol_is_refused(tmp_path, old, new, message):
    text = tiny_protocol()
    assert old in text
    (tmp_path / "p.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(CheckFailed, match=re.escape(message)):
        protocol.find(str(tmp_path / "p.toml"))


def test_they_are_listed_and_shown(poolzoo, tmp_path):
    rows = poolzoo("list", "protocols", "--json").json["protocols"]
    assert [row["name"] for row in rows] == protocol_names()
    (shown,) = poolzoo("show", "digits-heads", "--json").json["items"]
    assert shown["digest"] == protocol.find("digits-heads").digest
    (tmp_path / "tiny.toml").write_text(tiny_protocol())
    assert "digits-tiny" in poolzoo("show", tmp_path / "tiny.toml").out


# --- What it pins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("digits-heads", "digits-heads compares what --pool names"),
        ("digits-heads --pool avg", "avg is the baseline of protocol digits-heads itself"),
        ("digits-heads --pool gem:p=3,eps=1e-6,gem:eps=1e-6,p=3", "gem:p=3,eps=1e-6 is named twice"),
        ("digits-heads --pool max,poolzoo:avg", "poolzoo:avg is named twice"),
        ("digits-heads --pool max --epochs 9", "--epochs 9: protocol digits-heads pins 5"),
        ("digits-heads --pool max --seeds 5", "--seeds 5: protocol digits-heads pins 3"),
        ("digits-heads --pool max --backbone nano/plain", "--backbone nano/plain: protocol digits-heads pins nano"),
        ("digits-heads --pool max --local-pool blur", "--local-pool blur: protocol digits-heads pins none"),
        ("digits-heads --pool max --baseline max", "--baseline max: protocol digits-heads pins avg"),
        ("digits-heads --pool max --time-budget 5m", "--time-budget 5m: protocol digits-heads pins none"),
        ("digits-heads --pool max --race", "--race: protocol digits-heads has no such setting"),
        ("digits-heads --pool max --resolution 1", "--resolution chooses the number of seeds"),
        ("digits-heads --pool max --recipe tune", "--recipe: protocol digits-heads has no such setting"),
        ("digits-heads --pool max --data cifar10", "--data cifar10: protocol digits-heads pins digits"),
        ("digits-local --local-pool max --pool gem", "--pool gem: protocol digits-local pins avg"),
        ("cifar10-local --local-pool max", "cifar10-local needs --data folder:PATH"),
        ("cifar10-local --local-pool max --data digits", "--data digits: protocol cifar10-local pins folder:PATH"),
        ("digits-headz --pool max", "there is no protocol 'digits-headz'"),
        ("digits-heads --pool maxx", "maxx"),
    ],
)
def test_what_contradicts_it_is_refused_in_one_line(poolzoo, tmp_path, words, message):
    done = poolzoo("compare", "--protocol", *words.split(), "--out", tmp_path / "c")
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 2
    assert not (tmp_path / "c").exists()


def test_what_agrees_may_be_typed(poolzoo):
    words = ("digits-heads", "--pool", "avg,max", "--epochs", 5, "--seeds", 3, "--local-pool", "none", "--dry-run")
    done = poolzoo("compare", "--protocol", *words, "--json")
    assert done.code == 0, done.err
    assert [row["pool"] for row in done.json["rows"]] == ["avg", "max"]


def test_it_is_written_into_the_plan_the_table_and_every_run(honest):
    found = protocol.load(honest / "tiny.toml")
    folder = honest / "submission"
    plan = json.loads((folder / "plan.json").read_text())
    config = ComparisonConfig.from_json({key: value for key, value in plan.items() if key != "provenance"})
    assert config.settings.protocol == found.reference
    assert config.pools == "avg,mine"
    table = json.loads((folder / "compare.json").read_text())
    assert table["protocol"] == found.reference
    assert "protocol" not in table["settings"]
    assert found.reference in (folder / "report.html").read_text()
    assert tomllib.loads((folder / "protocol.toml").read_text()) == tomllib.loads(found.text)
    for pool in ("avg", "mine"):
        own = read_run_settings(run_of(folder, pool, 1))
        assert own.protocol == found.reference
        assert (own.epochs, own.lr, own.threads, own.seed) == (1, 0.005, 1, 1)


def test_other_data_is_refused_before_training(poolzoo, tmp_path, photos):
    text = tiny_protocol(source='"folder:"', data_cache='"decoded"')
    (tmp_path / "p.toml").write_text(text)
    words = ("--protocol", tmp_path / "p.toml", "--pool", "max", "--data", f"folder:{photos}", "--out", tmp_path / "c")
    done = poolzoo("compare", *words)
    assert done.code == 1
    assert "the data is not that of protocol digits-tiny: the classes are blue, red instead of 0, 1, 2" in done.err
    assert not (tmp_path / "c").exists()


def test_other_weights_are_refused_before_training(poolzoo, tmp_path):
    (tmp_path / "p.toml").write_text(tiny_protocol(backbone_sha256=f'"{"0" * 64}"'))
    done = poolzoo("compare", "--protocol", tmp_path / "p.toml", "--pool", "max", "--out", tmp_path / "c")
    assert done.code == 1
    assert "weights of nano/resnet with sha256 c2f857a86680… are not those of protocol digits-tiny" in done.err
    assert not (tmp_path / "c").exists()


def test_other_versions_are_refused_or_unofficial(poolzoo, tmp_path):
    (tmp_path / "p.toml").write_text(tiny_protocol(torch='{ required = "<2", reference = "1.9.0" }'))
    words = ("compare", "--protocol", tmp_path / "p.toml", "--pool", "max", "--dry-run")
    done = poolzoo(*words)
    assert done.code == 4
    assert re.search(r"protocol digits-tiny does not allow it: torch 2\.\S+ is not <2", done.err)
    done = poolzoo(*words, "--protocol-versions", "any")
    assert done.code == 0
    assert re.search(r"warning: the result is unofficial: torch 2\.\S+ is not <2", done.err)


@pytest.mark.parametrize(("release", "is_allowed"), [(__version__, True), ("0.1.7", True), ("0.2.0", False)])
def test_a_release_that_trains_as_the_pinned_one_is_allowed(release, is_allowed):
    for name in protocol_names():
        pinned = protocol.find(name)
        found = {package: allowed.reference for package, allowed in pinned.versions.items()}
        refused, _ = pinning.version_problems(pinned, {**found, "poolzoo": release})
        assert (refused == []) == is_allowed, name


def test_the_switch_of_versions_needs_a_protocol(poolzoo):
    done = poolzoo("compare", "--data", "digits", "--protocol-versions", "any", "--dry-run")
    assert done.code == 2
    assert "--protocol-versions is for --protocol" in done.err


# --- How data differs ----------------------------------------------------------------------------------------------


def split(pixels, labels):
    return SplitIdentity(np.array(pixels, np.uint8).reshape(-1, 1), np.array(labels, np.int64))


def test_differences_of_data_are_named():
    whole = {"train": split([1, 2, 3], [0, 1, 0]), "test": split([4, 5], [0, 1])}
    digests = {name: pinning.split_digest(one) for name, one in whole.items()}
    wanted = protocol.ProtocolData("d", "", (1, 1), ("a", "b"), 0.1, digests["train"], digests["test"])
    cases = {
        "the classes are in another order: b, a instead of a, b": DataIdentity(whole, ("b", "a")),
        "the classes are a, c instead of a, b": DataIdentity(whole, ("a", "c")),
        "test is missing": DataIdentity({"train": whole["train"]}, ("a", "b")),
        "test has 1 images instead of 2": DataIdentity({**whole, "test": split([4], [0])}, ("a", "b")),
        "labels of test differ, in content or in order": DataIdentity(
            {**whole, "test": split([4, 5], [1, 0])}, ("a", "b")
        ),
        "pixels and labels of test differ, in content or in order": DataIdentity(
            {**whole, "test": split([5, 4], [1, 0])}, ("a", "b")
        ),
    }
    for text, found in cases.items():
        assert pinning.differing_data(wanted, found) == [text]
    assert pinning.differing_data(wanted, DataIdentity(whole, ("a", "b"))) == []
