"""stdout carries our data and nothing else, whatever plugins print and however they do it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from poolzoo import cli
from poolzoo.common import output, streams
from poolzoo.plugin import loader

NOISE = """
import os, sys

def shout(where):
    print("noise: print in", where)
    os.write(1, f"noise: descriptor in {where}\\n".encode())
    sys.stdout.buffer.write(b"noise: buffer in " + where.encode() + b"\\n")
"""
LOUD = (
    NOISE
    + """
import numpy as np
from poolzoo import Dataset, Pooling, hookimpl

shout("import")

def build(channels):
    shout("build")
    from torch import nn

    class Loud(nn.Module):
        def forward(self, x):
            shout("forward")
            return x.mean((2, 3))

    return Loud()

def load(split, cache_dir):
    shout("load")
    labels = np.arange(24, dtype=np.int64) % 2
    return np.full((24, 8, 8, 3), 40, np.uint8) + 160 * labels.astype(np.uint8)[:, None, None, None], labels

@hookimpl
def poolzoo_poolings():
    shout("hook")
    yield Pooling(name="loud", summary="", kind="global", build=build, parameter_free=True)

@hookimpl
def poolzoo_datasets():
    yield Dataset(name="loud-data", summary="", load=load)

@hookimpl
def poolzoo_epoch_finished(epoch):
    shout("event")
"""
)
CLOSING = (
    NOISE
    + """
import atexit, ctypes, io, subprocess, threading

