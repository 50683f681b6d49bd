"""The fixture `poolzoo_project`: a temporary project whose tests see nothing of each other."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import poolzoo as package
from poolzoo.testing import CommandResult

pytest_plugins = ["pytester", "poolzoo.testing.plugin"]
MEAN = """
    from poolzoo import Pooling, hookimpl

    def build(channels):
        from torch import nn

        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    @hookimpl
    def poolzoo_poolings():
        yield Pooling(name="{name}", summary="", kind="global", build=build, parameter_free=True)
"""
# A second name of the three kinds of items that are not poolings, of the ones that are built in.
OTHER_KINDS = """
    from poolzoo import Backbone, Dataset, DatasetSource, Runtime, UsageError, hookimpl

    def load(split, cache_dir):
        from poolzoo.datasets.digits import load
        return load(split)

    def network(*, pretrained=False):
        from torch import nn
        return nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), nn.ReLU())

    def open_place(place, *, splits, multilabel):
        if place != "ours":
            raise UsageError(f"there is no {place}", "ours")
        return Dataset(name="ours", summary="", load=load, classes=tuple(map(str, range(10))))

    @hookimpl
    def poolzoo_backbones():
        yield Backbone(name="my-net", summary="", build=network)

    @hookimpl
    def poolzoo_datasets():
        yield Dataset(name="my-data", summary="", load=load, classes=tuple(map(str, range(10))))
        yield DatasetSource(prefix="mine", summary="", open=open_place, example="mine:ours", is_path=False)

    @hookimpl
    def poolzoo_runtimes():
        yield Runtime(name="my-runtime", summary="", open="poolzoo.runtime.builtin.ort:open_session")
"""


def poolings(project) -> set[str]:
    return {row["name"] for row in project.run("list", "poolings", "--json").assert_ok().json["poolings"]}


@pytest.mark.parametrize(("mine", "other"), [("first", "second"), ("second", "first")])
def test_each_test_has_only_its_own_plugins(poolzoo_project, mine, other):
    poolzoo_project.write_plugin("mine", MEAN.format(name=mine))
    assert mine in poolings(poolzoo_project)
    assert other not in poolings(poolzoo_project)
    assert package.create_pooling(mine, channels=4)  # from Python it is the same


def test_a_plugin_may_be_written_again(poolzoo_project):
    poolzoo_project.write_plugin("mine", MEAN.format(name="old"))
    assert "old" in poolings(poolzoo_project)
    poolzoo_project.write_plugin("mine", MEAN.format(name="new"))
    assert {"old", "new"} & poolings(poolzoo_project) == {"new"}
    with pytest.raises(ValueError, match="use letters"):
        poolzoo_project.write_plugin("my-plugin", "")


def test_a_process_of_its_own_gives_the_same(poolzoo_project):
    poolzoo_project.write_plugin("mine", MEAN.format(name="mine"))
    arguments = ("list", "poolings")
    there = poolzoo_project.run(*arguments, in_process=False).assert_ok()
    assert there == poolzoo_project.run(*arguments)
    assert any(line.startswith("mine\t") for line in there.lines)


def test_a_process_that_takes_too_long_is_ended(poolzoo_project):
    poolzoo_project.write_plugin("slow", "import time\ntime.sleep(600)")
    result = poolzoo_project.run("list", in_process=False, timeout=0.5)
    assert result.exit_code < 0
    assert "did not end within 0.5 seconds" in result.stderr


def test_an_error_is_a_message_a_hint_and_a_code(poolzoo_project):
    result = poolzoo_project.run("plugin", "enable", "nobody").assert_exit(2, "nobody")
    assert (result.error, result.hint) == ("'nobody' is not disabled", "no plugin is disabled")
    with pytest.raises(
        AssertionError, match=r"exit code 2 instead of 0 of poolzoo plugin enable nobody\n(.*\n)*error: "
    ):
        result.assert_ok()
    with pytest.raises(AssertionError, match="no 'zebra' in stderr"):
        result.assert_exit(2, "zebra")
    with pytest.raises(AssertionError, match="stdout is no JSON"):
        assert result.json


def test_the_project_has_its_own_environment(poolzoo_project):
    assert os.getcwd() == str(poolzoo_project.path)
    for name in ("POOLZOO_CACHE", "POOLZOO_CONFIG", "POOLZOO_PLUGINS_DIR"):
        assert os.environ[name].startswith(str(poolzoo_project.path.parent))
    poolzoo_project.write_plugin("mine", MEAN.format(name="mine"))
    poolzoo_project.run("plugin", "disable", "mine").assert_ok()
    assert "mine" not in poolings(poolzoo_project)
    poolzoo_project.run("plugin", "enable", "mine").assert_ok()
    poolzoo_project.setenv("POOLZOO_PLUGINS", "another")
    assert "mine" not in poolings(poolzoo_project)


def test_a_command_leaves_the_process_as_it_was(poolzoo_project, monkeypatch):
    monkeypatch.setenv("SOME_VARIABLE", "before")
    poolzoo_project.write_plugin(
        "greedy",
        """
        import os, sys, warnings
        os.environ["SOME_VARIABLE"] = "after"
        os.environ["POOLZOO_DEBUG"] = "1"
        sys.path.append("/nowhere")
        warnings.simplefilter("error")
        """,
    )
    poolzoo_project.run("list", "poolings", "-q")
    assert os.environ["SOME_VARIABLE"] == "before"
    assert "POOLZOO_DEBUG" not in os.environ
    assert "/nowhere" not in sys.path


@pytest.mark.parametrize("multilabel", [False, True])
def test_tiny_images_are_those_that_were_asked_for(poolzoo_project, multilabel):
    from poolzoo.data import source

    folder = poolzoo_project.image_folder(classes=("a", "b"), train=3, test=2, size=8)
    paths = sorted((poolzoo_project.path / "images").rglob("*.png"))
    assert len(paths) == 10
    colors = {
        label: np.mean([np.array(Image.open(p)) for p in paths if p.parent.name == label], (0, 1, 2)) for label in "ab"
    }
    assert abs(colors["a"] - colors["b"]).max() > 100
    table = poolzoo_project.image_table(classes=("a", "b"), train=3, test=2, size=8, multilabel=multilabel)
    lines = (poolzoo_project.path / "table" / "images.csv").read_text().splitlines()
    assert len(lines) == 11
    assert sum(";" in line for line in lines) == (4 if multilabel else 0)
    assert [source.with_absolute_path(data) for data in (folder, table)] == [folder, table]


def test_a_result_shows_its_command():
    assert "poolzoo list 'a b'" in str(CommandResult(("list", "a b"), 0, "", ""))


LEAKS = """
    import os, random
    import pytest

    @pytest.fixture(autouse=True)
    def _around(monkeypatch, tmp_path):
        monkeypatch.setenv("SOME_VARIABLE", "patched")
        monkeypatch.syspath_prepend(tmp_path)

    @pytest.mark.parametrize("number", [1, 2])
    def test_clean(poolzoo_project, monkeypatch, number):
        monkeypatch.chdir("/")
        monkeypatch.setenv("HOME", "/")
        random.random()
        poolzoo_project.run("list", "protocols").assert_ok()

    def test_leaks_a_directory(poolzoo_project):
        os.chdir("/")  # which the fixture restores
        os.environ["HOME"] = "/nowhere"

    def test_sees_nothing_of_it(poolzoo_project):
        assert os.environ["HOME"] != "/nowhere"

    def test_may_do_what_it_wants():
        os.environ["HOME"] = "/elsewhere"
