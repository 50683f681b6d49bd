"""`poolzoo plugin`: writing, checking, listing, disabling and enabling."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolzoo.plugin import loader, spec

KINDS = ("pooling", "backbone", "dataset", "runtime")
TRAP = "raise SystemExit('it ran')\n"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLZOO_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A broken package that counts as installed: importing it, or its parent, ends the process."""
    site = tmp_path / "site"
    info = site / "Broken_Pool-2.1.dist-info"
    (site / "broken").mkdir(parents=True)
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Broken-Pool\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text("[poolzoo]\nbroken = broken.hooks\n")
    (site / "broken" / "__init__.py").write_text(TRAP)
    (site / "broken" / "hooks.py").write_text(
        TRAP + "from poolzoo import hookimpl\n@hookimpl\ndef poolzoo_poolings():\n    return []\n"
    )
    monkeypatch.syspath_prepend(site)
    return site


def row(outcome, name):
    return next(one for one in outcome.json["plugins"] if one["name"] == name)


def test_list_tells_all_without_running_any(poolzoo, installed, tmp_path, config):
    sources = {
        "fine": TRAP + "import poolzoo\n@poolzoo.hookimpl(tryfirst=True)\ndef poolzoo_datasets():\n    return []\n",
        "torn": "def (",
        "newer": TRAP + "POOLZOO_API = 2\n",
        "misspelt": TRAP + "from poolzoo import hookimpl\n@hookimpl\ndef poolzoo_datesets():\n    return []\n",
    }
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text)
    outcome = poolzoo("plugin", "list", "--plugins-dir", folder, "--json")
    assert outcome.code == 0
    broken = row(outcome, "broken")
    assert (broken["version"], broken["source"]["dist"], broken["hooks"]) == (
        "2.1",
        "Broken-Pool",
        ["poolzoo_poolings"],
    )
    assert (broken["status"], broken["problem"]) == ("enabled", None)
    assert row(outcome, "fine")["hooks"] == ["poolzoo_datasets"]
    assert "not Python" in row(outcome, "torn")["problem"]
    assert "version 2" in row(outcome, "newer")["problem"]
    assert "poolzoo_datasets" in row(outcome, "misspelt")["problem"]
    assert row(outcome, "poolzoo.poolings")["source"]["tier"] == "built-in"
    assert "Broken-Pool 2.1" in poolzoo("plugin", "list").out


def test_disable_and_enable_survive_whatever_the_plugin_does(poolzoo, installed, config):
    assert "it ran" in poolzoo("list").err
    for name in ("Broken-Pool", "broken_pool", "broken"):
        assert poolzoo("plugin", "disable", name).code == 0
        assert poolzoo("list").err == ""
        assert row(poolzoo("plugin", "list", "--json"), "broken")["status"] == "disabled"
        assert poolzoo("plugin", "enable", name).code == 0
        assert "it ran" in poolzoo("list").err


def test_disable_and_enable_refuse_what_makes_no_sense(poolzoo, config):
    for arguments, word in (
        (("disable", "nobody"), "nobody"),
        (("disable", "poolzoo"), "built in"),
        (("enable", "nobody"), "not disabled"),
    ):
        outcome = poolzoo("plugin", *arguments)
        assert outcome.code == 2
        assert word in outcome.err
        assert "hint:" in outcome.err


def test_a_damaged_list_of_disabled_plugins_is_a_warning(poolzoo, config):
    config.mkdir()
    (config / "disabled.json").write_text("{")
    outcome = poolzoo("list")
    assert outcome.code == 0
    assert "disabled.json" in outcome.err


