"""What is known of poolings comes out of `compare`: who keeps its answer when the image moves."""

from __future__ import annotations

import json

import pytest

from poolzoo import cli
from poolzoo.plugin import loader

# A network in which a circular shift is only ever lost by its pooling: nothing is cut off, nothing padded with zeros.
CIRCULAR = '''
"""A backbone whose convolutions see the image as a torus."""

from poolzoo import Backbone, hookimpl


def build(*, pretrained=False, local_pool=None):
    from torch import nn

    make = local_pool or (lambda channels, k, s, p, ceil: nn.MaxPool2d(k, s, p, ceil_mode=ceil))

    def block(before, after):
        convolution = nn.Conv2d(before, after, 3, padding=1, padding_mode="circular", bias=False)
        return [convolution, nn.BatchNorm2d(after), nn.ReLU(), make(after, 2, 2, 0, False)]

    return nn.Sequential(*block(3, 16), *block(16, 32))


@hookimpl
def poolzoo_backbones():
    yield Backbone(name="torus", summary="convolutions on a torus", build=build, mean=(0.5,) * 3, std=(0.25,) * 3)
'''


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The rows by local pooling."""
    folder = tmp_path_factory.mktemp("truths")
    plugin = folder / "torus.py"
    plugin.write_text(CIRCULAR)
    words = ["--plugin", plugin, "compare", "--data", "digits", "--backbone", "torus", "--seeds", 2, "--epochs", 4]
    words += ["--pool", "avg", "--local-pool", "max,aps,blur,maxblur,subsample", "--export-top", 0]
    words += ["--image-size", 8, "--robustness-samples", 150]  # enlarging would end the torus
    loader.forget()
    assert cli.run([str(word) for word in [*words, "--threads", 1, "--out", folder / "c", "-q"]]) == 0
    rows = json.loads((folder / "c" / "compare.json").read_text())["results"]
    return {row["local_pool"]: row for row in rows}


@pytest.mark.slow  # five trained networks; the invariance of the layers is tested with their oracles
def test_polyphase_pooling_is_invariant_to_circular_shifts(compared):
    shifts = {name: row["shift_consistency"] for name, row in compared.items()}
    print(shifts)
    assert (shifts["aps"]["mean"], shifts["aps"]["sd"]) == (1.0, 0.0)
    for name in ("max", "subsample", "blur"):
        assert shifts[name]["mean"] < 0.99, name


@pytest.mark.slow  # five trained networks; the invariance of the layers is tested with their oracles
def test_maxblur_is_more_consistent_than_max_and_max_than_subsampling(compared):
    kept = {name: row["shift_consistency"]["mean"] for name, row in compared.items()}
    print(kept, {name: row["crop_consistency"]["mean"] for name, row in compared.items()})
    assert kept["maxblur"] > kept["max"] > kept["subsample"]
    assert compared["maxblur"]["crop_consistency"]["mean"] > compared["max"]["crop_consistency"]["mean"]


# The mean under six names, each of which starts its classifier from numbers of its own.
TWINS = '''
"""One pooling under six names."""

from poolzoo import Pooling, hookimpl


def named(number):
    def build(channels):
        import torch

        torch.rand(1000 * number)  # the numbers that come next are others
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    return build


@hookimpl
def poolzoo_poolings():
    for number in range(6):
        yield Pooling(name=f"twin{number}", summary="the mean", kind="global", build=named(number))
'''


@pytest.mark.slow
def test_one_pooling_under_six_names_hardly_ever_wins(tmp_path):
    """Twenty comparisons from other seeds: at level 0.05, more than three with a winner would be a surprise."""
    plugin = tmp_path / "twins.py"
    plugin.write_text(TWINS)
    wrong, moved = 0, 0
    for repetition in range(20):
        words = ["--plugin", plugin, "compare", "--data", "digits", "--backbone", "nano/resnet", "--pretrained"]
        words += ["--freeze", "backbone", "--pool", ",".join(f"twin{number}" for number in range(6)), "--epochs", 2]
        words += [
            "--seed",
            100 * repetition,
            "--seeds",
            3,
            "--robustness-samples",
            0,
            "--export-top",
            0,
            "--threads",
            1,
        ]
        loader.forget()
        assert cli.run([str(word) for word in [*words, "--out", tmp_path / f"{repetition}", "-q"]]) == 0
        rows = json.loads((tmp_path / f"{repetition}" / "compare.json").read_text())["results"]
        moved += len({row["accuracy"]["mean"] for row in rows}) > 1
        wrong += any(row["delta"] and (row["delta"]["better"] or row["delta"]["worse"]) for row in rows)
    print(wrong)
    assert moved >= 15  # they are no copies of one another
    assert wrong <= 3
