"""The contract's own checks: each field of an item is refused where it is wrong; and what a new plugin is made of."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, Literal

import numpy as np
import pytest

import poolzoo
from poolzoo.common.errors import UsageError
from poolzoo.plugin import grammar, listing, loader, scaffold, spec, values
from poolzoo.plugin.image_index import Names
from poolzoo.plugin.signatures import Written, written_options


def build(channels: int = 3) -> None: ...


ITEMS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "pooling": (spec.Pooling, {"name": "a", "summary": "s", "kind": "local", "build": build}),
    "backbone": (
        spec.Backbone,
        {"name": "a/b", "summary": "s", "build": build, "network": build, "input_size": 32, "labels": list},
    ),
    "family": (spec.BackboneFamily, {"prefix": "a", "names": list, "get": build}),
    "loaded": (spec.Dataset, {"name": "a", "summary": "s", "load": build, "remarks": list, "classes": ("x",)}),
    "indexed": (spec.Dataset, {"name": "a", "summary": "s", "index": build, "splits": ("train", "val", "test")}),
    "source": (spec.DatasetSource, {"prefix": "a", "summary": "s", "open": build, "modules": ("numpy",)}),
    "form": (spec.GraphForm, {"input": "float", "batch": 1, "opset": 1}),
    "runtime": (spec.Runtime, {"name": "a", "summary": "s", "open": build, "convert": build, "devices": ("cpu",)}),
}
NAME = "name 'A b' does not match"
WRONG = [
    ("pooling", {"name": "A b"}, ValueError, NAME),
    ("pooling", {"name": "a/b"}, ValueError, "name 'a/b' does not match"),
    ("pooling", {"name": 3}, ValueError, "name 3 does not match"),
    ("pooling", {"kind": "sideways"}, ValueError, "kind of pooling 'a' must be 'global' or 'local', not 'sideways'"),
    ("pooling", {"build": "nowhere"}, TypeError, "build must be a callable or a 'package.module:attribute' string"),
    *(("pooling", {key: 3}, TypeError, f"{key} of 'a' must be a string, not int") for key in ("summary", "equation")),
    *(("pooling", {key: b""}, TypeError, f"{key} of 'a' must be a string, not bytes") for key in ("tex", "paper")),
    ("backbone", {"name": "A b"}, ValueError, NAME),
    ("backbone", {"build": None}, TypeError, "build must be a callable"),
    ("backbone", {"network": "nowhere"}, TypeError, "network must be a callable"),
    ("backbone", {"input_size": None}, ValueError, "backbone 'a/b' has a network and must say its input_size"),
    *(("backbone", {key: 3}, TypeError, f"{key} of 'a/b' must be") for key in ("summary", "license", "trained_on")),
    ("backbone", {"layout": "CHWN"}, ValueError, "layout of backbone 'a/b' must be auto, NCHW, NHWC or NLC"),
    ("backbone", {"mean": (0.0, 0.0)}, ValueError, "mean and std of backbone 'a/b' must be three numbers each"),
    ("backbone", {"std": (1.0, 1.0)}, ValueError, "mean and std"),
    ("backbone", {"std": (1.0, 1.0, 0.0)}, ValueError, "std above 0"),
    ("backbone", {"crop_pct": 0.0}, ValueError, "crop_pct of backbone 'a/b' must be above 0 and at most 1, not 0.0"),
    ("backbone", {"crop_pct": 1.01}, ValueError, "crop_pct of backbone"),
    ("backbone", {"interpolation": "nearest"}, ValueError, "interpolation of backbone 'a/b' must be"),
    ("backbone", {"labels": ["x"]}, TypeError, "labels of backbone 'a/b' must be a callable"),
    ("backbone", {"trained_digests": ["x"]}, TypeError, "trained_digests of backbone 'a/b' must be a callable"),
    ("family", {"prefix": "a/b"}, ValueError, "name 'a/b' does not match"),
    ("family", {"names": ["x"]}, TypeError, "names and get of family 'a' must be callables"),
    ("family", {"get": {}}, TypeError, "names and get of family 'a' must be callables"),
    ("loaded", {"name": "A b"}, ValueError, NAME),
    ("loaded", {"summary": None}, TypeError, "summary of 'a' must be a string, not NoneType"),
    ("loaded", {"load": None}, TypeError, "dataset 'a' must have one of load and index"),
    ("loaded", {"index": build}, TypeError, "dataset 'a' must have one of load and index"),
    ("loaded", {"load": "here"}, TypeError, "load of dataset 'a' must be a callable"),
    ("indexed", {"index": "here"}, TypeError, "index of dataset 'a' must be a callable"),
    ("loaded", {"remarks": ["x"]}, TypeError, "remarks of dataset 'a' must be a callable"),
    *(("indexed", {"splits": (one,)}, ValueError, "must be of train, val and test") for one in ("Train", "xx")),
    ("loaded", {"classes": "abc"}, TypeError, "classes of dataset 'a' must be a tuple of names"),
    ("source", {"prefix": "A b"}, ValueError, NAME),
    ("source", {"open": "here"}, TypeError, "open must be a callable"),
    *(("source", {key: 3}, TypeError, f"{key} of 'a' must be") for key in ("summary", "example", "install")),
    *(("source", {"modules": one}, TypeError, "modules of source 'a'") for one in ("numpy", ("numpy", ""), (3,))),
    ("form", {"input": "uint16"}, ValueError, "input of a graph's form must be 'uint8', 'float' or None"),
    *(("form", {key: 0}, ValueError, f"{key} of a graph's form must be a whole number") for key in ("batch", "opset")),
    ("form", {"batch": True}, ValueError, "batch of a graph's form"),
    *(("runtime", {"name": one}, ValueError, f"name {one!r} means several runtimes") for one in ("all", "auto")),
    ("runtime", {"name": "A b"}, ValueError, NAME),
    *(("runtime", {key: 3}, TypeError, f"{key} of 'a' must be a string") for key in ("summary", "install")),
    ("runtime", {"open": "here"}, TypeError, "open must be a callable"),
    ("runtime", {"convert": "here"}, TypeError, "convert must be a callable"),
    *(
        ("runtime", {key: one}, TypeError, f"{key} of runtime 'a' must be a tuple of names")
        for key in ("modules", "programs", "npm", "distributions", "devices")
        for one in ("numpy", ("",), (3,))
    ),
    ("runtime", {"devices": ()}, ValueError, "devices of runtime 'a' must name at least one device"),
    ("runtime", {"form": {}}, TypeError, "form of runtime 'a' must be a GraphForm"),
    ("runtime", {"converts_to_code": 1}, TypeError, "converts_to_code of runtime 'a' must be True or False"),
]


@pytest.mark.parametrize(("item", "change", "error", "says"), WRONG)
def test_a_field_that_is_wrong_is_named(item, change, error, says):
    kind, right = ITEMS[item]
    with pytest.raises(error) as caught:
        kind(**{**right, **change})
    assert says in str(caught.value)


@pytest.mark.parametrize("item", ITEMS)
def test_what_is_right_is_taken_over_as_it_is(item):
    kind, right = ITEMS[item]
    found = kind(**right)
    for field in fields(kind):
        if field.name in right:
            assert getattr(found, field.name) == right[field.name]
        elif field.default is not MISSING:
            assert getattr(found, field.name) == field.default
    if kind is not spec.GraphForm:
        assert values.item(found) == found


@pytest.mark.parametrize(
    ("item", "change"),
    [
        ("pooling", {"name": "a" * 64, "build": "package.module:attribute"}),
        ("backbone", {"mean": [0, 0, 0], "std": [1, 1, 0.5], "crop_pct": 0.5, "interpolation": "bicubic"}),
        *(("backbone", {"layout": layout}) for layout in ("auto", "NCHW", "NHWC", "NLC")),
        ("loaded", {"classes": ["x"]}),
        ("indexed", {"splits": ()}),
        ("source", {"modules": []}),
        *(("form", {"input": one, "batch": None, "opset": None}) for one in (None, "uint8")),
        ("runtime", {"convert": None, "modules": [], "open": "package.module:attribute"}),
    ],
)
def test_what_may_be_left_out_or_lies_at_a_bound_is_taken(item, change):
    kind, right = ITEMS[item]
    found = kind(**{**right, **change})
    assert {key: getattr(found, key) for key in change} == change


def test_families_and_sources_are_named_as_users_see_them():
    assert ITEMS["family"][0](**ITEMS["family"][1]).name == "a/*"
    assert ITEMS["source"][0](**ITEMS["source"][1]).name == "a:"


def test_arrays_of_plugins_become_plain_and_ascending():
    class Odd(np.ndarray):
        pass

    given = np.arange(6).view(Odd)
    assert type(values.array(given)) is np.ndarray
    assert np.shares_memory(values.array(given), given)
    turned = values.array(given[::-1])
    assert turned.tolist() == [5, 4, 3, 2, 1, 0]
    assert turned.strides[0] > 0
    assert values.array([1]) == [1]
    assert values.texts(lambda: iter(["a", 3, "b", "c"]), 3) == ["a", "b"]


def test_names_are_equal_where_each_is():
    ab, joined, other = Names.of(["a", "b"]), Names.of(["ab"]), Names.of(["a", "c"])
    assert ab == Names.of(["a", "b"])
    assert ab != joined
    assert ab != other
    assert ab != ["a", "b"]


class Base:
    def __init__(self, channels: int, *, p: float = 3.0, mode: spec.Kind = "local", map_size: None = None) -> None: ...


class Derived(Base):
    """Without an `__init__` of its own."""


def of_this_module(name: str) -> list[Written]:
    return written_options(f"{__name__}:{name}")


@pytest.mark.parametrize("name", ["Base", "Derived"])
def test_options_are_read_from_the_source_as_from_the_object(name):
    read = of_this_module(name)
    assert [(one.name, one.default) for one in read] == [("p", "3.0"), ("mode", "local")]
    made = grammar.options_of(globals()[name])
    assert [one.name for one in made] == ["p", "mode"]
    assert written_options(globals()[name])[1] == Written("mode", "local", ("global", "local"))


Choice = Literal["one", "two"]
LIMIT = 3


def several(
    channels: int, *, flag: bool = True, choice: Choice = "one", limit: int = LIMIT, none=None, must: int
) -> None: ...


again = (several, several)
wrapped = staticmethod(several)


def test_choices_and_defaults_are_those_that_the_source_writes():
    expected = [
        Written("flag", "true", ("true", "false")),
        Written("choice", "one", ("one", "two")),
        Written("limit", ""),
        Written("none", "none"),
    ]
    assert of_this_module("several") == expected
    assert of_this_module("wrapped") == expected
    assert [one.name for one in written_options(several)] == ["flag", "choice", "limit", "none"]
    for absent in ("again", "LIMIT", "absent"):
        assert of_this_module(absent) == []
    assert written_options("no_such_package.module:name") == []
    assert written_options("poolzoo.plugin.templates:name") == []


@pytest.mark.parametrize("kind", ["pooling", "backbone", "dataset", "runtime"])
def test_a_new_plugin_is_filled_with_its_name_and_todays_versions(tmp_path, kind):
    folder = tmp_path / "deep" / "folder"
    single = scaffold.write("my-own", kind, single_file=True, folder=folder)
    assert single == folder / "my_own.py"
    assert f"POOLZOO_API = {spec.API_VERSION} " in single.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="exists"):
        scaffold.write("my-own", kind, single_file=True, folder=folder)
    package = scaffold.write("my-own", kind, single_file=False, folder=folder)
    assert package == folder / "my-own"
    part = {"pooling": "layer", "backbone": "network", "dataset": "images", "runtime": "session"}[kind]
    assert {str(one.relative_to(package)) for one in package.rglob("*") if one.is_file()} == {
        "pyproject.toml", "README.md", "src/my_own/__init__.py", f"src/my_own/{part}.py", "tests/test_my_own.py",
        "tests/conftest.py", "LICENSE", ".gitignore", ".github/workflows/test.yml",
    }  # fmt: skip
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == "my-own"
    assert project["project"]["entry-points"]["poolzoo"] == {"my_own": "my_own"}
    assert any(poolzoo.__version__ in one for one in project["project"]["dependencies"])
    assert f" {datetime.datetime.now(datetime.UTC).year} " in (package / "LICENSE").read_text(encoding="utf-8")
    texts = [one.read_text(encoding="utf-8") for one in package.rglob("*") if one.is_file()]
    assert not [text for text in texts if "$name" in text or "$module" in text]


@pytest.mark.parametrize("name", ["", "My-own", "my_own", "1st", "my--own", "class", "a" * 61])
def test_a_name_that_no_module_can_have_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be a plugin's name"):
        scaffold.write(name, "pooling", single_file=True, folder=tmp_path)
    assert not list(tmp_path.iterdir())


FAMILY = """
from poolzoo import Backbone, BackboneFamily, hookimpl

