"""A schema names the place of what is wrong in a file, whatever stands there."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from poolzoo.artifacts.schema import Config, Parity
from poolzoo.common import conform
from poolzoo.common.errors import CheckFailed

RUN = Path(__file__).parents[1] / "data/earlier/run"
CONFIG = json.loads((RUN / "config.json").read_text(encoding="utf-8"))


def changed(place: str, value: object) -> object:
    found = copy.deepcopy(CONFIG)
    *path, last = place.split(".")
    inner = found
    for key in path:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return found


def test_files_of_earlier_versions_have_their_schema():
    assert conform.problem(CONFIG, Config) == ""
    exported = Path(__file__).parents[1] / "data/digits_bundle"
    assert conform.problem(json.loads((exported / "config.json").read_text()), Config) == ""
    assert conform.problem(json.loads((exported / "parity.json").read_text()), Parity) == ""


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ("poolzoo.backbone", 3, "poolzoo.backbone is 3, not a text"),
        ("poolzoo.data_size", "8", "poolzoo.data_size is '8', not a list"),
        ("poolzoo.data_size", [8, True], "poolzoo.data_size[1] is True, not a whole number"),
        ("poolzoo.final_norm", "x", "poolzoo.final_norm is 'x', not head or backbone"),
        ("poolzoo.plugins", {"pool": []}, "poolzoo.plugins.pool is a list, not an object"),
        ("num_classes", 10**30, "num_classes is a number without end, not a whole number"),
        ("pretrained_cfg.mean", [float("nan")], "pretrained_cfg.mean[0] is nan, not a number"),
        ("label_names", ["\ud800"], "label_names[0] is '\\ud800', not a text"),
        ("pretrained_cfg", None, "pretrained_cfg is missing"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(place, value, text):
    assert conform.problem(changed(place, value), Config) == text


def test_a_part_may_be_missing_where_versions_differ():
    assert conform.problem({}, Config, partial=True) == ""
    assert conform.problem({"poolzoo": {"pool": 3}}, Config, partial=True) == "poolzoo.pool is 3, not a text or null"


@dataclass(frozen=True)
class Pair:
    first: int
    second: tuple[float, float] | None = None


def test_dataclasses_are_held_against_their_annotations():
    assert conform.problem(Pair(1, (0.5, 2)), Pair) == ""
    assert conform.problem(Pair(1, (0.5,)), Pair) == "second is a list, not a list or null"  # type: ignore[arg-type]
    with pytest.raises(CheckFailed, match=r"a\.json is damaged: first is 'x', not a whole number"):
        conform.require(Pair("x"), Pair, "a.json")  # type: ignore[arg-type]
