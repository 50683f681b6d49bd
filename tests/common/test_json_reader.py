"""Parsed JSON: what is refused, and which name is told of many."""

from __future__ import annotations

import json

import pytest

from poolzoo.common import json_reader


def test_the_last_value_counts_unless_names_are_to_be_unique():
    assert json_reader.parse('{"a": 1, "a": 2}') == {"a": 2}
    assert json_reader.parse('[{"a": 1}, {"a": {"b": 2}}]', unique=True) == [{"a": 1}, {"a": {"b": 2}}]


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "b": 3}', '[{"a": {"b": 1, "c": 2, "b": 3}}]'])
def test_a_name_that_is_there_twice_is_told(text):
    with pytest.raises(ValueError, match="'b' is there twice"):
        json_reader.parse(text, unique=True)


def test_the_name_is_found_among_very_many():
    """Counting each of them takes minutes."""
    pairs = [(str(number), None) for number in range(200_000)]
    assert json_reader.named_twice(pairs) is None
    assert json_reader.named_twice([*pairs, ("199999", None)]) == "199999"


def test_deep_nesting_is_no_crash():
    with pytest.raises(ValueError, match="nested too deeply"):
        json_reader.parse("[" * 100_000 + json.dumps(1) + "]" * 100_000)
