"""Many problems are few lines: of one plugin, of many plugins, of a plugin that fails again and again."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path

import pytest

from poolzoo.cli import environment
from poolzoo.common.errors import UsageError
from poolzoo.plugin import catalog as catalogs
from poolzoo.plugin import loader
from poolzoo.testing import selection
from poolzoo.testing.plugin_check import check_plugin

HEAD = "from poolzoo import Backbone, BackboneFamily, Dataset, Pooling, hookimpl\n"
HOOK = HEAD + "@hookimpl\ndef poolzoo_poolings():\n"
POOL = (
    HEAD
    + """
def build(channels):
    from torch import nn
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

@hookimpl
def poolzoo_poolings():
    yield Pooling(name="{name}", summary="", kind="global", build=build)
"""
)


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def install(site: Path, dist: str, entry: str) -> None:
    info = site / f"{dist}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[poolzoo]\n{entry}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder whose distributions count as installed; the user's own list of disabled plugins is another one."""
    monkeypatch.setenv("POOLZOO_CONFIG", str(tmp_path / "config"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


# --- One plugin ----------------------------------------------------------------------------------------------------


def test_a_thousand_bad_items_are_one_line_on_stderr(poolzoo, tmp_path):
    path = write(tmp_path, "thousand", HOOK + "    yield from range(1000)")
    outcome = poolzoo("list", "--plugin", path)
    (line,) = outcome.err.splitlines()
    assert "gave int 0; poolzoo_poolings gave int 1; poolzoo_poolings gave int 2 and 997 more" in line
    assert len(line) < 1700
    for arguments in (("plugin", "list", "--json"), ("plugin", "check", path, "--json")):
        found = poolzoo(*arguments, *(() if path in arguments else ("--plugin", path)))
        problems = found.json["problems"] if "check" in arguments else found.json["plugins"][-1]["problems"]
        assert len({problem["error"] for problem in problems}) == 1000
        assert found.err == ""
    assert len(poolzoo("plugin", "check", path).err.splitlines()) == 2  # the error and its hint


@pytest.mark.parametrize(
    "text",
    [
        "raise ValueError('x' * 10_000_000)",
        "class E(Exception):\n    def __str__(self): raise E\nraise E",
        HEAD + "import warnings\nwarnings.simplefilter('always')\nfor i in range(1000): warnings.warn(f'number {i}')\n",
        HOOK + "    yield Pooling(name='x', summary='s' * 5_000_000, kind='global', build='math:sin')",
        HOOK + "    for i in range(500):\n        yield 'y' * 100_000\n    raise OSError('z' * 1_000_000)",
    ],
)
def test_texts_without_end_are_cut(poolzoo, tmp_path, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the command line does
        outcome = poolzoo("list", "--plugin", write(tmp_path, "endless", text))
    assert outcome.code == 0
    assert len(outcome.err.splitlines()) <= 1
    assert len(outcome.err) < 1700
    assert len(outcome.out) < 12_000


def test_an_event_that_always_fails_is_reported_once_with_count(capsys, tmp_path):
    text = (
        HEAD + "class E(BaseException): pass\n@hookimpl\ndef poolzoo_epoch_finished(epoch):\n    raise E(f'at {epoch}')"
    )
    catalog = loader.load_plugins(write(tmp_path, "listener", text), installed=False)
    for epoch in range(1, 1001):
        catalog.emit("poolzoo_epoch_finished", run={}, epoch=epoch, metrics={})
    catalog.report_failures()
    catalog.report_failures()
    first, last = capsys.readouterr().err.splitlines()
    assert "E: at 1 (hint: the run goes on without it" in first
    assert last == "warning: plugin listener failed at poolzoo_epoch_finished 1,000 times in all"
    assert len(catalog.problems) == 1


FAMILY = (
    HEAD
    + """
def names():
{names}

def get(name):
    raise KeyError(name)

@hookimpl
def poolzoo_backbones():
    yield BackboneFamily(prefix="many", names=names, get=get)
"""
)


def test_the_names_of_a_family_have_an_end(poolzoo, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogs, "MAX_NAMES", 100)
    text = FAMILY.format(names="    import itertools\n    return (f'net{i}' for i in itertools.count())")
    path = write(tmp_path, "many", text)
    listed = poolzoo("list", "backbones", "--filter", "many/*", "--plugin", path)
    assert listed.out.count("\n") == 101
    assert "more than 100 names" in listed.err
    with pytest.raises(UsageError) as caught:
        loader.load_plugins(path, installed=False).backbone("many/nett7")
    assert "did you mean many/net7" in caught.value.hint


@pytest.mark.parametrize(
    "names", ["    raise ValueError('boo')", "    return 5", "    yield 'a'\n    raise SystemExit(0)"]
)
def test_names_that_raise_are_one_line(poolzoo, tmp_path, names):
    path = write(tmp_path, "many", FAMILY.format(names=names))
    for arguments in (("list", "backbones", "--filter", "many/*"), ("show", "many/x")):
        outcome = poolzoo(*arguments, "--plugin", path)
        assert outcome.code == 1
        assert "error: family many/* (many) failed: " in outcome.err
        assert len(outcome.err.splitlines()) == 2


# --- Many plugins --------------------------------------------------------------------------------------------------


def test_of_many_broken_plugins_a_few_are_named(poolzoo, tmp_path):
    for number in range(56):
        write(tmp_path / "broken", f"b{number:02}", HOOK + "    raise ValueError('x' * 9000)")
    outcome = poolzoo("list", "--plugins-dir", tmp_path / "broken")
    lines = outcome.err.splitlines()
    assert [line.split()[2] for line in lines[:5]] == [f"b{number:02}" for number in range(5)]
    assert lines[5:] == ["warning: and 51 more: poolzoo plugin list --load"]
    assert len(outcome.err) < 6000
    rows = poolzoo("plugin", "list", "--load", "--json", "--plugins-dir", tmp_path / "broken").json["plugins"]
    assert sum(len(row["problems"]) for row in rows) == 56
    unknown = poolzoo("show", "mine", "--plugins-dir", tmp_path / "broken").err
    assert "b00 did not load" in unknown
    assert "and 51 more" in unknown
    assert len(unknown) < 9000


def test_ten_broken_plugins_are_ten_lines(poolzoo, tmp_path):
    for number in range(10):
        write(tmp_path / "ten", f"b{number}", "import os\nos.chdir('/')\n1 / 0")
    lines = poolzoo("list", "--plugins-dir", tmp_path / "ten").err.splitlines()
    assert len(lines) == 10
    for number, line in enumerate(lines):
        assert f"poolzoo plugin disable b{number} --plugins-dir" in line


def test_each_broken_plugin_names_the_way_out_and_it_works(poolzoo, site, tmp_path):
    for number in range(3):
        install(site, f"dist{number}", f"plug-{number} = broken_{number}")
        write(site, f"broken_{number}", f"import os\nos.chdir('/')\nraise ValueError({number})")
    write(tmp_path / "folder", "in a folder", "1 / 0")
    outcome = poolzoo("list", "--plugins-dir", tmp_path / "folder")
    lines = outcome.err.splitlines()
    assert len(lines) == 4  # one a plugin, though each has failed twice
    for line in lines:
        typed = line.partition("poolzoo plugin disable ")[2].partition(")")[0]
        assert typed, line
        assert poolzoo("plugin", "disable", *shlex.split(typed)).code == 0
    assert poolzoo("list", "--plugins-dir", tmp_path / "folder").err == ""


def test_the_hint_for_a_named_file_is_to_omit_it(poolzoo, tmp_path):
    path = write(tmp_path, "torn", "1 / 0")
    assert f"or leave --plugin {path} out" in poolzoo("list", "--plugin", path).err


KINDS = {
    "fine": (POOL.format(name="mine"), False),
    "empty": ("x = 1", True),
    "torn": ("1 / 0", True),
    "shadows": (POOL.format(name="gem"), False),
    "twice": (POOL.format(name="a") + POOL.format(name="a").partition("@hookimpl")[2].partition(":\n")[2], True),
    "moves": (POOL.format(name="b") + "\nimport os\nos.chdir('/')", True),
    "items": (HOOK + "    yield 1", True),
    "nowhere": (HOOK + "    yield Pooling(name='n', summary='', kind='global', build='no_such:X')", True),
    "newer": ("POOLZOO_API = 2", True),
}


@pytest.mark.parametrize("name", KINDS)
def test_doctor_and_check_agree_on_what_is_broken(tmp_path, name):
    text, broken = KINDS[name]
    path = write(tmp_path, name, text)
    one_each = selection.parse("shapes or names_and_get or images_are_arrays")  # whether all hold is another question
    checked = check_plugin(str(path), select=one_each)
    loader.forget()
    loader.settings.files, loader.settings.installed = [path], False
    (found,) = [one for one in environment.plugin_findings() if one.what == f"plugin {name}"]
    assert (found.state == "wrong", not checked.passed) == (broken, broken)


def test_traceback_only_for_those_who_ask(poolzoo, tmp_path, monkeypatch):
    path = write(tmp_path, "torn", "1 / 0")
    assert "Traceback" not in poolzoo("list", "--plugin", path).err
    monkeypatch.setenv("POOLZOO_DEBUG", "1")
    assert "Traceback" in poolzoo("list", "--plugin", path).err


# --- The same plugin twice -----------------------------------------------------------------------------------------


def the_same(poolzoo, dist: str, twin: str, *arguments: object) -> None:
    """Both plugins are there, counted once, and no command has anything to say of it."""
    for command in (
        ("list", "--json"),
        ("list", "--json", "--strict"),
        ("show", f"{twin}:mine"),
        ("show", f"{dist}:mine"),
    ):
        outcome = poolzoo(*command, *arguments)
        assert (outcome.code, outcome.err) == (0, ""), command
    rows = poolzoo("list", "--json", *arguments).json["poolings"]
    assert [row["source"]["dist"] for row in rows if row["name"] == "mine"] == [dist]
    assert "the same module as" in str([one.detail for one in environment.plugin_findings()])
    assert poolzoo("list", *arguments, "-v").err.count("counts once") == 1


def test_a_module_behind_two_names_counts_once(poolzoo, site):
    write(site, "renamed_pool", POOL.format(name="mine"))
    install(site, "new_name", "new = renamed_pool")
    install(site, "old_name", "old = renamed_pool")
    the_same(poolzoo, "new_name", "old_name")
    listed = {row["name"]: row["status"] for row in poolzoo("plugin", "list", "--json").json["plugins"]}
    assert (listed["new"], listed["old"]) == ("enabled", "the same module as new_name's")
    assert poolzoo("plugin", "disable", "new").code == 0
    assert "old_name" in poolzoo("list").out  # the other one is loaded then


def test_a_broken_module_behind_two_names_is_one_line(poolzoo, site):
    write(site, "broken_pool", "1 / 0")
    install(site, "new_name", "plugin = broken_pool")
    install(site, "old_name", "plugin = broken_pool")
    assert len(poolzoo("list").err.splitlines()) == 1


def test_a_plugin_object_registered_twice_counts_once(poolzoo, site):
    write(site / "repeats", "hooks", POOL.format(name="mine"))
    write(site / "repeats", "__init__", "from repeats.hooks import poolzoo_poolings")
    install(site, "module", "module = repeats.hooks")
    install(site, "package", "package = repeats")
    the_same(poolzoo, "module", "package")


def test_a_hook_that_a_package_repeats_beside_its_own_counts_once(poolzoo, site):
    write(site / "adds", "hooks", POOL.format(name="mine"))
    own = HEAD + "from adds.hooks import poolzoo_poolings\n@hookimpl\ndef poolzoo_datasets():\n    return []\n"
    write(site / "adds", "__init__", own)
    install(site, "module", "module = adds.hooks")
    install(site, "package", "package = adds")
    rows = poolzoo("list", "--json").json
    assert len([row for row in rows["poolings"] if row["name"] == "mine"]) == 1
    assert rows["problems"] == []


def test_an_object_with_methods_counts_once(poolzoo, site):
    text = HEAD + "class Plugin:\n    @hookimpl\n    def poolzoo_poolings(self):\n"
    text += "        yield Pooling(name='mine', summary='', kind='global', build='math:sin')\n"
    text += "plugin = Plugin()\nagain = plugin\n"
    write(site, "objects_pool", text)
    install(site, "first", "first = objects_pool:plugin")
    install(site, "second", "second = objects_pool:again")
    rows = poolzoo("list", "--json").json
    assert [row["source"]["dist"] for row in rows["poolings"] if row["name"] == "mine"] == ["first"]
    assert rows["problems"] == []


def test_a_file_that_is_named_and_installed_counts_once(poolzoo, site, tmp_path):
    path = write(site, "filed_pool", POOL.format(name="mine"))
    install(site, "installed", "installed = filed_pool")
    link = tmp_path / "link.py"
    link.symlink_to(path)
    the_same(poolzoo, "filed_pool", "installed", "--plugin", path, "--plugin", path, "--plugin", site / "." / path.name)
    outcome = poolzoo("list", "--plugin", path, "--plugin", link, "--strict")
    assert (outcome.code, outcome.err) == (0, "")


def test_a_damaged_package_does_not_hide_the_others(poolzoo, site):
    write(site, "good_pool", POOL.format(name="mine"))
    install(site, "good", "good = good_pool")
    install(site, "bad", "bad = x")
    (site / "bad-1.0.dist-info" / "entry_points.txt").write_bytes(b"[poolzoo]\nbad = \xff\xfe\n")
    outcome = poolzoo("list")
    assert outcome.code == 0
    assert "mine\t" in outcome.out
