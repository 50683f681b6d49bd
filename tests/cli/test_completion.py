"""Completion: what a shell is answered, and what bash, zsh and fish make of it in a terminal."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from poolzoo import cli
from poolzoo.backbones import registered
from poolzoo.cli import completion
from poolzoo.plugin import grammar, loader, spec
from poolzoo.plugin.imports import import_build
from poolzoo.plugin.signatures import written_options

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Complete:
    """Answers a line as the scripts ask for it, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def ask(line: str, shell: str = "fish") -> list[str]:
        monkeypatch.setenv(completion.LINE, line)
        monkeypatch.setenv(completion.WORD_BREAKS, " \t\n\"'><=;|&(:")
        loader.forget()
        capsys.readouterr()
        assert completion.answer(cli.cli, shell) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return [one.split("\t")[0] for one in captured.out.splitlines()]

    return ask


def test_commands_and_their_commands_complete(complete):
    assert complete("poolzoo ") == list(cli.COMMANDS)
    assert complete("poolzoo ex") == ["export"]
    assert complete("poolzoo plugin d") == ["disable"]
    assert complete("poolzoo help plugin ch") == ["check"]


def test_options_and_closed_sets_complete(complete):
    assert complete("poolzoo export --prec") == ["--precision"]
    assert complete("poolzoo export run --precision f") == ["fp32", "fp16"]
    assert complete("poolzoo export run --precision=f") == ["--precision=fp32", "--precision=fp16"]
    assert complete("poolzoo finetune --freeze st") == ["stages:"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("finetune --pool gem", ["gem", "gem:"]),
        ("finetune --pool gem:", ["gem:p=", "gem:learnable=", "gem:eps="]),
        ("finetune --pool gem:p=4,l", ["gem:p=4,learnable="]),
        ("finetune --pool gem:learnable=", ["gem:learnable=true", "gem:learnable=false"]),
        ("finetune --pool gem:p=", ["gem:p=3.0"]),
        ("finetune --pool gem:q=", []),
        ("finetune --local-pool maxb", ["maxblur"]),
        ("finetune --pool mixed:share=", ["mixed:share=layer", "mixed:share=channel"]),
        ("finetune --local-pool blur:win", ["blur:window="]),
        ("compare --pool avg,ge", ["avg,gem"]),
        ("compare --pool avg,gem:p=3,ep", ["avg,gem:p=3,eps="]),
        ("compare --pool avg,gem:p=3,max", ["avg,gem:p=3,max"]),
        ("compare --local-pool no", ["none"]),
        ("finetune --backbone nano/p", ["nano/plain"]),
        ("finetune --backbone timm/resnet18", ["timm/resnet18", "timm/resnet18d"]),
        ("finetune --backbone resnet18", ["resnet18", "resnet18d"]),
        ("finetune --data dig", ["digits"]),
        ("verify bundle --runtime onnxruntime,openv", ["onnxruntime,openvino"]),
        ("export run --runtime au", ["auto"]),
        ("finetune --optimizer adamw", ["adamw", "adamwlegacy"]),
        ("compare --protocol digits-h", ["digits-heads"]),
        ("show tune-", ["tune-cnn"]),
    ],
)
def test_values_complete(complete, line, found):
    assert complete(f"poolzoo {line}") == found


def test_paths_complete_behind_the_kind_of_data(complete, tmp_path):
    for name in ("photos/train", "photos/test", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "table.csv").touch()
    assert complete("poolzoo finetune --data folder:") == ["folder:photos/"]
    assert complete("poolzoo finetune --data folder:photos/t") == ["folder:photos/test/", "folder:photos/train/"]
    assert complete("poolzoo finetune --data csv:t") == ["csv:table.csv"]
    assert complete("poolzoo data check folder:no/such/place/") == []


