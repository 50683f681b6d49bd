"""Broken and hostile plugins, alone and together: each is one right line, and nothing else stops working."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from poolzoo.plugin import isolation, loader, spec

HEAD = "from poolzoo import Backbone, Dataset, Pooling, hookimpl\n"
HOOK = HEAD + "@hookimpl\ndef poolzoo_poolings():\n"
BUILD = "def build(channels):\n    from torch import nn\n    return nn.Identity()\n"


def pooling(name: str, build: str = "build") -> str:
    return f"Pooling(name={name!r}, summary='', kind='global', build={build})"


# name → source, the stage that must be reported, and a word of the error
HOSTILE = {
    "syntax": ("def (", "import", "SyntaxError"),
    "null_byte": ("x = 1\0", "import", ""),
    "missing_module": ("import no_such_module_at_all", "import", "no_such_module_at_all"),
    "exits": ("import sys\nsys.exit(0)", "import", "SystemExit"),
    "own_base_exception": ("class Evil(BaseException): pass\nraise Evil('boo')", "import", "Evil: boo"),
    "generator_exit": ("raise GeneratorExit", "import", "GeneratorExit"),
    "recursion": ("def f(): return f()\nf()", "import", "RecursionError"),
    "unprintable_error": (
        "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E", "import", "E",
    ),
    "long_error": ("raise ValueError('x' * 100_000 + '\\n' * 50)", "import", "xxx"),
    "escape_codes": ("raise ValueError('\\x1b[31mred\\x07')", "import", "red"),
    "newer_api": ("POOLZOO_API = 2", "API version", "version 2"),
    "strange_api": ("POOLZOO_API = 'one'", "API version", "'one'"),
    "boolean_api": ("POOLZOO_API = True", "API version", "True"),
    "misspelt_hook": (HEAD + "@hookimpl\ndef poolzoo_pooling():\n    return []", "hook names", "poolzoo_pooling"),
    "wrong_arguments": (HEAD + "@hookimpl\ndef poolzoo_poolings(catalog):\n    return []", "register", "catalog"),
    "raises_when_called": (HOOK + "    raise OSError('no disk')", "call", "no disk"),
    "raises_half_way": (BUILD + HOOK + f"    yield {pooling('half')}\n    1 / 0", "call", "ZeroDivisionError"),
    "exits_when_called": (HOOK + "    yield 1\n    raise SystemExit(3)", "call", "SystemExit"),
    "returns_none": (HOOK + "    return None", "call", "NoneType"),
    "returns_a_number": (HOOK + "    return 7", "call", "int"),
    "yields_strings": (HOOK + "    yield 'gem'", "item type", "'gem'"),
    "yields_a_class": (HOOK + "    yield Pooling", "item type", "Pooling"),
    "repr_raises": (
        "class R:\n    def __repr__(self): raise RuntimeError\n" + HOOK + "    yield R()", "item type", "repr raises",
    ),
    "bad_name": (BUILD + HOOK + f"    yield {pooling('Not A Name')}", "call", "Not A Name"),
    "bad_summary": (
        BUILD + HOOK + "    yield Pooling(name='x', summary=None, kind='global', build=build)", "call", "summary",
    ),
    "bad_kind": (BUILD + HOOK + "    yield Pooling(name='x', summary='', kind='both', build=build)", "call", "both"),
    "no_build": (HOOK + "    yield Pooling(name='x', summary='', kind='global', build=3)", "call", "build"),
    "twice": (BUILD + HOOK + f"    yield {pooling('same')}\n    yield {pooling('same')}", "item name", "twice"),
    "shadows": (BUILD + HOOK + f"    yield {pooling('gem')}", "item name", "shadows:gem"),
    "build_points_nowhere": (HOOK + "    yield " + pooling("x", "'no_such_pkg.layers:X'"), "build", "no_such_pkg"),
    "build_without_attribute": (HOOK + "    yield " + pooling("x", "'math:no_such'"), "build", "no_such"),
    "subclass_that_raises": (
        BUILD + HEAD + "class P(Pooling):\n    @property\n    def name(self): raise RuntimeError('mine')\n"
        "    def __post_init__(self): pass\n    def __setattr__(self, k, v): pass\n"
        "@hookimpl\ndef poolzoo_poolings():\n    p = object.__new__(P)\n    yield p",
        "item type", "RuntimeError",
    ),
    "endless": (
        BUILD + HOOK + "    from itertools import count\n    for i in count():\n"
        "        yield Pooling(name=f'p{i}', summary='', kind='global', build=build)",
        "call", "1000",
    ),
    "moves_away": ("import os\nos.chdir('/')", "global state", "current directory"),
    "seeds": ("import random\nrandom.seed(0)", "global state", "random generator"),
    "changes_path": ("import sys\nsys.path.insert(0, '/nowhere')", "global state", "sys.path"),
    "catches_ctrl_c": (
        "import signal\nsignal.signal(signal.SIGINT, lambda *a: None)", "global state", "Ctrl-C",
    ),
}  # fmt: skip


def write(folder: Path, name: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(HOSTILE[name][0])
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_each_is_one_problem_with_its_stage_and_hint(tmp_path, name):
    _, stage, word = HOSTILE[name]
    where, state = Path.cwd(), random.getstate()
    catalog = loader.load_plugins(write(tmp_path, name), installed=False)
    found = [p for p in catalog.problems if p.stage == stage]
    assert found, catalog.problems
    problem = found[0]
    assert problem.plugin == problem.dist == name
    assert word in problem.error
    assert problem.error
    assert problem.hint
    assert len(str(problem)) + len(problem.hint) <= 2000
    assert str(problem).isprintable()
    assert (Path.cwd(), random.getstate()) == (where, state)
    catalog.pooling("gem", "global")


def test_all_of_them_together_leave_the_commands_working(tmp_path, poolzoo):
    for name in HOSTILE:
        write(tmp_path, name)
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "latin.py").write_bytes(b"# \xe9\nraise ValueError")
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere")
    outcome = poolzoo("list", "--plugins-dir", tmp_path, "--json")
    assert outcome.code == 0
    problems = outcome.json["problems"]
    assert {p["plugin"] for p in problems} == {*HOSTILE, "folder", "latin", "dangling"}
    assert all(p["stage"] and p["error"] and p["hint"] for p in problems)
    lines = outcome.err.splitlines()
    assert len(lines) == 6
    assert lines[-1] == f"warning: and {len(HOSTILE) + 3 - 5} more: poolzoo plugin list --load"
    assert len(outcome.err) < 8000
    strict = poolzoo("list", "--plugins-dir", tmp_path, "--strict")
    assert strict.code == 3
    trained = poolzoo(
        "finetune", "--plugins-dir", tmp_path, "--data", "digits", "--backbone", "nano/plain", "--epochs", 1,
        "--limit", 100, "--out", tmp_path / "run", "--pool", "half", "--dry-run",
    )  # fmt: skip
    assert trained.code in (0, 1, 2)  # the plugin's pooling is an identity, which is said in one line
    assert "Traceback" not in trained.err
    assert poolzoo("finetune", "--plugins-dir", tmp_path, "--data", "digits", "--dry-run").code == 0


def test_an_unknown_name_lists_the_plugins_that_failed(tmp_path, poolzoo):
    outcome = poolzoo("show", "mine", "--plugin", write(tmp_path, "missing_module"))
    assert outcome.code == 2
    assert "missing_module did not load" in outcome.err
    assert "no_such_module_at_all" in outcome.err


def test_one_that_never_ends_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation, "SECONDS", 0.3)
    (tmp_path / "asleep.py").write_text("import os\nos.read(os.pipe()[0], 1)")
    (tmp_path / "stubborn.py").write_text(
        "import os\nwhile True:\n    try:\n        os.read(os.pipe()[0], 1)\n    except Exception:\n        pass"
    )
    (tmp_path / "slow_items.py").write_text(HOOK + "    import os\n    yield 1\n    os.read(os.pipe()[0], 1)")
    files = [tmp_path / f"{name}.py" for name in ("asleep", "stubborn", "slow_items")]
    catalog = loader.load_plugins(*files, installed=False)
    stages = {p.plugin: (p.stage, p.error) for p in catalog.problems if p.stage != "item type"}
    assert stages["asleep"][0] == stages["stubborn"][0] == "import"
    assert stages["slow_items"][0] == "call"
    assert all("0.3 seconds" in error for _, error in stages.values())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_one_that_eats_memory_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation, "MEMORY", 200 << 20)
    (tmp_path / "hungry.py").write_text(
        HOOK + "    bytearray(2 << 30)\n    return []"
    )  # in one piece, which no freed memory is
    catalog = loader.load_plugins(tmp_path / "hungry.py", installed=False)
    (problem,) = catalog.problems
    assert (problem.stage, "MemoryError" in problem.error) == ("call", True)
    assert len(bytearray(300 << 20)) == 300 << 20  # the limit is lifted again


def test_torchs_global_state_is_put_back(tmp_path):
    """By a plugin that imports torch first, and by one that comes after it."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(
            "import torch\ntorch.set_default_dtype(torch.float64)\ntorch.set_num_threads(7)\ntorch.manual_seed(3)\n"
            "torch.set_grad_enabled(False)"
        )
    code = f"""
import sys
from poolzoo.plugin import isolation, loader
isolation.SECONDS = 600  # a busy machine imports torch slowly
for name in ("first", "second"):
    print("torch" in sys.modules)
    (problem,) = loader.load_plugins({str(tmp_path)!r} + f"/{{name}}.py", installed=False).problems
    import torch
    print(problem.stage, "|", problem.error)
    print(torch.get_default_dtype(), torch.get_num_threads() != 7, torch.is_grad_enabled())
    torch.set_num_threads(1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[::3] == ["False", "True"]
    for told, state in (lines[1:3], lines[4:6]):
        for word in ("global state", "default dtype", "threads", "random generator", "gradient mode"):
            assert word in told
        assert state == "torch.float32 True True"


def test_what_a_plugin_prints_never_reaches_stdout(tmp_path):
    plugin = tmp_path / "chatty.py"
    plugin.write_text("import os\nprint('from python')\nos.system('echo from a shell')\nos.write(1, b'from below\\n')")
    done = subprocess.run(
        [sys.executable, "-m", "poolzoo", "list", "--plugin", plugin, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["problems"] == []
    for text in ("from python", "from a shell", "from below"):
        assert text in done.stderr


def test_damaged_metadata_of_an_installed_package_stops_nothing(tmp_path, monkeypatch):
    for name, metadata in (("torn", ""), ("good", "Metadata-Version: 2.1\nName: good\nVersion: 1.0\n")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(f"[poolzoo]\n{name} = {name}_plugin\n")
        (tmp_path / f"{name}_plugin.py").write_text(BUILD + HOOK + f"    yield {pooling(f'{name}-pool')}")
    monkeypatch.syspath_prepend(tmp_path)
    catalog = loader.load(loader.find())
    names = {entry.item.name for entry in catalog.select(spec.Pooling)}
    assert {"good-pool", "torn-pool"} <= names


def test_a_name_that_another_plugin_has_is_a_note(tmp_path, poolzoo):
    rows = poolzoo("plugin", "list", "--plugin", write(tmp_path, "shadows"), "--json").json["plugins"]
    (row,) = [row for row in rows if row["name"] == "shadows"]
    assert row["notes"] == ["'gem' is poolzoo's; this one is reachable as shadows:gem"]
    assert not row["problems"]


def test_prefer_lets_a_bare_name_mean_the_plugins(tmp_path, poolzoo):
    plugin = write(tmp_path, "shadows")
    assert loader.load_plugins(plugin, installed=False).pooling("gem", "global").entry.source.dist == "poolzoo"
    outcome = poolzoo("show", "gem", "--plugin", plugin, "--prefer", "shadows", "--json")
    assert outcome.json["items"][0]["source"]["dist"] == "shadows"
    assert "reachable as" not in outcome.err
    assert poolzoo("list", "--prefer", "nobody").code == 2


def test_a_run_with_a_preferred_plugin_stays_that_plugins(tmp_path, poolzoo):
    (tmp_path / "mine.py").write_text(
        "def build(channels):\n    from torch import nn\n"
        "    return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())\n" + HOOK + f"    yield {pooling('gem')}"
    )
    run = tmp_path / "run"
    arguments = ("--data", "digits", "--backbone", "nano/plain", "--pool", "gem", "--epochs", 1, "--limit", 100)
    trained = poolzoo("finetune", *arguments, "--plugin", tmp_path / "mine.py", "--prefer", "mine", "--out", run)
    assert trained.code == 0, trained.err
    config = json.loads((run / "config.json").read_text())
    assert (config["global_pool"], config["poolzoo"]["plugin"]["dist"]) == ("mine:gem", "mine")
    later = poolzoo("evaluate", run, "--plugin", tmp_path / "mine.py")
    assert later.code == 0
    assert "another" not in later.err


def test_a_deprecated_hook_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(spec.poolzoo_poolings.poolzoo_spec, "warn_on_impl", DeprecationWarning("use poolzoo_layers"))
    (tmp_path / "old.py").write_text(BUILD + HOOK + f"    yield {pooling('old')}")
    catalog = loader.load_plugins(tmp_path / "old.py", installed=False)
    assert [(p.stage, "poolzoo_layers" in p.error) for p in catalog.problems] == [("deprecated", True)]
    catalog.pooling("old", "global")


def test_the_plugin_that_was_written_for_version_1_still_works(tmp_path, poolzoo):
    frozen = Path(__file__).parents[1] / "data" / "frozen_v1.py"
    assert loader.load_plugins(frozen, installed=False).problems == []
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    outcome = poolzoo(
        "finetune", "--plugin", frozen, "--data", "frozen-data", "--backbone", "frozen/small", "--pool", "frozen:p=2",
        "--local-pool", "frozen", "--epochs", 1, "--out", run,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "started" in outcome.err
    assert poolzoo("evaluate", run, "--plugin", frozen).code == 0
    assert poolzoo("export", run, "--plugin", frozen, "--out", bundle).code == 0
    assert poolzoo("verify", bundle).code == 0
    missing = poolzoo("evaluate", run, "--no-plugins")
    assert missing.code == 2
    assert "came from frozen_v1" in missing.err
    changed = tmp_path / "frozen_v1.py"
    changed.write_text(frozen.read_text() + "\n# changed\n")
    assert "another version is installed: frozen_v1" in poolzoo("verify", bundle, "--plugin", changed).err
    assert "another version of frozen_v1" in poolzoo("evaluate", run, "--plugin", changed).err


def test_fifty_plugins_are_listed_at_once(tmp_path):
    for index in range(50):
        (tmp_path / f"plugin{index}.py").write_text(BUILD + HOOK + f"    yield {pooling(f'p{index}')}")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "poolzoo", "list", "--plugins-dir", tmp_path],
        capture_output=True, text=True, check=True, env={**os.environ},
    )  # fmt: skip
    assert done.stdout.count("\n") > 90
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "timm", "numpy", "onnx", "platformdirs.unix_"}


def test_a_storm_of_prints_is_an_excerpt_and_a_count(tmp_path, poolzoo):
    plugin = tmp_path / "storm.py"
    plugin.write_text(
        "import logging, sys\nfor _ in range(3000): print('\\x1b[2Jnoise')\nsys.stderr.write('x' * 9_000_000)\n"
        "for _ in range(3000): logging.getLogger('storm').error('again')\n"
    )
    err = poolzoo("list", "--plugin", plugin).err
    assert err.count("\\x1b[2Jnoise\n") == 20
    assert "more lines" in err
    assert len(err) < 5000


def test_what_a_plugin_leaves_behind_is_undone(tmp_path, poolzoo):
    plugin = tmp_path / "vandal.py"
    plugin.write_text("import json, sys\njson.dumps = None\nsys.settrace(lambda *event: 1 / 0)\n")
    outcome = poolzoo("list", "--json", "--plugin", plugin)
    assert outcome.code == 0
    assert "changed json" in outcome.err
    assert outcome.json["poolings"]


def test_an_option_whose_default_cannot_be_printed_has_a_type(tmp_path, poolzoo):
    plugin = tmp_path / "mute.py"
    plugin.write_text(
        "from poolzoo import Pooling, hookimpl\nclass Mute:\n    def __repr__(self): raise ValueError\n"
        "def build(channels, *, p: Mute() = Mute()): pass\n@hookimpl\ndef poolzoo_poolings():\n"
        "    yield Pooling(name='mute', kind='global', summary='s', equation='y', build=build)\n"
    )
    outcome = poolzoo("show", "mute", "--plugin", plugin)
    assert outcome.code == 0
    assert "p=(Mute)" in outcome.out


def test_a_lazy_module_that_forward_leaves_out_is_named(tmp_path, poolzoo):
    plugin = tmp_path / "lazy.py"
    plugin.write_text(
        "from poolzoo import Pooling, hookimpl\ndef build(channels):\n    from torch import nn\n"
        "    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    module.unused = nn.ModuleList([nn.LazyLinear(3)])\n"
        "    module.forward = lambda x: x.mean((2, 3))\n    return module\n"
        "@hookimpl\ndef poolzoo_poolings():\n"
        "    yield Pooling(name='lazy', kind='global', summary='s', equation='y', build=build)\n"
    )
    arguments = ("--data", "digits", "--backbone", "nano/plain", "--pool", "lazy", "--out", tmp_path / "run")
    outcome = poolzoo("finetune", *arguments, "--plugin", plugin)
    assert outcome.code == 1
    assert "unused.0.weight" in outcome.err
    assert "no shape yet" in outcome.err
