"""Every command line and every block of Python in the documents runs, on small files in place of the reader's."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from PIL import Image
from support import foreign
from support.command_lines import PAGES, ROOT, Line, blocks, commands, fenced, flags, inline, name_of, parse, prose

from poolzoo import cli
from poolzoo.train import run as training
from poolzoo.train.settings import Settings

FENCED = fenced()
# Pages whose commands belong to a package or to a machine that is not here; their lines are parsed.
PARSED_PAGES = ("plugins/", "exports/", "poolzoo/", "docs/results/leaderboard.md", "docs/how-to/protocols.md")
EXTERNAL = ("pip", "pytest", "make", "torchrun", "tensorboard")  # programs that are not run here
FLAGS_OF_OTHERS = {"--dynamo", "--rehearse"}  # of timm's export script and of benchmarks/gpu.sh
HEAVY = (
    *("gallery", "plugin check", "export", "verify bundle --runtime all", "bench bundle --runtime all"),
    "verify net.onnx --against model.py:build --images",
)
SMALL = {  # what is added where a command trains: the last value of an option counts
    "finetune": ("--limit", "48", "--epochs", "1"),
    "choose": ("--limit", "48", "--epochs", "1", "--seeds", "2", "--backbone", "nano/plain", "--pool", "avg,max"),
    "compare": ("--limit", "48", "--epochs", "1", "--seeds", "2", "--robustness-samples", "4", "--export-top", "1"),
}


def programs() -> list[tuple[Line, list[str]]]:
    return [(line, words) for line in FENCED for words in line.commands]


def arguments(words: list[str]) -> list[str] | None:
    """What poolzoo gets of a command, if it is one of poolzoo's."""
    if words[0] == "poolzoo":
        return words[1:]
    return words[words.index("poolzoo") + 1 :] if words[0] == "torchrun" else None


def needs(words: list[str]) -> str:
    """Why a command cannot run here; empty if it can."""
    given = " ".join(words)
    if "lite0" in words or "power-mean" in words:
        return "an installed plugin"
    if "--pretrained" in words and ("timm/" in given or "torchvision/" in given):
        return "a download of weights"
    if (words[0] in ("finetune", "compare") and not {"--data", "--resume"} & set(words)) or "cifar10" in words:
        return "a download of images"
    if {"--abstain-at", "--prediction-sets"} & set(words):
        return "validation images: the run of the reader has two"
    if "ray" in words:
        return "a Ray cluster"
    return "openvino" if "openvino" in given and importlib.util.find_spec("openvino") is None else ""


def trains(words: list[str]) -> bool:
    return words[0] in ("finetune", "compare", "choose") and "--dry-run" not in words


def runnable() -> list[tuple[Line, list[str]]]:
    return [
        (line, given)
        for line, words in programs()
        if not line.page.startswith(PARSED_PAGES)
        and words[0] == "poolzoo"
        and (given := arguments(words)) is not None
        and not needs(given)
    ]


def is_heavy(words: list[str]) -> bool:
    return trains(words) or " ".join(words).startswith(HEAVY)


def cases(heavy: bool) -> list[object]:
    """The commands that run, each once however many documents show it."""
    unique = {tuple(words): line for line, words in runnable() if is_heavy(words) == heavy}
    return [pytest.param(list(words), id=" ".join(words)) for words in unique]


