"""The blocks of every document run: commands, Python, examples with their output, on small files of a reader.

Slow tests run all blocks of a document in order, in one folder, so that what one command writes the next one reads.
Quick tests run each command that takes less than a second once. A block that no test runs says why in the document:
`<!-- not run: REASON -->`. `reason_not_to_run` has the reasons for single commands.
"""

from __future__ import annotations

import doctest
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from support import foreign
from support.command_lines import PAGES, ROOT, Block, Line, name_of, session

from poolzoo import cli
from poolzoo.plugin import loader, spec
from poolzoo.runtime import availability
from poolzoo.train import run as training
from poolzoo.train.settings import Settings

# Documents of packages and machines that are not here; their commands are parsed only.
ELSEWHERE = ("plugins/", "exports/", "poolzoo/", "findings/", "docs/results/leaderboard.md", "docs/how-to/protocols.md")
TO_THE_LETTER = ("docs/tutorial/first-comparison.md", "docs/how-to/abstention.md")  # another test runs them as they are
DOCUMENTS = [path for path in PAGES if not name_of(path).startswith((*ELSEWHERE, *TO_THE_LETTER))]
PROGRAMS = {  # of others, and why no test runs them
    "pip": "a package index",
    "make": "these tests are among what it runs",
    "pytest": "the tests of a package that is not installed",
    "torchrun": "several processes",
    "twine": "an account of a package index",
    "tensorboard": "a package that is not installed",
}
# What the reader has; quick tests run commands on these alone.
STAND_INS = (
    "photos",
    "other-images",
    "run",
    "run-a",
    "run-b",
    "run-c",
    "bundle",
    "photo.jpg",
    "chelsea.png",
    "net.onnx",
)
SCRIPTS = ("power_mean.py", "model.py:build")
HEAVY = (
    *("gallery", "plugin check", "plugin new", "export", "verify bundle --runtime all", "bench bundle --runtime all"),
    "verify net.onnx --against model.py:build --images",
    "report docs/results",
)
SMALL = {  # what is added where a command trains: the last value of an option counts
    "finetune": ("--limit", "48", "--epochs", "1"),
    "choose": ("--limit", "48", "--epochs", "1", "--seeds", "2", "--backbone", "nano/plain", "--pool", "avg,max"),
    "compare": ("--limit", "48", "--epochs", "1", "--seeds", "2", "--robustness-samples", "4", "--export-top", "1"),
}


def reason_not_to_run(words: list[str]) -> str:
    """Why a command of poolzoo cannot run here; empty if it can."""
    given = " ".join(words)
    if "lite0" in words or ("power-mean" in words and words[:2] != ["plugin", "new"]):
        return "an installed plugin"
    if "--pretrained" in words and ("timm/" in given or "torchvision/" in given):
        return "a download of weights"
    if (words[0] in ("finetune", "compare") and not {"--data", "--resume"} & set(words)) or "cifar10" in words:
        return "a download of images"
    if {"--abstain-at", "--prediction-sets"} & set(words):
        return "validation images: the run of the reader has two"
    if "ray" in words:
        return "a Ray cluster"
    return missing_runtime(words)


def missing_runtime(words: list[str]) -> str:
    """The first runtime of a command that is not installed; empty if there is none."""
    options = [option for option in ("--runtime", "--target") if option in words]
    names = [name for option in options for name in words[words.index(option) + 1].split(",")]
    if not names:
        return ""
    known = {entry.item.name: entry.item for entry in loader.load_plugins(installed=False).select(spec.Runtime)}
    missing = [name for name in names if name in known and not availability.find(known[name]).installed]
    return f"the runtime {missing[0]}" if missing else ""


def trains(words: list[str]) -> bool:
    return words[0] in ("finetune", "compare", "choose") and "--dry-run" not in words


def is_heavy(words: list[str]) -> bool:
    return trains(words) or " ".join(words).startswith(HEAVY)


def commands_of(block: Block) -> list[list[str]]:
    """The words of every command in a shell session."""
    return [words for line in block.lines for words in Line("", line).commands]


