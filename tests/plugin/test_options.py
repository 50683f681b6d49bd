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
        ("acme:gem", "acme", "gem", {}),
        ("acme:gem:p=4", "acme", "gem", {"p": "4"}),
        ("timm/resnet18.a1_in1k", None, "timm/resnet18.a1_in1k", {}),
    ],
)
def test_a_spec_is_taken_apart(text, dist, name, given):
    spec = grammar.parse_spec(text)
    assert (spec.dist, spec.name, spec.options) == (dist, name, given)


@pytest.mark.parametrize("text", ["", ":", "gem:", ":p=4", "a:b:c", "gem:p=4,", "gem:=4", "gem:p=1,p=2"])
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