# --- Stand-ins for the reader's files ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def reader(tmp_path_factory) -> Path:
    """A directory with the files that the documents name: images, runs, a bundle, a plugin."""
    place = tmp_path_factory.mktemp("reader")
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name, tint in (("blue", (30, 60, 200)), ("red", (200, 60, 30))):
            folder = place / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.array(tint) + random.integers(-25, 25, (16, 16, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    shutil.copytree(place / "photos", place / "other-images")
    images = sorted(place.glob("photos/*/*/*.png"))
    rows = [f"{path.relative_to(place)},{path.parent.name}|{path.stem[:1]},{path.parts[-3]}" for path in images]
    (place / "tagged.csv").write_text("\n".join(["path,labels,split", *rows]))
    rows = [f"{path.relative_to(place)},{path.parent.name},{path.parts[-3]}" for path in images]
    (place / "photos.csv").write_text("\n".join(["path,label,split", *rows]))
    for name in ("photo.jpg", "chelsea.png"):
        Image.fromarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(place / name)
    shutil.copy(ROOT / "plugins/single_file/power_mean.py", place)
    foreign.write_module(place, "model.py")
    onnx.save(foreign.make(), place / "net.onnx")
    usual = ("finetune", "--data", f"folder:{place}/photos", "--backbone", "nano/plain", "--epochs", "1", "-q")
    for name, pool in (("run", "gem"), ("run-a", "avg"), ("run-b", "max"), ("run-c", "gem")):
        assert cli.run([*usual, "--pool", pool, "--no-check-export", "--out", str(place / name)]) == 0
    assert cli.run(["export", str(place / "run"), "--no-bench", "-q", "--out", str(place / "bundle")]) == 0
    return place


@pytest.fixture
def desk(reader, tmp_path, monkeypatch) -> Path:
    """The current directory: the reader's files, of which a test may add some and replace none."""
    for path in reader.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_room(words: list[str]) -> None:
    """Removes the link to a stand-in that the command is about to write."""
    for option in ("--out", "--dir"):
        if option in words:
            Path(words[words.index(option) + 1]).unlink(missing_ok=True)


def interrupt(path: Path) -> None:
    """Leaves a run behind that was interrupted after its first epoch."""

    def stop(line: object) -> None:
        raise KeyboardInterrupt

    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        training.finetune(Settings(data="folder:photos", backbone="nano/plain", epochs=2), path, stop)


# --- The commands --------------------------------------------------------------------------------------------------


def test_shell_sessions_are_fenced_and_marked():
    for page, content in blocks("console"):
        first = content.splitlines()[0]
        known = first.startswith(("$ ", "ignored:", "images of ", "warning:"))  # a command, or a message on its own
        assert known or page.startswith("exports/"), f"{page}: {first}"
    for language in ("sh", "bash", "shell"):
        assert list(blocks(language)) == [], "write ```console, and $ before each command"
    for page, content in blocks(""):  # a drawing
        assert "\n$ " not in content, page
        assert "poolzoo " not in content, page
    for path in PAGES:
        for line in prose(path).splitlines():
            assert not line.startswith(("    poolzoo ", "    $ ", "    pip ", "    make ")), f"{name_of(path)}: {line}"


@pytest.mark.parametrize("line", FENCED, ids=str)
def test_every_fenced_command_is_known_and_parses(line):
    for words in line.commands:
        if (given := arguments(words)) is not None:
            parse(given)
        elif words[:2] == ["python", "-m"]:
            assert words[2].startswith("benchmarks.")
        else:
            assert words[0] in ("python", *EXTERNAL), f"no test knows what {words[0]} is"


def test_every_inline_command_parses():
    for line in inline("poolzoo"):
        text = line.text.removeprefix("poolzoo ")
        for name in text.split()[-1].split("|") if text.startswith("plugin ") else [""]:
            words = [*text.split()[:-1], name] if name else text.split()
            with suppress(click.MissingParameter):  # `poolzoo show` in a sentence
                parse([word for word in words if word != "…"])


def test_every_flag_in_the_documents_exists():
    known = {name for _, one in commands() for option in one.params for name in (*option.opts, *option.secondary_opts)}
    for flag, pages in flags().items():
        assert flag in known | FLAGS_OF_OTHERS, f"{flag} in {', '.join(sorted(pages))}"


def test_every_benchmark_and_its_options_exist():
    shared = "".join((ROOT / "benchmarks" / name).read_text() for name in ("coverage/jobs.py", "train/peers.py"))
    lines = [*inline("python"), *(line for line in FENCED if line.text.startswith("python"))]
    named = [line for line in lines if " -m benchmarks." in line.text]
    assert named
    for line in named:
        _, _, module, *options = line.text.split()
        place = ROOT / module.replace(".", "/")
        source = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text() + shared
        for option in options:
            if option.startswith("--"):
                assert f'"{option}"' in source, line


def test_every_target_of_make_in_the_documents_exists():
    makefile = (ROOT / "Makefile").read_text()
    lines = [*inline("make"), *(line for line in FENCED if line.text.startswith("make"))]
    assert lines
    for line in lines:
        assert f"\n{line.text.split()[1]}:" in makefile, line


@pytest.mark.parametrize("words", cases(heavy=False))
def test_commands_of_the_documents_run(poolzoo, desk, words):
    make_room(words)
    outcome = poolzoo(*words)
    assert outcome.code == 0 or words[0] == "doctor", outcome.err
    assert outcome.out


@pytest.mark.slow
@pytest.mark.parametrize("words", cases(heavy=True))
def test_commands_that_train_run(poolzoo, desk, words):
    make_room(words)
    small = SMALL[words[0]] if trains(words) and "--resume" not in words else ()
    if words[0] == "compare" and "--resume" in words:
        arguments = ("--data", "folder:photos", "--backbone", "nano/plain", "--pool", "avg,max")
        assert poolzoo("compare", *arguments, *SMALL["compare"], "--out", words[-1]).code == 0
    elif "--resume" in words:
        interrupt(desk / words[-1])
    outcome = poolzoo(*words, *small)
    assert outcome.code == 0, outcome.err
    assert outcome.out


@pytest.mark.parametrize(
    "line", [line for line in FENCED if line.text.startswith("python bundle/")], ids=lambda line: line.page
)
def test_scripts_of_a_bundle_run(desk, line):
    (words,) = line.commands
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


# --- Python --------------------------------------------------------------------------------------------------------


def python(trained: bool) -> list[object]:
    shown = ((page, code) for page, code in blocks("python") if not page.startswith(PARSED_PAGES))
    found = ((page, code) for page, code in shown if ("finetune_heads(" in code) == trained)
    return [pytest.param(code, id=f"{page}-{index}") for index, (page, code) in enumerate(found)]


@pytest.mark.parametrize("code", python(trained=False))
def test_python_in_the_documents_runs(desk, code):
    exec(compile(code, "document", "exec"), {"__name__": "document"})


@pytest.mark.slow
@pytest.mark.parametrize("code", python(trained=True))
def test_python_that_trains_runs(desk, code):
    scope: dict[str, object] = {"__name__": "document"}
    exec(compile(code, "document", "exec"), scope)
    assert scope["reports"]