"""


def test_a_test_that_leaves_state_behind_fails(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("HOME", str(pytester.path))
    pytester.makeini("[pytest]\nfilterwarnings = error")
    pytester.makepyfile(LEAKS)
    result = pytester.runpytest_inprocess("-p", "poolzoo.testing.plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=5, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaks_a_directory*", "the test leaves $HOME changed*"])


@pytest.mark.slow
def test_the_fixture_works_under_xdist(pytester):
    pytest.importorskip("xdist")
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers")
    pytester.makeconftest('pytest_plugins = ["poolzoo.testing.plugin"]')
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(poolzoo_project, number):
            poolzoo_project.write("data/x.txt", "x")
            assert poolzoo_project.run("list", "protocols").assert_ok().lines
        """
    )
    result = pytester.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4)


@pytest.mark.slow
def test_the_tests_in_the_documents_pass(pytester):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "release-plugin.md").read_text()
    (code,) = re.findall(r"```python\n(# tests/test_in_a_project\.py\n.*?)```", page, re.DOTALL)
    pytester.makeini("[pytest]\nfilterwarnings = error")
    pytester.makeconftest('pytest_plugins = ["poolzoo.testing.plugin"]')
    pytester.makepyfile(code)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=4)


@pytest.mark.slow
def test_every_kind_of_plugin_works_in_a_project(poolzoo_project):
    poolzoo_project.write_plugin("mean", MEAN.format(name="mine"))
    poolzoo_project.write_plugin("others", OTHER_KINDS)
    report = poolzoo_project.finetune(pool="mine", backbone="my-net", data="my-data", out="run")
    assert report.path == poolzoo_project.path / "run"
    assert 0 <= report.test.accuracy <= 1
    exported = poolzoo_project.export("run", precision="fp32")
    assert exported.parity.outputs.top1_agreement == 1
    poolzoo_project.run("verify", exported.bundle, "--runtime", "my-runtime").assert_ok()
    poolzoo_project.run("verify", poolzoo_project.tiny_bundle(), "--runtime", "my-runtime").assert_ok()
    assert poolzoo_project.finetune(data="mine:ours").test.n > 0
    table = poolzoo_project.image_table(multilabel=True)
    assert poolzoo_project.finetune(data=table, task="multilabel", limit=None, epochs=2).path.is_dir()
    with pytest.raises(TypeError, match="epoch_count"):
        poolzoo_project.finetune(epoch_count=3)