shout("import")
sys.__stdout__.write("noise: the first object\\n")
subprocess.run(["echo", "noise: child"])
ctypes.CDLL(None).puts(b"noise: libc")
thread = threading.Thread(target=shout, args=("thread",))
thread.start(), thread.join()
atexit.register(ctypes.CDLL(None).puts, b"noise: at exit")
sys.stdout.close()
io.TextIOWrapper(sys.stdout.detach()).write("noise: detached\\n")
sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
sys.stdout = None
"""
)
NOISY = ("list", "datasets", "--json", "--plugin")


@pytest.fixture
def loud(tmp_path):
    (tmp_path / "loud.py").write_text(LOUD)
    return tmp_path / "loud.py"


def test_every_command_prints_json_alone(loud, tmp_path, capfd):
    """The pooling and the data set print in every stage, through Python and below it."""
    run = tmp_path / "run"
    training = ("--data", "loud-data", "--backbone", "nano/plain", "--pool", "loud", "--epochs", 1, "--no-check-export")
    for arguments, stages in (
        (("show", "loud"), ("import", "hook", "build", "forward")),
        (("finetune", *training, "--batch-size", 8, "--out", run), ("load", "build", "forward", "event")),
        (("evaluate", run), ("load", "build", "forward")),
    ):
        loader.forget()
        capfd.readouterr()
        assert cli.run([*map(str, arguments), "--plugin", str(loud), "--json"]) == 0
        captured = capfd.readouterr()
        assert captured.out.splitlines(), arguments
        assert all(isinstance(json.loads(line), dict) for line in captured.out.splitlines())
        for stage in stages:
            for way in ("print", "descriptor", "buffer"):
                assert f"noise: {way} in {stage}" in captured.err


def test_the_conformance_kit_prints_json_alone(tmp_path, capfd):
    (tmp_path / "loud.py").write_text(LOUD.replace("    yield Pooling", "    return []\n    yield Pooling"))
    assert cli.run(["plugin", "check", str(tmp_path / "loud.py"), "--json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["passed"]
    assert "noise: descriptor in load" in captured.err


@pytest.mark.parametrize("last", ["", "os.close(1)"])
def test_a_process_protects_its_stdout_from_plugins(tmp_path, last):
    (tmp_path / "closing.py").write_text(CLOSING + last)
    command = [sys.executable, "-m", "poolzoo", *NOISY, tmp_path / "closing.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)["datasets"]][-1] == "shards:"
    for way in ("the first object", "child", "print in thread", "detached", *(() if last else ("libc", "at exit"))):
        assert f"noise: {way}" in done.stderr, way


@pytest.mark.skipif(os.name == "nt", reason="asks a POSIX shell")
@pytest.mark.parametrize(
    ("tail", "code", "out"),
    [
        (">&-", 0, ""),  # closed: nobody asks for the data
        (">&- 2>&-", 0, ""),
        ("2>&- | wc -l", 0, "1\n"),
        ("| head -c 5", 0, '{"dat'),
        ("> /dev/full", 4, ""),
        ("2>&1 > /dev/null | true", 0, ""),  # nobody reads stderr
    ],
)
def test_a_closed_full_or_abandoned_stdout_is_no_crash(loud, tail, code, out):
    line = f'"$0" -m poolzoo {" ".join(NOISY)} "$1" {tail}'
    command = ["bash", "-o", "pipefail", "-c", line, sys.executable, str(loud)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def _wait_until_full(writing, process):
    while select.select([], [writing], [], 0)[1] and process.poll() is None:
        time.sleep(0.01)
    os.close(writing)


@pytest.mark.skipif(os.name == "nt", reason="pipes of Windows always wait")
def test_a_full_pipe_that_does_not_wait_loses_nothing():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    code = "from poolzoo.common import streams; streams.take(); streams.write('x' * 2_000_000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=writing) as process, open(reading, "rb") as pipe:
        _wait_until_full(writing, process)
        assert len(pipe.read()) == 2_000_000
    assert process.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="pipes of Windows always wait")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_no_line_is_lost_on_a_full_pipe_that_does_not_wait(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    code = "from poolzoo.common import streams\nfor number in range(2000): streams.log(f'{number} {100 * chr(120)}')"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=writing, env=environment) as process, open(reading, "rb") as pipe:
        _wait_until_full(writing, process)
        assert [int(line.split()[0]) for line in pipe.read().splitlines()] == [*range(2000)]
    assert process.returncode == 0


def test_click_s_own_runner_gets_json_alone(loud):
    result = CliRunner().invoke(cli.cli, [*NOISY, str(loud)])
    assert json.loads(result.stdout)["datasets"][-1]["name"] == "loud-data"
    assert "noise: print in hook" in result.stderr
    assert CliRunner().invoke(cli.cli, ["list", "--help"]).stdout.startswith("Usage:")


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("plugin", "new", "--help")])
def test_help_is_data(poolzoo, arguments):
    outcome = poolzoo(*arguments)
    assert outcome.out
    assert outcome.err == ""


def test_a_command_gives_stdout_back(capfd):
    before = sys.stdout
    with streams.owned():
        assert sys.stdout is not before
        with streams.owned():
            print("foreign")
        sys.stdout.close()
        os.write(1, b"below\n")
        output.data("ours")
    assert sys.stdout is before
    os.write(1, b"afterwards\n")
    print("and above")
    captured = capfd.readouterr()
    assert sorted(captured.out.splitlines()) == ["afterwards", "and above", "ours"]
    assert sorted(captured.err.splitlines()) == ["below", "foreign"]


def test_from_python_stdout_stays_the_users(loud, capfd):
    """Only while plugins are loaded what they print is kept off stdout."""
    import torch

    import poolzoo

    before = sys.stdout
    loader.load_plugins(loud, installed=False)
    assert "noise" not in capfd.readouterr().out
    layer = poolzoo.create_pooling("loud", channels=2)
    layer(torch.ones(1, 2, 3, 3))
    assert sys.stdout is before
    assert "noise: print in forward" in capfd.readouterr().out


def test_a_pipe_that_a_plugin_breaks_is_an_error(poolzoo, tmp_path):
    """It is no sign that the reader of our own output has gone, which ends a command well."""
    (tmp_path / "pipe.py").write_text(LOUD.replace('    shout("load")', "    raise BrokenPipeError"))
    arguments = ("finetune", "--data", "loud-data", "--backbone", "nano/plain", "--dry-run")
    outcome = poolzoo(*arguments, "--plugin", tmp_path / "pipe.py")
    assert outcome.code == 4
    assert "BrokenPipeError" in outcome.err


def test_errors_are_told_though_stderr_is_closed(tmp_path):
    (tmp_path / "mute.py").write_text(
        "import os, sys\nsys.stderr.close()\nos.close(2)\nraise ValueError('all the same')"
    )
    command = [sys.executable, "-m", "poolzoo", *NOISY, tmp_path / "mute.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["problems"][0]["stage"] == "import"
    assert "all the same" in done.stderr