def is_quick(words: list[str]) -> bool:
    """Whether a command takes less than a second, and reads nothing that its document has to write first."""
    if is_heavy(words) or reason_not_to_run(words) or any(".py" in word and word not in SCRIPTS for word in words):
        return False
    reads = words[0] in ("evaluate", "export", "verify", "bench", "predict", "report")
    return not reads or words[1].startswith("-") or words[1] in STAND_INS


def quick_commands() -> list[object]:
    """The quick commands of poolzoo, each once however many documents show it."""
    found = dict.fromkeys(
        tuple(words[1:])
        for path in DOCUMENTS
        for block in session(path)
        if block.language == "console" and not block.not_run
        for words in commands_of(block)
        if words[0] == "poolzoo" and is_quick(words[1:])
    )
    return [pytest.param(list(words), id=" ".join(words)) for words in found]


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
    """The current directory: the reader's files, and links to the directories, which a test may replace, not change."""
    for path in reader.iterdir():
        if path.is_dir():
            (tmp_path / path.name).symlink_to(path)
        else:
            shutil.copy(path, tmp_path)
    for name in ("docs", "exports", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_room(words: list[str]) -> None:
    """Removes the link to a stand-in that the command is about to write."""
    for option in ("--out", "--dir"):
        if option in words:
            clear(Path(words[words.index(option) + 1]))


def clear(path: Path) -> None:
    """Removes a stand-in, or what an earlier block of the document wrote."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def interrupt(path: Path) -> None:
    """Leaves a run behind that was interrupted after its first epoch."""

    def stop(line: object) -> None:
        raise KeyboardInterrupt

    clear(path)
    with pytest.raises(KeyboardInterrupt):
        training.finetune(Settings(data="folder:photos", backbone="nano/plain", epochs=2), path, stop)


# --- Commands alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", quick_commands())
def test_quick_commands_of_the_documents_run(poolzoo, desk, words):
    run_poolzoo(poolzoo, desk, words)


def small_settings(words: list[str]) -> tuple[str, ...]:
    """What makes a training short; a comparison of all poolings is one of four, since others test that all train."""
    if not trains(words) or "--resume" in words:
        return ()
    few = ("--pool", "avg,max,gem,attention") if words[0] == "compare" and "all" in words else ()
    return (*SMALL[words[0]], *few)


def run_poolzoo(poolzoo, desk: Path, words: list[str]) -> None:
    """Runs one command with small settings; it has to succeed, and to print or write something."""
    make_room(words)
    small = small_settings(words)
    if "--resume" in words and words[0] == "finetune":
        interrupt(desk / words[-1])
    elif "--resume" in words and words[0] == "compare":
        arguments = ("--data", "folder:photos", "--backbone", "nano/plain", "--pool", "avg,max")
        clear(desk / words[-1])
        assert poolzoo("compare", *arguments, *SMALL["compare"], "--out", words[-1]).code == 0
    before = stamps(desk)
    outcome = poolzoo(*words, *small)
    assert outcome.code == 0 or words[0] == "doctor", outcome.err
    assert outcome.out or stamps(desk) != before, f"{words} prints and writes nothing"


# --- Whole documents -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in DOCUMENTS if session(path)], ids=name_of)
def test_the_blocks_of_a_document_run_in_order(poolzoo, desk, path):
    scope: dict[str, object] = {"__name__": "document"}
    for block in session(path):
        if block.not_run:
            continue
        if block.language == "console":
            for words in commands_of(block):
                run_program(poolzoo, desk, words)
        elif block.language == "python":
            run_python(block.content, scope)
        elif block.language in READ:
            READ[block.language](block.content)


def run_program(poolzoo, desk: Path, words: list[str]) -> None:
    """Runs a command of a session, unless this machine cannot."""
    if words[0] == "poolzoo":
        if not reason_not_to_run(words[1:]):
            run_poolzoo(poolzoo, desk, words[1:])
    elif words[0] == "python" and words[1:2] != ["-m"]:
        before = stamps(desk)
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout or stamps(desk) != before, f"{words} prints and writes nothing"
    else:
        measures = words[:2] == ["python", "-m"] and words[2].startswith(("benchmarks.", "tests."))
        assert measures or words[0] in PROGRAMS, (
            f"nothing runs {words[0]}: write <!-- not run: REASON --> before the block"
        )


def stamps(folder: Path) -> dict[str, int]:
    """The files directly in a folder, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "__pycache__"}