def get(name):
    return Backbone(name=f"zoo/{name}", summary="", build=print)

@hookimpl
def poolzoo_backbones():
    yield Backbone(name="zoo/b", summary="mine", build=print)
    yield BackboneFamily(prefix="zoo", names=lambda: ["net2", "net1", "other"], get=get)
"""


def test_lists_of_names_are_sorted_and_chosen_by_pattern(tmp_path):
    (tmp_path / "mine.py").write_text(FAMILY)
    loader.forget()
    loader.settings.files = [tmp_path / "mine.py"]
    rows = listing.backbone_rows("zoo/net*")
    assert [(name, summary) for name, summary, _ in rows] == [("zoo/net2", "zoo's net2"), ("zoo/net1", "zoo's net1")]
    assert {source.dist for _, _, source in rows} == {"mine"}
    assert [(name, summary) for name, summary, _ in listing.backbone_rows("zoo/b*")] == [("zoo/b", "mine")]
    assert listing.list_backbones("zoo/*") == ["zoo/b", "zoo/net1", "zoo/net2", "zoo/other"]
    assert listing.list_backbones("zo?/net1") == ["zoo/net1"]
    assert listing.list_backbones("nano/*") == sorted(listing.list_backbones("nano/*")) != []
    assert set(listing.list_poolings("*max")) == {"avgmax", "catavgmax", "max"}
    assert set(listing.list_poolings("*max", kind="local")) == {"avgmax", "max"}
