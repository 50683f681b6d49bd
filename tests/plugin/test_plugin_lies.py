"""Plugins that hand in one thing and mean another: taken over as plain values, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolzoo.common.errors import PluginFailed, explain, reason
from poolzoo.data.source import class_names, load_split
from poolzoo.plugin import loader, spec

IMAGES = np.arange(4 * 6 * 5 * 3, dtype=np.uint8).reshape(4, 6, 5, 3)
LABELS = np.array([0, 1, 0, 1])


class Own(np.ndarray):
    """Overrules what is asked of it."""

    def _mine(self, *arguments, **named):
        raise RuntimeError("mine")

    __getitem__ = __array_function__ = __array_ufunc__ = min = astype = _mine
    dtype = shape = property(_mine)


def own(array):
    return np.ndarray.view(array, Own)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (own(IMAGES), own(LABELS)),
        (IMAGES[::-1, ::-1, ::-1][::-1, ::-1, ::-1], LABELS[::-1][::-1]),
        (np.flip(np.flip(IMAGES, 2).copy(), 2), LABELS),
        (read_only(IMAGES), read_only(LABELS)),
        (np.ma.masked_array(IMAGES), np.ma.masked_array(LABELS)),
        (np.asfortranarray(IMAGES), torch.from_numpy(LABELS)),
    ],
    ids=["subclass", "reversed twice", "negative strides", "read-only", "masked", "Fortran's order"],
)
def test_arrays_become_numpys_own(images, labels):
    dataset = spec.Dataset(name="odd", summary="", load=lambda split, cache_dir: (images, labels))
    pixels, numbers = load_split(dataset, "train")
    assert (type(pixels), type(numbers)) == (np.ndarray, np.ndarray)
    assert np.array_equal(pixels, IMAGES)
    assert np.array_equal(numbers, LABELS)
    assert all(step >= 0 for step in pixels.strides)


@pytest.mark.parametrize(
    "given",
    [None, 5, (IMAGES,), (IMAGES, LABELS, 1), (IMAGES.astype(float), LABELS), (IMAGES, LABELS[:2]), "ab", (None, None)],
)
def test_what_is_no_data_is_refused_in_one_line(given):
    dataset = spec.Dataset(name="odd", summary="", load=lambda split, cache_dir: given)
    with pytest.raises(PluginFailed, match="data set odd"):
        load_split(dataset, "train")


def test_a_class_name_is_text_that_files_can_hold():
    dataset = spec.Dataset(name="odd", summary="", load=print, classes=("é", "cl\udcff"))
    assert class_names(dataset, LABELS) == ("é", r"cl\udcff")


TEXTS = """
from poolzoo import Backbone, BackboneFamily, Dataset, Pooling, hookimpl

class Text(str):
    def _mine(self, *arguments, **named):
        raise RuntimeError("mine")
    __str__ = __repr__ = __eq__ = __format__ = __lt__ = __add__ = split = isprintable = _mine
    __hash__ = str.__hash__

def build(channels):
    from torch import nn
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

@hookimpl
def poolzoo_poolings():
    yield Pooling(name=Text("texts"), summary=Text("one"), kind="global", build=build, paper=Text("two"))

@hookimpl
def poolzoo_backbones():
    make = lambda name: Backbone(name=Text("family/x"), summary=Text("three"), build=build, license=Text("four"))
    yield BackboneFamily(prefix=Text("family"), summary=Text("five"), names=lambda: [Text("x"), 5, None], get=make)

@hookimpl
def poolzoo_datasets():
    yield Dataset(name=Text("data"), summary=Text("six"), load=print, classes=[Text("a"), Text("b")])
"""


def test_texts_become_plain_ones(poolzoo, tmp_path):
    path = tmp_path / "texts.py"
    path.write_text(TEXTS)
    for arguments in (
        ("list",),
        ("list", "datasets"),
        ("list", "backbones", "--filter", "family/*"),
        ("show", "texts"),
    ):
        for as_json in ((), ("--json",)):
            outcome = poolzoo(*arguments, *as_json, "--plugin", path)
            assert (outcome.code, outcome.err) == (0, "")
    catalog = loader.load_plugins(path, installed=False)
    item = catalog.dataset("data").item
    assert item.classes == ("a", "b")
    assert {type(text) for text in (item.name, item.summary, *item.classes)} == {str}
    backbone = catalog.backbone("family/x").item
    assert {type(text) for text in (backbone.name, backbone.summary, backbone.license)} == {str}


class Silent(Exception):
    def __str__(self):
        raise RuntimeError


def test_an_exception_whose_text_raises_has_a_name():
    assert reason(Silent()) == "Silent"
    assert explain(Silent()).message == "unexpected Silent"
    assert reason(ValueError("a\n\x1b[31m" + "x" * 10_000_000), 40) == r"ValueError: a \x1b[31m" + "x" * 29 + "…"


@pytest.mark.parametrize(
    "error",
    ["class E(BaseException): pass\n", "class E(Exception):\n    def __str__(self): raise E\n", "E = SystemExit\n"],
)
@pytest.mark.parametrize("place", ["build", "forward"])
def test_an_exception_of_a_pooling_is_one_line_and_code(poolzoo, tmp_path, error, place):
    path = tmp_path / "thrower.py"
    path.write_text(
        f"from poolzoo import Pooling, hookimpl\n{error}"
        "def build(channels):\n    from torch import nn\n"
        f"    if {place == 'build'}: raise E(0)\n"
        "    class Thrower(nn.Module):\n        def forward(self, x): raise E(0)\n    return Thrower()\n"
        "@hookimpl\ndef poolzoo_poolings():\n"
        "    yield Pooling(name='thrower', summary='', kind='global', build=build)\n"
    )
    arguments = ("finetune", "--data", "digits", "--backbone", "nano/plain", "--pool", "thrower", "--dry-run")
    outcome = poolzoo(*arguments, "--plugin", path)
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert len([line for line in outcome.err.splitlines() if line.startswith("error: ")]) == 1
