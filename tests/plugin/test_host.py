"""Plugins: found, loaded in isolation, named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader, registration, spec

GOOD = """
from poolzoo import Pooling, hookimpl

def build(channels: int, *, p: float = 3.0):
    from torch import nn
    class PowerMean(nn.Module):
        def forward(self, x):
            return x.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)
    return PowerMean()

@hookimpl
def poolzoo_poolings():
    yield Pooling(name="{name}", summary="power mean", kind="global", build=build)
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def test_a_plugin_file_adds_a_pooling(tmp_path):
    catalog = loader.load_plugins(write(tmp_path, "mine", GOOD.format(name="power-mean")), installed=False)
    resolved = catalog.pooling("power-mean:p=2", "global")
    assert resolved.options == {"p": 2.0}
    assert resolved.entry.source.to_json() == {
        "dist": "mine",
        "version": None,
        "tier": "file",
        "path": str(tmp_path / "mine.py"),
    }


@pytest.mark.parametrize(
    ("text", "stage", "says"),
    [
        ("import no_such_module", "import", "no_such_module"),
        ("this is no python", "import", "SyntaxError"),
        ("raise SystemExit(3)", "import", "SystemExit"),
        ("POOLZOO_API = 99", "API version", "99"),
        (
            "from poolzoo import hookimpl\n@hookimpl\ndef poolzoo_pooling():\n    return []",
            "hook names",
            "poolzoo_pooling",
        ),
        (
            "from poolzoo import hookimpl\n@hookimpl\ndef poolzoo_poolings(catalog):\n    return []",
            "register",
            "catalog",
        ),
        (
            "from poolzoo import hookimpl\n@hookimpl\ndef poolzoo_poolings():\n    yield 1 / 0",
            "call",
            "ZeroDivisionError",
        ),
        ("from poolzoo import hookimpl\n@hookimpl\ndef poolzoo_poolings():\n    return 5", "call", "TypeError"),
        ("from poolzoo import hookimpl\n@hookimpl\ndef poolzoo_poolings():\n    return ['gem']", "item type", "str"),
    ],
)
def test_a_broken_plugin_is_a_problem_and_stops_nothing(tmp_path, text, stage, says):
    broken = write(tmp_path, "broken", text)
    good = write(tmp_path, "good", GOOD.format(name="power-mean"))
    catalog = loader.load_plugins(broken, good, installed=False)
    assert [(p.plugin, p.stage) for p in catalog.problems] == [("broken", stage)]
    problem = catalog.problems[0]
    assert says in problem.error
    assert problem.hint
    assert "\n" not in problem.error
    catalog.pooling("power-mean", "global")
    catalog.pooling("gem", "global")


def test_what_a_generator_gave_before_it_raised_is_kept(tmp_path):
    text = GOOD.format(name="first") + "    raise RuntimeError('half-way')\n"
    catalog = loader.load_plugins(write(tmp_path, "half", text), installed=False)
    assert [p.stage for p in catalog.problems] == ["call"]
    catalog.pooling("first", "global")


def test_a_warning_of_a_plugin_names_its_own_line(tmp_path):
    path = write(tmp_path, "mine", "import warnings\n\nfor n in 1, 2:\n    warnings.warn(f'{n}', FutureWarning)\n")
    with pytest.warns(FutureWarning) as caught:
        loader.load_plugins(path, installed=False)
    ((found),) = caught
    assert (str(found.message), found.filename, found.lineno) == ("1", str(path), 4)


def test_what_cannot_be_built_says_which_package_may_be_missing(tmp_path):
    path = write(tmp_path, "mine", GOOD.format(name="power-mean").replace("build=build", "build='absent.layers:X'"))
    (problem,) = loader.load_plugins(path, installed=False).problems
    assert problem.stage == "build"
    assert problem.hint.startswith(f"fix {path}, or install its package first; ")
    assert problem.error.startswith("build of 'power-mean': ")


def test_a_catalog_stays_the_processs_own_until_it_is_forgotten():
    catalog = loader.load([])
    loader.use(catalog)
    assert loader.catalog() is catalog
    assert loader.catalog().entries == []
    loader.forget()
    assert loader.catalog() is not catalog


def test_an_endless_generator_is_cut(tmp_path):
    text = GOOD.format(name="x").replace(
        '    yield Pooling(name="x"',
        '    from itertools import count\n    for i in count():\n        yield Pooling(name=f"p{i}"',
    )
    catalog = loader.load_plugins(write(tmp_path, "endless", text), installed=False)
    assert len([e for e in catalog.entries if e.source.dist == "endless"]) == registration.MAX_ENTRIES
    assert "1000" in catalog.problems[0].error


def test_a_builtin_is_never_shadowed_and_both_stay_reachable(tmp_path):
    catalog = loader.load_plugins(write(tmp_path, "acme", GOOD.format(name="gem")), installed=False)
    assert catalog.pooling("gem", "global").entry.source.dist == "poolzoo"
    assert catalog.pooling("poolzoo:gem", "global").entry.source.dist == "poolzoo"
    assert catalog.pooling("acme:gem:p=4", "global").options == {"p": 4.0}
    assert "acme:gem" in catalog.problems[0].error