def test_runs_and_bundles_come_whole_and_first(complete, tmp_path):
    for name in ("runs/good/run.toml", "runs/odd/notes.txt", "exports/mine/model.onnx"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert complete("poolzoo evaluate ") == ["runs/good", "exports/", "runs/", "exports/mine"]
    assert complete("poolzoo finetune --resume runs/") == ["runs/good", "runs/odd/"]
    assert complete("poolzoo predict exports/") == ["exports/mine"]


def test_bash_gets_words_quoted_and_behind_its_word_breaks(complete, tmp_path):
    (tmp_path / "a $(touch pwned) b").mkdir()
    (tmp_path / "line\nbreak").mkdir()
    assert complete("poolzoo finetune --pool gem:p", "bash") == ["p="]
    assert complete("poolzoo finetune --data folder:", "bash") == [r"a\ \$\(touch\ pwned\)\ b/"]
    assert complete("poolzoo finetune --data 'folder:a", "bash") == ["folder:a $(touch pwned) b/"]
    assert complete(r"poolzoo finetune --data folder:a\ \$", "bash") == [r"a\ \$\(touch\ pwned\)\ b/"]


PLUGIN = """
from poolzoo import Pooling, hookimpl
def build(channels, *, good: bool = True): pass
@hookimpl
def poolzoo_poolings():
    print("noise")
    yield Pooling(name="mine", kind="global", build=build, summary="red \\x1b[31m\\ttab\\nline", equation="y", tex="y")
"""


def test_texts_of_plugins_are_shown_and_not_obeyed(complete, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.setenv(completion.LINE, f"poolzoo --plugin {tmp_path}/mine.py finetune --pool mi")
    completion.answer(cli.cli, "fish")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("mine")] == ["mine\tred \\x1b[31m tab line"]
    loader.settings.reset()


def test_broken_words_have_no_completion_and_no_message(complete):
    for line in ("", "poolzoo '", "poolzoo finetune --pool ::=,", "poolzoo --plugin /no/such.py list ", "\x1b\n"):
        assert all(isinstance(one, str) for one in complete(line))


def test_completion_imports_no_torch():
    lines = ["finetune --pool gem:", "finetune --backbone timm/res", "export run --runtime o", "show g", "compare --"]
    code = (
        "import os, sys\n"
        "from poolzoo import cli\nfrom poolzoo.cli import completion\n"
        f"for line in {lines!r}:\n"
        "    os.environ[completion.LINE] = 'poolzoo ' + line\n"
        "    assert completion.answer(cli.cli, 'zsh') == 0\n"
        "print([name for name in ('torch', 'timm', 'torchvision', 'numpy', 'PIL') if name in sys.modules])\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "timm/resnet18" in shown
    assert shown.splitlines()[-1] == "[]"


def test_options_read_from_source_are_those_of_the_signature():
    catalog, compared = loader.catalog(), 0
    for entry in catalog.select((spec.Pooling, spec.Backbone)):
        signature = grammar.options_of(import_build(entry.item.build, entry.item.name, entry.source))
        read = written_options(entry.item.build)
        assert {one.name for one in read} == {one.name for one in signature}, entry.item.name
        shown = {one.name: grammar.plain(one.default) for one in signature}
        assert all(one.default in ("", shown[one.name]) for one in read), entry.item.name
        compared += len(read)
    assert compared > 50


@pytest.mark.slow
def test_names_read_from_source_are_those_of_the_libraries():
    import timm
    import torchvision
    from timm.optim import list_optimizers

    assert registered.model_names("timm") == sorted(timm.list_models())
    assert set(registered.model_names("torchvision")) >= set(torchvision.models.list_models(module=torchvision.models))
    names, known = set(registered.optimizer_names()), set(list_optimizers())
    assert names <= known
    assert len(names) > 0.9 * len(known)  # a few are registered under computed names


class Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, argv: list[str], environment: dict[str, str], folder: Path) -> None:
        self.process, self.end = pty.fork()
        if not self.process:
            os.chdir(folder)
            os.execvpe(argv[0], argv, environment)

    def type(self, keys: str, expected: str, seconds: float = 60) -> None:
        """Types, and waits until the terminal has shown something."""
        os.write(self.end, keys.encode())
        shown, stop = b"", time.monotonic() + seconds
        while expected.encode() not in shown:
            left = stop - time.monotonic()
            assert left > 0, f"{keys!r} never showed {expected!r} but {shown!r}"
            if select.select([self.end], [], [], left)[0]:
                shown += os.read(self.end, 4096)

    def close(self) -> None:
        os.close(self.end)
        os.waitpid(self.process, 0)


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(poolzoo completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'eval "$(poolzoo completion zsh)"'),
    "fish": (["fish", "--private", "--no-config", "-i"], "poolzoo completion fish | source"),
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes_in_a_terminal(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    (home / "my $(x) photos").mkdir(parents=True)
    program = programs / "poolzoo"
    root = Path(cli.__file__).parents[2]
    python = f"PYTHONPATH={shlex.quote(str(root))} exec {shlex.quote(sys.executable)}"
    program.write_text(f'#!/bin/sh\n{python} -m poolzoo "$@"\n')
    program.chmod(0o755)
    argv, setup = SHELLS[shell]
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home), "TERM": "xterm"}
    environment.pop("ENV", None)
    terminal = Terminal(argv, environment, home)
    try:
        terminal.type(f'{setup}; echo rea""dy\n', "ready\r\n")
        terminal.type("poolzoo finetune --pool gem:lea\t", "rnable=")
        terminal.type("t\t", "rue")
        terminal.type("\x15poolzoo finetune --data folder:my\t", r"\ \$\(x\)\ photos/")
        terminal.type("\x15poolzoo expo\t", "rt")
    finally:
        terminal.close()


def test_completion_says_how_to_install_it(poolzoo):
    for shell in completion.SCRIPTS:
        outcome = poolzoo("completion", shell)
        assert outcome.out.count("# To install: poolzoo completion") == 1
        assert outcome.err == ""
        assert f"poolzoo completion {shell} > " in poolzoo("completion", "--help").out
    outcome = poolzoo("completion", "tcsh")
    assert (outcome.code, outcome.out) == (2, "")