def run_python(code: str, scope: dict[str, object]) -> None:
    """Runs a block, or writes it to the file that its first line names, such as `# serve.py`."""
    first = code.partition("\n")[0]
    if first.startswith("# ") and first.endswith(".py"):
        path = Path(first.removeprefix("# "))
        clear(path)
        path.write_text(code, encoding="utf-8")
        compile(code, path.name, "exec")
    else:
        exec(compile(code, "document", "exec"), scope)


def check_examples(text: str) -> None:
    """Runs `>>> ` examples and compares what they print with what is shown."""
    test = doctest.DocTestParser().get_doctest(text, {}, "document", None, 0)
    said: list[str] = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert tried > 0
    assert failed == 0, "".join(said)


READ = {"toml": tomllib.loads, "json": json.loads}


def test_examples_with_their_output_are_right():
    pages = {name_of(path): session(path) for path in PAGES}
    found = {name: [block.content for block in blocks if block.language == "pycon"] for name, blocks in pages.items()}
    assert found["docs/explanation/four-by-four.md"]
    for texts in filter(None, found.values()):
        check_examples("\n".join(texts))


def quick_python() -> list[object]:
    """Blocks of Python that train nothing, and read nothing that their document writes first."""
    found = ((name_of(path), block) for path in DOCUMENTS for block in session(path) if block.language == "python")
    quick = (
        (name, block.content) for name, block in found if not block.not_run and "finetune_heads(" not in block.content
    )
    return [pytest.param(code, id=f"{name}-{index}") for index, (name, code) in enumerate(quick)]


@pytest.mark.parametrize("code", quick_python())
def test_python_in_the_documents_runs(desk, code):
    run_python(code, {"__name__": "document"})


# --- Pages to the letter, and the server of a how-to ------------------------------------------------------------------


def shape(line: str) -> str:
    """A line of output without its figures."""
    return re.sub(r"[<−-]?\d[\d.,]*", "#", " ".join(line.split()))


@pytest.mark.slow
@pytest.mark.parametrize("name", TO_THE_LETTER)
def test_a_page_works_to_the_letter(poolzoo, reader, tmp_path, monkeypatch, name):
    """Its commands run as they stand; the lines that it shows are printed, but for their figures and for `…`.

    The reader has one photograph. A command that shows an error fails.
    """
    monkeypatch.chdir(tmp_path)
    shutil.copy(reader / "photo.jpg", tmp_path)
    for block in session(ROOT / name):
        if block.language == "python" and not block.not_run:
            run_python(block.content, {"__name__": "document"})
        if block.language != "console" or block.not_run:
            continue
        (words,) = commands_of(block)
        shown = block.content.splitlines()[1:]
        if words[0] == "poolzoo":
            outcome = poolzoo(*words[1:])
            assert (outcome.code == 0) != any(line.startswith("error: ") for line in shown), outcome.err
            printed = outcome.out + outcome.err
        else:
            done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=True)
            printed = done.stdout
        lines = [shape(line) for line in printed.splitlines()]
        for line in shown:
            parts = [re.escape(part) for part in shape(line).split("…")]
            assert any(re.fullmatch(".*".join(parts), one) for one in lines), f"{words}: {line}"


@pytest.mark.slow
def test_the_server_labels_a_photograph(poolzoo, desk):
    assert poolzoo("export", "run", "--input", "photo", "--no-bench", "--out", "server-bundle").code == 0
    (code,) = [block.content for block in session(ROOT / "docs/how-to/deploy.md") if block.language == "python"]
    scope: dict[str, Any] = {"__name__": "serve"}
    exec(compile(code, "serve.py", "exec"), scope)
    server = scope["serve"](port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        with urllib.request.urlopen(address, data=Path("photo.jpg").read_bytes()) as answer:
            found = json.load(answer)
        assert found["label"] in ("blue", "red")
        outcome = poolzoo("predict", "server-bundle", "photo.jpg", "--json")
        (row,) = json.loads(outcome.out)
        assert row["label"] == found["label"]
        assert row["score"] == pytest.approx(found["probability"], abs=1e-5)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(address, data=b"no image")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