def test_precedence_does_not_depend_on_the_order_of_loading(tmp_path):
    files = [write(tmp_path, name, GOOD.format(name="power-mean")) for name in ("beta", "alpha")]
    for order in (files, files[::-1]):
        catalog = loader.load_plugins(*order, installed=False)
        assert catalog.pooling("power-mean", "global").entry.source.dist == "alpha"


def test_two_files_of_one_name_are_two_plugins(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    first = write(tmp_path / "x", "p", GOOD.format(name="one"))
    second = write(tmp_path / "y", "p", GOOD.format(name="two"))
    catalog = loader.load_plugins(first, second, first, installed=False)
    assert catalog.problems == []
    catalog.pooling("one", "global")
    catalog.pooling("two", "global")


FAMILY = """
from poolzoo import Backbone, BackboneFamily, hookimpl

def build(*, pretrained=False):
    from torch import nn
    return nn.Conv2d(3, 8, 3, stride=2)

@hookimpl
def poolzoo_backbones():
    yield Backbone(name="timm/resnet18", summary="not timm's", build=build)
    yield BackboneFamily(
        prefix="timm", names=lambda: ["zzz"], get=lambda name: Backbone(name="timm/zzz", summary="", build=build)
    )
"""


def test_built_in_families_are_never_shadowed_and_others_stay_reachable(tmp_path):
    catalog = loader.load_plugins(write(tmp_path, "acme", FAMILY), installed=False)
    assert [p.stage for p in catalog.problems] == ["item name", "item name"]
    for name in ("timm/resnet18", "resnet18"):
        assert catalog.backbone(name).entry.source.dist == "poolzoo"
    assert catalog.backbone("acme:timm/resnet18").entry.source.dist == "acme"
    assert catalog.backbone("acme:timm/zzz").entry.source.dist == "acme"


def test_an_installed_distribution_is_found_by_its_entry_point(tmp_path):
    write(tmp_path, "acme_pool", GOOD.format(name="power-mean"))
    info = tmp_path / "acme_pool-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-pool\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[poolzoo]\nacme = acme_pool\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from poolzoo.plugin.loader import catalog\n"
        "print(catalog().pooling('power-mean', 'global').entry.source)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "dist='acme-pool', version='1.2', tier='installed'" in result.stdout


def test_an_unknown_name_gets_suggestions_and_lists_failed_plugins(tmp_path):
    catalog = loader.load_plugins(write(tmp_path, "broken", "import no_such_module"), installed=False)
    with pytest.raises(UsageError) as caught:
        catalog.pooling("gme", "global")
    assert "did you mean gem" in caught.value.hint
    assert "broken did not load" in caught.value.hint


def test_a_global_name_asked_for_as_local_says_so():
    with pytest.raises(UsageError, match="no local pooling"):
        loader.catalog().pooling("catavgmax", "local")


def test_a_listener_that_raises_is_reported_and_stops_nothing(tmp_path):
    text = "from poolzoo import hookimpl\n@hookimpl\ndef poolzoo_run_started(run):\n    raise ValueError(run['path'])"
    catalog = loader.load_plugins(write(tmp_path, "listener", text), installed=False)
    catalog.emit("poolzoo_run_started", run={"path": "somewhere"})
    assert [(p.plugin, p.stage) for p in catalog.problems] == [("listener", "poolzoo_run_started")]
    assert "somewhere" in catalog.problems[0].error


def test_a_listener_gets_the_arguments_that_it_names(tmp_path):
    text = (
        "from poolzoo import hookimpl\nseen = []\n"
        "@hookimpl\ndef poolzoo_epoch_finished(epoch):\n    import sys\n    sys.modules['seen_epochs'] = epoch"
    )
    catalog = loader.load_plugins(write(tmp_path, "listener", text), installed=False)
    catalog.emit("poolzoo_epoch_finished", run={}, epoch=7, metrics={})
    assert sys.modules.pop("seen_epochs") == 7


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (spec.Pooling, {"name": "Bad Name", "summary": "", "kind": "global", "build": print}),
        (spec.Pooling, {"name": "ok", "summary": "", "kind": "sideways", "build": print}),
        (spec.Pooling, {"name": "ok", "summary": "", "kind": "local", "build": "nowhere"}),
        (spec.Backbone, {"name": "ok", "summary": "", "build": print, "layout": "CHWN"}),
        (spec.Backbone, {"name": "ok", "summary": "", "build": print, "std": (0.0, 1.0, 1.0)}),
        (spec.Dataset, {"name": "ok", "summary": "", "load": None}),
    ],
)
def test_an_invalid_item_is_refused_when_it_is_made(kind, fields):
    with pytest.raises((ValueError, TypeError)):
        kind(**fields)


def test_a_plugin_that_prints_does_not_spoil_stdout(tmp_path, poolzoo):
    path = write(tmp_path, "chatty", "print('hello')\n" + GOOD.format(name="power-mean"))
    outcome = poolzoo("list", "--json", "--plugin", path)
    assert "power-mean" in [row["name"] for row in outcome.json["poolings"]]
    assert "hello" in outcome.err
