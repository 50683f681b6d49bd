"""Plugins are found in one order without importing them; names exclude them; events reach them as copies."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pluggy
import pytest

from poolzoo.common.errors import UsageError
from poolzoo.plugin import disabled, discovery, spec
from poolzoo.plugin.discovery import Candidate
from poolzoo.plugin.events import Emitter
from poolzoo.plugin.problems import Problem, Source


def candidate(
    name: str, tier: str = "installed", dist: str = "", module: str = "", path: str | None = None
) -> Candidate:
    return Candidate(name, Source(dist or name, None, tier, path), load=lambda: None, module=module)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "plugins"
    place.mkdir()
    for name in ("zeta.py", "alpha.py", "_private.py", ".hidden.py", "notes.txt"):
        (place / name).write_text("raise RuntimeError('imported')")
    return place


def test_files_come_before_directories_and_the_built_in_first(folder, tmp_path):
    named = folder / "zeta.py"
    found = discovery.find([named], [folder], installed=False)
    ours = len(discovery.BUILT_IN)
    assert [one.source.tier for one in found[:ours]] == ["built-in"] * ours
    assert [(one.name, one.source.tier, one.where) for one in found[ours:]] == [
        ("zeta", "file", str(named)),
        ("alpha", "directory", str(folder / "alpha.py")),
    ]


@pytest.mark.parametrize(
    ("files", "directories", "message", "hint"),
    [
        (["a.py"], [], "plugin file {!r} does not exist", "give the path of a Python file"),
        ([], ["a.py"], "plugin directory {!r} does not exist", "give the path of a directory"),
    ],
    ids=["file", "directory"],
)
def test_a_place_that_is_not_there_is_one_line(tmp_path, files, directories, message, hint):
    paths = [[tmp_path / name for name in names] for names in (files, directories)]
    with pytest.raises(UsageError) as caught:
        discovery.find(*paths, installed=False)
    assert caught.value.message == message.format(str(tmp_path / "a.py"))
    assert caught.value.hint == hint


def test_the_file_of_a_module_is_found_without_importing_it(tmp_path, monkeypatch):
    inner = tmp_path / "planted_pkg" / "inner"
    inner.mkdir(parents=True)
    for path in (inner.parent / "__init__.py", inner / "__init__.py", inner / "leaf.py", tmp_path / "planted_one.py"):
        path.write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)

    def of(module: str) -> str | None:
        return discovery.source_file(candidate("x", module=module))

    assert of("planted_pkg") == str(inner.parent / "__init__.py")
    assert of("planted_pkg.inner:hooks") == str(inner / "__init__.py")
    assert of("planted_pkg.inner.leaf") == str(inner / "leaf.py")
    assert of("planted_one") == str(tmp_path / "planted_one.py")
    assert of("planted_pkg.absent") is None
    assert of("planted_one.leaf") is None
    assert of("no_such_package") is None
    assert of("") is None
    assert discovery.source_file(candidate("x", path="/plugins/x.py", module="planted_one")) == "/plugins/x.py"
    assert "planted_pkg" not in sys.modules


def test_one_object_under_two_names_is_a_duplicate(tmp_path, monkeypatch):
    (tmp_path / "planted_two.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    first, second, other, file = (
        candidate("new", module="planted_two:hooks"),
        candidate("old", module="planted_two:hooks"),
        candidate("more", module="planted_two:others"),
        candidate("planted_two", tier="file", path=str(tmp_path / "planted_two.py")),
    )
    absent = [candidate("a", module="nowhere"), candidate("b", module="nowhere")]
    found = discovery.duplicates([first, second, other, file, *absent])
    assert found == {second: first, absent[1]: absent[0]}


@pytest.mark.parametrize("name", ["acme-pools", "Acme_Pools", "acme.pools", "pools"])
def test_a_plugin_answers_to_its_distribution_and_its_own_name(name):
    assert candidate("pools", dist="acme-pools").answers_to(name)


@pytest.mark.parametrize("name", ["", "acme", "acme-pools-2"])
def test_a_plugin_does_not_answer_to_other_names(name):
    assert not candidate("pools", dist="acme-pools").answers_to(name)


def test_the_environment_and_the_user_exclude_plugins(monkeypatch):
    plugins = [
        candidate("pools", dist="acme"),
        candidate("beta"),
        candidate("named", "file"),
        candidate("ours", "built-in"),
    ]

    def admitted() -> list[str]:
        return [one.name for one in discovery.admitted(plugins)]

    assert admitted() == ["pools", "beta", "named", "ours"]
    disabled.write(["acme", "named", "ours"])
    assert disabled.read() == ["acme", "named", "ours"]
    assert admitted() == ["beta", "named", "ours"]
    assert [discovery.why_excluded(one, ["pools"]) for one in plugins] == ["disabled", "", "", ""]
    monkeypatch.setenv("POOLZOO_PLUGINS", " acme , gamma")
    assert admitted() == ["named", "ours"]
    assert discovery.why_excluded(plugins[1], []) == "not in POOLZOO_PLUGINS"
    monkeypatch.setenv("POOLZOO_PLUGINS", "gamma,beta")
    assert admitted() == ["beta", "named", "ours"]


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLZOO_CONFIG", str(tmp_path / "deep" / "config"))


def test_disabled_names_are_kept_sorted_and_once(tmp_path):
    assert disabled.read() == []
    disabled.write(["b", "a", "b"])
    path = tmp_path / "deep" / "config" / "disabled.json"
    assert disabled.path() == str(path)
    assert json.loads(path.read_text()) == ["a", "b"]
    assert path.read_text().endswith("]\n")
    disabled.write(["é", "of any bytes \udcff"])
    assert disabled.read() == ["of any bytes \udcff", "é"]


@pytest.mark.parametrize(
    ("text", "says"), [("{", "Expecting"), ('"a"', "it is not a list of names"), ("[1]", "it is not a list of names")]
)
def test_a_damaged_list_of_disabled_names_is_a_warning(capsys, text, says):
    disabled.write([])
    Path(disabled.path()).write_text(text)
    assert disabled.read() == []
    said = capsys.readouterr().err
    assert f"{disabled.path()} cannot be read: {says}" in said
    assert "(hint: delete it, or poolzoo plugin enable NAME)" in said


@pytest.mark.skipif(sys.platform != "linux", reason="the places of Linux")
@pytest.mark.parametrize(("given", "place"), [("/conf", "/conf"), ("conf", "~/.config"), ("", "~/.config")])
def test_configuration_lies_where_the_system_says(monkeypatch, given, place):
    monkeypatch.delenv("POOLZOO_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", given)
    assert disabled.path() == os.path.join(os.path.expanduser(place), "poolzoo", "disabled.json")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert disabled.path() == os.path.expanduser("~/.config/poolzoo/disabled.json")


class Listener:
    """Keeps what it gets, and spoils its copy."""

    def __init__(self) -> None:
        self.got: list[object] = []

    @spec.hookimpl
    def poolzoo_epoch_finished(self, metrics: dict[str, list[float]]) -> None:
        self.got.append({name: [*values] for name, values in metrics.items()})
        metrics["loss"].append(0.0)


class Failing:
    @spec.hookimpl
    def poolzoo_epoch_finished(self, epoch: int) -> None:
        print("noise of a plugin")
        raise SystemExit(f"at {epoch}")


def emitter(**plugins: object) -> tuple[Emitter, list[Problem]]:
    manager = pluggy.PluginManager("poolzoo")
    manager.add_hookspecs(spec)
    for name, plugin in plugins.items():
        manager.register(plugin, name)
    problems: list[Problem] = []
    return Emitter(manager, {name: Source(name, "1", "installed") for name in plugins}, problems), problems


def test_a_listener_gets_a_copy_of_what_it_names(capsys):
    first, second = Listener(), Listener()
    events, problems = emitter(a=first, b=second)
    metrics = {"loss": [1.0]}
    events.emit("poolzoo_epoch_finished", run={}, epoch=1, metrics=metrics)
    assert first.got == second.got == [{"loss": [1.0]}]
    assert metrics == {"loss": [1.0]}
    assert problems == []
    assert capsys.readouterr() == ("", "")


def test_a_listener_that_fails_is_reported_once_and_counted(capsys):
    good = Listener()
    events, problems = emitter(good=good, bad=Failing())
    for epoch in (1, 2, 3):
        events.emit("poolzoo_epoch_finished", run={}, epoch=epoch, metrics={"loss": []})
    assert len(good.got) == 3
    (problem,) = problems
    assert (problem.plugin, problem.stage) == ("bad", "poolzoo_epoch_finished")
    assert "at 1" in problem.error
    assert problem.hint.startswith("the run goes on without it")
    first = capsys.readouterr()
    assert first.out == ""
    assert first.err.count("warning: ") == 1
    events.report_failures()
    assert "plugin bad failed at poolzoo_epoch_finished 3 times in all" in capsys.readouterr().err
    events.report_failures()
    events.emit("poolzoo_epoch_finished", run={}, epoch=4, metrics={"loss": []})
    events.report_failures()
    assert "in all" not in capsys.readouterr().err


def test_an_interrupt_in_a_listener_is_the_users():
    class Interrupted:
        @spec.hookimpl
        def poolzoo_epoch_finished(self) -> None:
            raise KeyboardInterrupt

    events, _ = emitter(a=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        events.emit("poolzoo_epoch_finished", run={}, epoch=1, metrics={})