def test_the_environment_says_which_plugins_are_let_in(poolzoo, installed, monkeypatch, tmp_path):
    monkeypatch.setenv("POOLZOO_PLUGINS", "")
    assert poolzoo("list").err == ""
    assert row(poolzoo("plugin", "list", "--json"), "broken")["status"] == "not in POOLZOO_PLUGINS"
    monkeypatch.setenv("POOLZOO_PLUGINS", "other, broken-pool")
    assert "it ran" in poolzoo("list").err
    (tmp_path / "named.py").write_text("1 / 0")
    monkeypatch.setenv("POOLZOO_PLUGINS", "")
    assert "ZeroDivisionError" in poolzoo("list", "--plugin", tmp_path / "named.py").err  # named is wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_file_passes_its_checks(poolzoo, tmp_path, kind):
    outcome = poolzoo("plugin", "new", f"my-{kind}", "--kind", kind, "--single-file", "--dir", tmp_path)
    path = Path(outcome.out.strip())
    assert path == tmp_path / f"my_{kind}.py"
    checked = poolzoo("plugin", "check", path, "--json")
    assert checked.code == 0, checked.json
    assert checked.json["passed"]
    (item,) = checked.json["items"]
    assert item["name"] == f"my-{kind}"
    assert all(check["passed"] for check in item["checks"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_complete_python(poolzoo, tmp_path, kind):
    package = Path(poolzoo("plugin", "new", f"a-{kind}", "--kind", kind, "--dir", tmp_path).out.strip())
    files = {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()}
    assert {"pyproject.toml", "README.md", f"src/a_{kind}/__init__.py", f"tests/test_a_{kind}.py"} <= files
    assert {"LICENSE", ".gitignore", "tests/conftest.py", ".github/workflows/test.yml"} <= files
    for path in package.rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
        assert "$" not in path.read_text()


def test_new_refuses_bad_names_and_never_overwrites(poolzoo, tmp_path):
    for name in ("My-Pool", "my_pool", "-x", "a" * 80, "1st"):
        outcome = poolzoo("plugin", "new", "--dir", tmp_path, "--", name)
        assert outcome.code == 2, name
        assert "hint:" in outcome.err
    (tmp_path / "mine.py").write_text("precious")
    assert poolzoo("plugin", "new", "mine", "--single-file", "--dir", tmp_path).code == 2
    assert (tmp_path / "mine.py").read_text() == "precious"
    poolzoo("plugin", "new", "mine", "--dir", tmp_path)
    assert poolzoo("plugin", "new", "mine", "--dir", tmp_path).code == 2


def test_check_says_what_was_found_and_how_to_fix_it(poolzoo, tmp_path):
    (tmp_path / "leaky.py").write_text(
        "from poolzoo import Pooling, hookimpl\n"
        "def build(channels):\n"
        "    from torch import nn\n"
        "    class Leaky(nn.Module):\n"
        "        def forward(self, x):\n"
        "            return x.mean((2, 3)) - x.mean()\n"
        "    return Leaky()\n"
        "@hookimpl\n"
        "def poolzoo_poolings():\n"
        "    yield Pooling(name='leaky', summary='', kind='global', build=build)\n"
    )
    outcome = poolzoo("plugin", "check", tmp_path / "leaky.py", "--json")
    assert outcome.code == 1
    failed = [check for check in outcome.json["items"][0]["checks"] if not check["passed"]]
    assert [check["check"] for check in failed] == ["images_are_independent"]
    assert "differs by" in failed[0]["found"]
    assert "other images of the batch" in failed[0]["expected"]
    assert "dimension 0" in failed[0]["hint"]
    said = poolzoo("plugin", "check", tmp_path / "leaky.py")
    assert said.code == 1
    assert "hint: reduce over channels" in said.err


def test_check_reports_what_does_not_load_and_what_offers_nothing(poolzoo, tmp_path):
    (tmp_path / "torn.py").write_text("1 / 0")
    outcome = poolzoo("plugin", "check", tmp_path / "torn.py", "--json")
    assert (outcome.code, outcome.json["problems"][0]["stage"]) == (1, "import")
    (tmp_path / "empty.py").write_text("x = 1")
    outcome = poolzoo("plugin", "check", tmp_path / "empty.py")
    assert outcome.code == 1
    assert "hookimpl" in outcome.err
    assert poolzoo("plugin", "check", tmp_path / "absent.py").code == 2
    assert poolzoo("plugin", "check", "absent").code == 2


def test_a_plugin_that_only_listens_has_nothing_to_check(poolzoo, tmp_path):
    (tmp_path / "listens.py").write_text(
        "from poolzoo import hookimpl\n\n@hookimpl\ndef poolzoo_epoch_finished(epoch):\n    pass\n"
    )
    outcome = poolzoo("plugin", "check", tmp_path / "listens.py")
    assert outcome.code == 0
    assert "it provides no item with promises to check" in outcome.err


BAD_DATASETS = {
    "float images": ("np.zeros((4, 8, 8, 3))", "np.arange(4) % 2", "images_are_arrays"),
    "gray images": ("np.zeros((4, 8, 8), np.uint8)", "np.arange(4) % 2", "images_are_arrays"),
    "too few labels": ("np.zeros((4, 8, 8, 3), np.uint8)", "np.arange(3) % 2", "images_are_arrays"),
    "a label without a name": ("np.zeros((4, 8, 8, 3), np.uint8)", "np.arange(4)", "labels_are_classes"),
    "a class without images": ("np.zeros((4, 8, 8, 3), np.uint8)", "np.zeros(4, np.int64)", "labels_are_classes"),
    "other images each time": (
        "np.random.randint(0, 255, (4, 8, 8, 3)).astype(np.uint8)", "np.arange(4) % 2", "loading_is_repeatable",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BAD_DATASETS)
def test_the_kit_finds_what_is_wrong_with_a_data_set(mistake):
    import numpy as np

    from poolzoo import testing

    images, labels, check = BAD_DATASETS[mistake]

    def load(split, cache_dir):
        return eval(images, {"np": np}), eval(labels, {"np": np})

    failures = testing.check_dataset(spec.Dataset(name="bad", summary="", load=load, classes=("a", "b")))
    assert check in {failure.check for failure in failures}


def test_the_kit_finds_what_is_wrong_with_a_backbone():
    import torch
    from torch import nn

    from poolzoo import testing

    class Bad(nn.Module):
        def __init__(self, mistake):
            super().__init__()
            self.conv, self.mistake = nn.Conv2d(3, 8, 3, padding=1), mistake
            self.unused = nn.Parameter(torch.ones(3)) if mistake == "unused" else None
            self.table = torch.randn(8, 1, 1)

        def forward(self, x):
            y = self.conv(x)
            return {
                "vector": lambda: y.mean((1, 2, 3)),
                "neighbors": lambda: y - y.mean(),
                "dropout": lambda: nn.functional.dropout(y),
                "unused": lambda: y,
                "cpu": lambda: y * self.table,
                "branch": lambda: y if y.sum() > 0 else -y,
            }[self.mistake]()

    for mistake, check in (
        ("vector", "features_are_a_map"),
        ("neighbors", "images_are_independent"),
        ("dropout", "eval_is_deterministic"),
        ("unused", "gradients_reach_everything"),
        ("cpu", "nothing_stays_on_the_cpu"),
        ("cpu", "weights_survive_a_file"),
        ("branch", "exports_as_it_is"),
    ):
        backbone = spec.Backbone(
            name="bad", summary="", build=lambda *, pretrained=False, mistake=mistake: Bad(mistake), input_size=16
        )
        failures = testing.check_backbone(backbone)
        assert check in {failure.check for failure in failures}, (mistake, failures)


def test_our_own_backbones_and_data_keep_their_promises():
    from poolzoo import testing

    assert testing.check_backbone("nano/plain") == []
    assert testing.check_dataset("digits") == []


def test_the_published_plugins_are_found_by_their_names(tmp_path):
    """The folders under plugins/ are packages of their own, each with an entry point, a README and tests."""
    root = Path(__file__).parents[2] / "plugins"
    for package in sorted(root.glob("poolzoo-*")):
        text = (package / "pyproject.toml").read_text()
        assert "[project.entry-points.poolzoo]" in text
        assert (package / "README.md").is_file()
        assert list((package / "tests").glob("test_*.py"))
    assert loader.load_plugins(root / "single_file" / "power_mean.py", installed=False).problems == []
