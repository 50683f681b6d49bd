"""The command line as a user meets it: help, lists, start-up, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from poolzoo.cli import COMMANDS
from poolzoo.plugin import loader, spec

HEAVY = ("torch", "timm", "torchvision", "onnx", "onnxruntime", "sklearn", "scipy", "numpy", "PIL", "matplotlib")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "--json"], ["list", "datasets"], ["finetune", "-h"]]
)
def test_help_and_lists_import_nothing_heavy(arguments):
    code = (
        "import sys; from poolzoo.cli import run\n"
        f"assert run({arguments!r}) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_names_the_global_options(poolzoo, name):
    outcome = poolzoo(name, "--help")
    assert outcome.code == 0
    assert "--plugin FILE" in outcome.out


def test_list_poolings_as_json_follows_its_contract(poolzoo):
    outcome = poolzoo("list", "poolings", "--json")
    assert outcome.json["problems"] == []
    rows = {row["name"]: row for row in outcome.json["poolings"]}
    assert {"avg", "max", "min", "avgmax", "catavgmax", "gem", "lse", "adaptive", "blur", "maxblur"} <= rows.keys()
    assert rows["avg"]["kinds"] == ["global", "local"]
    assert rows["blur"]["kinds"] == ["local"]
    assert rows["gem"]["source"]["dist"] == "poolzoo"
    assert rows["gem"]["source"]["tier"] == "built-in"


def test_python_and_the_command_line_list_the_same_poolings(poolzoo):
    import poolzoo as package

    rows = poolzoo("list", "--json").json["poolings"]
    pairs = {(e.item.name, e.item.kind) for e in loader.catalog().select(spec.Pooling)}
    assert {(row["name"], kind) for row in rows for kind in row["kinds"]} == pairs
    assert package.list_poolings() == sorted(row["name"] for row in rows)


def test_list_backbones_names_ours_and_the_families(poolzoo):
    rows = poolzoo("list", "backbones", "--json").json["backbones"]
    assert [row["name"] for row in rows] == ["nano/plain", "nano/resnet", "timm/*", "torchvision/*"]


def test_a_filter_looks_into_a_family(poolzoo):
    names = [
        row["name"] for row in poolzoo("list", "backbones", "--filter", "timm/resnet18*", "--json").json["backbones"]
    ]
    assert "timm/resnet18" in names
    assert all(name.startswith("timm/resnet18") for name in names)


def test_list_says_what_failed_to_load(poolzoo, tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module")
    outcome = poolzoo("list", "--json", "--plugin", tmp_path / "broken.py")
    assert outcome.code == 0
    (problem,) = outcome.json["problems"]
    assert problem["plugin"] == "broken"
    assert problem["stage"] == "import"
    assert len([line for line in outcome.err.splitlines() if "broken" in line]) == 1


def test_strict_turns_a_problem_before_or_after_into_an_error(poolzoo, tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module")
    assert poolzoo("--strict", "--plugin", tmp_path / "broken.py", "list").code == 3
    assert poolzoo("list", "--plugins-dir", tmp_path, "--strict").code == 3
    assert poolzoo("list", "--plugins-dir", tmp_path).code == 0


def test_show_prints_options_with_types_and_defaults(poolzoo):
    item, local = poolzoo("show", "gem", "--json").json["items"]
    assert {"name": "p", "default": "3.0", "type": "float"} in item["options"]
    assert "1711.02512" in item["paper"]
    assert (item["kind"], local["kind"]) == ("global pooling", "local pooling")
    assert item["out_features"] == {"64": 64, "512": 512}
    assert item["parameters"] == {"64": 1, "512": 1}
    assert item["cost"]["forward_ms"] > 0
    assert poolzoo("show", "lse:learnable=false", "--json").json["items"][0]["parameters"] == {"64": 0, "512": 0}
    shown = poolzoo("show", "gem").out
    assert "y = (mean max(x, eps)^p)^(1/p)" in shown
    assert "times reading it once" in shown
    outcome = poolzoo("show", "resnet18")
    assert outcome.code == 0
    assert "224" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "code", "says", "hints"),
    [
        (["frobnicate"], 2, "frobnicate", "list"),
        (["lst"], 2, "lst", "list"),
        (["list", "poolngs"], 2, "poolngs", "--help"),
        (["list", "--jsn"], 2, "--jsn", "did you mean --json?"),
        (["list", "--zzzz"], 2, "--zzzz", "poolzoo list --help"),
        (["compare", "--robust", "30"], 2, "--robust", "--robustness-samples"),
        (["compare", "--finalists", "1"], 2, "--finalists", "--export-top"),
        (["finetune", "--finalists", "1"], 2, "--finalists", "poolzoo finetune --help"),
        (["export", "run", "--no-speed"], 2, "--no-speed", "--no-bench"),
        (["show", "gme"], 2, "gme", "gem"),
        (["finetune", "--pool", "gme"], 2, "gme", "gem"),
        (["finetune", "--data", "digits", "--pool", "gem:q=2"], 2, "'q'", "leave it out"),
        (["finetune", "--data", "digits", "--pool", "gem:p=x"], 2, "p=x", "p=3.0"),
        (["finetune", "--data", "digits", "--pool", "gem:p=-1"], 2, "p=-1", "show"),
        (["finetune", "--data", "digits", "--pool", "blur"], 2, "blur", "other kind"),
        (["finetune", "--data", "digits", "--backbone", "nano/resnt"], 2, "nano/resnt", "nano/resnet"),
        (["finetune", "--data", "digits", "--backbone", "resnet81"], 2, "resnet81", "resnet"),
        (["finetune", "--data", "digits", "--backbone", "torchvision/resnt18"], 2, "resnt18", "torchvision/resnet18"),
        (["finetune", "--data", "digit"], 2, "digit", "digits"),
        (["finetune", "--data", "folder:/no/such/place"], 2, "/no/such/place", "train/"),
        (["finetune", "--data", "digits", "--epochs", "0"], 2, "--epochs", "--help"),
        (["finetune", "--data", "digits", "--epochs", "many"], 2, "--epochs", "--help"),
        (["finetune", "--data", "digits", "--optimizer", "adm"], 2, "adm", "did you mean"),
        (["finetune", "--data", "digits", "--head", "mlp"], 2, "mlp", "mlp:1024"),
        (["finetune", "--data", "digits", "--freeze", "everything"], 2, "everything", "stages:2"),
        (["finetune", "--data", "digits", "--device", "tpu"], 2, "tpu", "leave it out"),
        (["finetune", "--data", "digits", "--config", "/no/file.toml"], 2, "/no/file.toml", "TOML"),
        (["finetune", "--data", "digits", "--weights", "/no/w.safetensors"], 2, "/no/w.safetensors", ".safetensors"),
        (
            ["finetune", "--data", "digits", "--backbone", "nano/plain:widths=8-8-8", "--pretrained"],
            2,
            "widths",
            "leave",
        ),
        (["finetune", "--data", "digits", "--local-pool", "max:window=0"], 2, "window", "at least 1"),
        (["finetune", "--data", "digits", "--local-pool", "soft:window=5000"], 2, "too large", "at most 256"),
        (["finetune", "--data", "digits", "--head", f"mlp:{10**19}"], 2, "mlp", "at most 1,000,000"),
        (
            ["finetune", "--data", "digits", "--backbone", "test_convnext", "--local-pool", "blur"],
            2,
            "no pooling module",
            "leave",
        ),
        (["finetune", "--data", "digits", "--backbone", "resnet18", "--image-size", "16"], 2, "1×1", "--stem small"),
        (["finetune", "--resume", "/no/run"], 2, "/no/run", "interrupted"),
        (["evaluate", "/no/run"], 2, "/no/run", "directory"),
        (["export", "/no/run"], 2, "/no/run", "directory"),
        (["verify", "/no/bundle"], 2, "/no/bundle", "directory"),
        (["predict", "/no/bundle", "x.png"], 2, "/no/bundle", "directory"),
        (["list", "--plugin", "/no/plugin.py"], 2, "/no/plugin.py", "path"),
    ],
)
def test_bad_input_gets_one_line_a_hint_and_its_code(poolzoo, tmp_path, monkeypatch, arguments, code, says, hints):
    monkeypatch.chdir(tmp_path)
    outcome = poolzoo(*arguments)
    assert outcome.code == code
    assert outcome.out == ""
    lines = [line for line in outcome.err.splitlines() if not line.startswith("training from scratch")]
    assert len(lines) == 2, lines
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert lines[1].startswith("hint: ")
    assert hints in lines[1]
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_the_environments_fault(poolzoo):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for arguments in (["finetune", "--data", "digits", "--device", "cuda"], ["evaluate", "x", "--device", "cuda:3"]):
        outcome = poolzoo(*arguments)
        assert outcome.code == 4
        assert "--device cpu" in outcome.err


def test_doctor_finds_a_working_cpu_provider(poolzoo):
    outcome = poolzoo("doctor", "--json")
    states = {one["what"]: one["state"] for one in outcome.json["findings"]}
    assert outcome.code == 0
    assert states["cpu provider"] == "ok"
    assert states["torch"] == "ok"


def test_an_unexpected_error_is_one_line_without_a_traceback(poolzoo, monkeypatch):
    import poolzoo.cli.list as module

    monkeypatch.setattr(module.loader, "catalog", lambda: 1 / 0)
    outcome = poolzoo("list")
    assert outcome.code == 1
    assert "ZeroDivisionError" in outcome.err
    assert "Traceback" not in outcome.err
    monkeypatch.setenv("POOLZOO_DEBUG", "1")
    shown = poolzoo("list")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.startswith("Traceback (most recent call last):")
    assert shown.err.endswith(outcome.err)
    monkeypatch.setenv("POOLZOO_DEBUG", "0")
    assert poolzoo("list").err == outcome.err


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder in which a process runs")
def test_a_current_folder_that_was_removed_is_one_line(poolzoo, tmp_path, monkeypatch):
    """Libraries of torch end a process there, with a line of their own and an exit code of ours."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    outcome = poolzoo("list")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err == "error: the current folder was removed\nhint: cd to one that is there\n"


def test_debug_shows_where_a_wrong_value_was_refused(poolzoo, monkeypatch):
    monkeypatch.setenv("POOLZOO_DEBUG", "1")
    outcome = poolzoo("show", "nothing-of-that-name")
    assert (outcome.code, outcome.out) == (2, "")
    assert "poolzoo/cli/show.py" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("hint: ")


def test_a_list_that_is_given_twice_counts_whole(poolzoo):
    outcome = poolzoo("bench", Path(__file__).parents[1], "--runtime", "nope", "--runtime", "onnxruntime")
    assert outcome.code == 2
    assert outcome.err.startswith("error: no runtime is called 'nope'")
