"""The grammar of references and the reading of options."""

from __future__ import annotations

from typing import Literal

import pytest

from poolzoo.common.errors import UsageError
from poolzoo.plugin import grammar


def build(channels: int, *, p: float = 3.0, learnable: bool = True, size: int = 2, mode: Literal["avg", "max"] = "avg"):
    return channels, p, learnable, size, mode


@pytest.mark.parametrize(
    ("text", "dist", "name", "given"),
    [
        ("gem", None, "gem", {}),
        ("gem:p=4", None, "gem", {"p": "4"}),
        ("gem:p=4,learnable=false", None, "gem", {"p": "4", "learnable": "false"}),
        ("gem:p=a=b", None, "gem", {"p": "a=b"}),
        ("acme:gem", "acme", "gem", {}),
        ("acme:gem:p=4", "acme", "gem", {"p": "4"}),
        ("timm/resnet18.a1_in1k", None, "timm/resnet18.a1_in1k", {}),
    ],
)
def test_a_spec_is_taken_apart(text, dist, name, given):
    spec = grammar.parse_spec(text)
    assert (spec.text, spec.dist, spec.name, spec.options) == (text, dist, name, given)


@pytest.mark.parametrize("text", ["", ":", "gem:", ":p=4", "a:b:c", "gem:p=4,", "gem:=4", "gem:p=1,p=2", "gem=3"])
def test_a_spec_that_cannot_be_read_is_refused(text):
    with pytest.raises(UsageError):
        grammar.parse_spec(text)


def test_options_are_converted_to_the_types_of_the_signature():
    values = grammar.read_options("x", build, {"p": "4", "learnable": "false", "size": "3", "mode": "max"})
    assert values == {"p": 4.0, "learnable": False, "size": 3, "mode": "max"}
    assert type(values["p"]) is float
    assert type(values["size"]) is int


@pytest.mark.parametrize("given", [{"p": "four"}, {"learnable": "maybe"}, {"size": "2.5"}, {"mode": "median"}])
def test_a_value_that_does_not_fit_is_refused(given):
    with pytest.raises(UsageError, match=next(iter(given))):
        grammar.read_options("x", build, given)


def test_a_misspelt_option_gets_a_suggestion():
    with pytest.raises(UsageError) as caught:
        grammar.read_options("gem", build, {"learnabel": "true"})
    assert "learnable" in caught.value.hint


def test_a_build_that_passes_options_on_takes_any():
    def passes_on(**rest: object) -> None: ...

    values = grammar.read_options("x", passes_on, {"drop_rate": "0.1", "act": "relu", "flag": "true", "n": "3"})
    assert values == {"drop_rate": 0.1, "act": "relu", "flag": True, "n": 3}


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"p": "four"}, "p=four is not float", "the default is p=3.0"),
        ({"learnable": "maybe"}, "learnable=maybe is not true|false", "the default is learnable=true"),
        ({"size": "2.5"}, "size=2.5 is not int", "the default is size=2"),
        ({"mode": "median"}, "mode=median is not avg|max", "the default is mode=avg"),
    ],
)
def test_a_refused_value_names_its_type_and_default(given, message, hint):
    with pytest.raises(UsageError) as caught:
        grammar.read_options("x", build, given)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_an_unknown_option_is_answered_with_all_options():
    with pytest.raises(UsageError) as caught:
        grammar.read_options("gem", build, {"zzz": "1"})
    assert caught.value.message == ("gem has no option 'zzz' (its options: p=3.0, learnable=true, size=2, mode=avg)")
    assert caught.value.hint == "leave it out"
    with pytest.raises(UsageError, match=r"\(its options: none\)"):
        grammar.read_options("avg", lambda channels: None, {"p": "1"})


def test_a_default_gives_the_type_where_no_annotation_does():
    def plain(channels, *, size=2, rate=0.5, flag=False, required, map_size=None): ...

    plain.__annotations__["size"] = "ImportedForTypeCheckersOnly"
    options = {one.name: one.types for one in grammar.options_of(plain)}
    assert options == {"size": (int,), "rate": (float,), "flag": (bool,)}
    assert grammar.read_options("x", plain, {"flag": "no", "size": "3"}) == {"flag": False, "size": 3}


def test_a_union_takes_what_any_of_its_types_takes():
    class Layer:
        def __init__(self, *, p: int | float | None = None, name: str = "a") -> None: ...

    def read(text: str) -> object:
        return grammar.read_options("x", Layer, {"p": text})["p"]

    assert [read("none"), read("3"), read("0.5")] == [None, 3, 0.5]
    assert type(read("3")) is int
    with pytest.raises(UsageError) as caught:
        read("x")
    assert (caught.value.message, caught.value.hint) == ("p=x is not int or float or none", "the default is p=none")


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("1", True), ("No", False), ("0", False), ("TRUE", True)])
def test_flags_are_written_in_several_ways(text, value):
    assert grammar.read_options("x", build, {"learnable": text}) == {"learnable": value}


def test_untyped_options_are_numbers_words_or_none():
    def passes_on(**rest: object) -> None: ...

    given = {"a": "false", "b": "none", "c": "0.5", "d": "text", "e": "7"}
    assert grammar.read_options("x", passes_on, given) == {"a": False, "b": None, "c": 0.5, "d": "text", "e": 7}


def test_suggestions_carry_their_prefix_and_may_be_several():
    assert grammar.suggest("gem1", ["gem2", "gem3", "avg"], "acme:") == "did you mean acme:gem3 or acme:gem2?"
    assert grammar.suggest("zzz", ["gem", "avg"]) == ""


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("a:b:c", "cannot read 'a:b:c'", "write NAME, NAME:KEY=VALUE, or DIST:NAME:KEY=VALUE"),
        ("gem:=4", "'=4' in 'gem:=4' is not an option", "options are written NAME:KEY=VALUE,KEY=VALUE"),
        ("gem:p=1,p=2", "option 'p' is given twice in 'gem:p=1,p=2'", "give each option once"),
    ],
)
def test_a_refused_spec_shows_the_grammar(text, message, hint):
    with pytest.raises(UsageError) as caught:
        grammar.parse_spec(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_named_parameters_are_accepted_and_others_not():
    def any_positional(channels, *rest, map_size=None): ...

    assert [grammar.accepts(any_positional, name) for name in ("map_size", "rest", "other")] == [True, False, False]
