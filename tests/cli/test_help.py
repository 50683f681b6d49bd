"""Help of the command line: groups, examples, closed sets of values."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from support import command_lines
from support.command_lines import ROOT, commands, parse

from poolzoo import cli
from poolzoo.cli import groups, options
from poolzoo.runtime import ort_session
from poolzoo.train.settings import CHOICES, Settings, flag

GROUPED = ("finetune", "compare", "choose", "export")


def command(name):
    found = cli.cli.get_command(click.Context(cli.cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", GROUPED)
def test_every_option_stands_in_a_group(name):
    for option in command(name).params:
        if isinstance(option, click.Option) and option.expose_value:
            assert isinstance(option, groups.GroupedOption), option.name
            assert option.group in groups.ORDER, option.name


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_an_option_that_takes_a_list_takes_it_in_parts(name):
    listed = [one for one in command(name).params if str(one.metavar).endswith(",…")]
    assert all(isinstance(one, groups.ListOption) for one in listed)


@pytest.mark.parametrize("name", GROUPED)
def test_help_shows_every_option_exactly_once(poolzoo, name):
    shown = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", poolzoo(name, "--help").out, re.MULTILINE)
    known = [one.opts[-1] for one in command(name).params if isinstance(one, click.Option)]
    assert sorted(shown) == sorted(known)


@pytest.mark.parametrize("name", GROUPED)
def test_every_example_parses_and_is_shown_whole(poolzoo, name):
    help_text = poolzoo(name, "--help").out
    assert command(name).examples
    for description, line in command(name).examples:
        assert f"  # {description}\n  {line}\n" in help_text
        program, *words = shlex.split(line)
        assert program == "poolzoo"
        assert words[0] == name
        parse(words)


def test_groups_of_finetune_are_the_subjects_of_training(poolzoo):
    titles = re.findall(r"^(\w+) options:", poolzoo("finetune", "--help").out, re.MULTILINE)
    assert titles == [
        groups.DATA,
        groups.MODEL,
        groups.LENGTH,
        groups.OPTIMIZATION,
        groups.LOSS,
        groups.TEACHER,
        groups.AUGMENTATION,
        groups.FREEZING,
        groups.HARDWARE,
        groups.OUTPUT,
        groups.GENERAL,
    ]


def test_an_option_stands_in_the_same_group_everywhere():
    same = ("device", "executor", "json", "limit", "out", "ray-address", "resume", "skip-broken", "task", "threads")
    found: dict[str, dict[str, list[str]]] = {name: {} for name in same}
    for name, one in commands():
        for option in one.params:
            if isinstance(option, click.Option) and option.opts[-1].removeprefix("--") in found:
                found[option.opts[-1].removeprefix("--")].setdefault(groups.group_of(option), []).append(name)
    assert {name: where for name, where in found.items() if len(where) != 1} == {}


@pytest.mark.parametrize("name", ["data", "plugin"])
def test_a_list_of_commands_is_cut_nowhere(poolzoo, name):
    listed = poolzoo(name, "--help").out.partition("Commands:")[2]
    assert listed
    assert "..." not in listed


def test_finetune_offers_every_setting_with_its_default():
    defaults = {one.name: one.default for one in command("finetune").params if isinstance(one, click.Option)}
    internal = {"final_norm", "validation", "reader", "plugins", "steps", "protocol"}
    for name, value in vars(Settings()).items():
        if name not in internal:
            assert defaults[name] == value, flag(name)


def test_options_with_a_closed_set_are_choices():
    found = {one.name: one for one in command("finetune").params}
    for name, allowed in CHOICES.items():
        if name in found:
            assert list(found[name].type.choices) == [one for one in allowed if one is not None]
    (provider,) = (one for one in command("verify").params if one.name == "provider")
    assert list(provider.type.choices) == ["auto", *ort_session.PROVIDERS]


def test_former_options_lead_to_options_that_exist():
    today = {name for _, found in commands() for one in found.params for name in (*one.opts, *one.secondary_opts)}
    assert set(options.RENAMED.values()) <= today
    assert not set(options.RENAMED) & today


def test_every_help_text_is_a_sentence():
    for name, found in commands():
        for option in found.params:
            if isinstance(option, click.Option):
                text = option.help or ""
                assert re.match(r"[A-Z].*\.$", text, re.DOTALL), f"{name} {option.opts[0]}: {text}"
                assert not text.startswith(("Of ", "By ")), f"{name} {option.opts[0]}: {text}"


def test_options_in_tests_exist():
    """Tests that are seldom run, or skipped where a package is missing, do not notice that one got another name."""
    known = command_lines.options() | {"--verify"}  # of the script in bundles
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for part in re.split(r"^(?=def |@|class )", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if re.match(r"def \w+\([^)]*\bpoolzoo\b", part):  # it runs commands
                unknown = set(re.findall(r'"(--[a-z][a-z-]*)"', part)) - known
                assert not unknown, f"{path.relative_to(ROOT)}: {part.partition('(')[0]}"
