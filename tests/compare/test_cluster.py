"""`poolzoo compare --executor ray`: the table of `--executor local`, whatever dies on the way, and no word of Ray's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.comparison_rows import stable_rows
from support.ray_nodes import node, until, worker_environment
from support.refusals import refused

from poolzoo.common import cluster as connection
from poolzoo.common.errors import EnvironmentProblem

QUICK = ("--data", "digits", "--backbone", "nano/plain", "--limit", 300, "--robustness-samples", 0, "--export-top", 0)
SMALL = ("compare", *QUICK, "--epochs", 3, "--pool", "avg,max", "--seeds", 2, "--threads", 1, "--json")
OURS = ("images of", "trial ", "error: ", "hint: ", "warning: ")  # how the lines on stderr begin that poolzoo says


def journal(folder):
    """The last record of each trial, without what a clock or a place decides."""
    path = folder / "journal.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.is_file() else ()
    records = {line["trial"]: line for line in lines if line["status"] != "session"}
    return {key: {k: v for k, v in one.items() if k not in ("run", "seconds")} for key, one in records.items()}


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory) -> Iterator[None]:
    """What workers inherit: no cache or configuration of the user's, and a token of their own."""
    with worker_environment(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(scope="module")
def cluster(surroundings) -> Iterator[None]:
    """Two workers, connected to from this process."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def address(surroundings) -> Iterator[str]:
    """That of a node in a process of its own."""
    with node() as found:
        yield found


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The comparison `SMALL` in one process. Read it, do not change it."""
    from poolzoo import cli

    path = tmp_path_factory.mktemp("here") / "c"
    assert cli.run([*map(str, SMALL), "--out", str(path), "-q"]) == 0
    return path


def found(folder):
    return json.loads((folder / "compare.json").read_text())


# --- The same as here ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cluster_gives_the_table_and_journal_of_one_process(poolzoo, tmp_path, here, cluster):
    outcome = poolzoo(*SMALL, "--executor", "ray", "--out", tmp_path / "c")
    assert outcome.code == 0, outcome.err
    assert len(outcome.out.splitlines()) == 1
    assert stable_rows(outcome.json) == stable_rows(found(here))
    assert journal(tmp_path / "c") == journal(here)
    assert len(journal(here)) == 4


@pytest.mark.slow
def test_heads_on_a_frozen_backbone_train_together_there_too(poolzoo, tmp_path, cluster):
    quick = ["nano/resnet" if one == "nano/plain" else one for one in QUICK]
    frozen = ("compare", *quick, "--pretrained", "--freeze", "backbone", "--epochs", 1)
    more = ("--pool", "avg,max", "--seeds", 2, "--threads", 1, "--json")
    one, other = (
        poolzoo(*frozen, *more, "--executor", where, "--out", tmp_path / where, "-q").json for where in ("local", "ray")
    )
    assert stable_rows(one) == stable_rows(other)
    runs = [Path(per["run"]) for row in other["results"] for per in row["per_seed"]]
    assert len(runs) == 4
    assert len({run.parent for run in runs}) == 2  # one of each seed: the backbone ran once for both heads


@pytest.mark.slow
def test_an_existing_cluster_is_used_and_ray_says_nothing(tmp_path, here, address):
    words = [*map(str, SMALL), "--executor", "ray", "--ray-address", address, "--out", str(tmp_path / "c")]
    done = subprocess.run([sys.executable, "-m", "poolzoo", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert stable_rows(json.loads(done.stdout)) == stable_rows(found(here))
    assert [line for line in done.stderr.splitlines() if not line.startswith(OURS)] == []


# --- Deaths -------------------------------------------------------------------------------------------------------

MURDER = """
import os, signal
from pathlib import Path

from poolzoo import hookimpl


@hookimpl
def poolzoo_epoch_finished(run, epoch):
    with open({log!r}, "a") as file:
        file.write(f"{{Path(run['path']).name}} {{epoch}} {{os.getpid()}}\\n")
    marker = Path({marker!r})
    if epoch == 2 and run["settings"]["pool"] == "max" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_goes_on_in_another(poolzoo, tmp_path, here, cluster):
    log, plugin = tmp_path / "log", tmp_path / "murder.py"
    plugin.write_text(MURDER.format(log=str(log), marker=str(tmp_path / "marker")))
    outcome = poolzoo(*SMALL, "--executor", "ray", "--plugin", plugin, "--out", tmp_path / "c")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("the worker died") == 1
    assert stable_rows(outcome.json) == stable_rows(found(here))
    told = [line.split() for line in log.read_text().splitlines()]
    (victim,) = {name for name, _, _ in told if len({pid for other, _, pid in told if other == name}) == 2}
    first, second = dict.fromkeys(pid for name, _, pid in told if name == victim)
    assert [epoch for name, epoch, pid in told if (name, pid) == (victim, first)] == ["1", "2"]
    assert [epoch for name, epoch, pid in told if (name, pid) == (victim, second)] == ["3"]


DEADLY = """
from poolzoo import Pooling, hookimpl


def build(channels: int):
    import os, signal
    from torch import nn
    class Deadly(nn.Module):
        def forward(self, x):
            if self.training:
                with open({log!r}, "a") as file:
                    file.write("died\\n")
                os.kill(os.getpid(), signal.SIGKILL)
            return x.mean((2, 3))
    return Deadly()


def raising(channels: int):
    raise RuntimeError("no more")


@hookimpl
def poolzoo_poolings():
    yield Pooling(name="deadly", summary="", kind="global", build=build)
    yield Pooling(name="raising", summary="", kind="global", build=raising)
"""


@pytest.mark.slow
def test_what_dies_every_time_is_a_failed_row(poolzoo, tmp_path, cluster):
    from poolzoo.compare import cluster as ours

    log, plugin = tmp_path / "log", tmp_path / "deadly.py"
    plugin.write_text(DEADLY.format(log=str(log)))
    pools = ("--pool", "deadly,avg,raising", "--baseline", "avg", "--seeds", 1, "--epochs", 1, "--threads", 1)
    arguments = ("compare", *QUICK, *pools, "--executor", "ray", "--plugin", plugin, "--json", "--out", tmp_path / "c")
    outcome = poolzoo(*arguments)
    assert outcome.code == 0, outcome.err
    rows = {row["pool"]: row for row in outcome.json["results"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "avg": "done",
        "deadly": "failed",
        "raising": "failed",
    }
    assert "worker died" in rows["deadly"]["error"]
    assert "no more" in rows["raising"]["error"]
    assert len(log.read_text().splitlines()) == 1 + ours.RETRIES
    assert "warning: raising, seed 0, failed: " in outcome.err  # a worker's own stderr reaches nobody


SLEEPY = """
from poolzoo import Pooling, hookimpl


def build(channels: int):
    import os
    from torch import nn
    class Sleepy(nn.Module):
        def forward(self, x):
            if self.training:
                with open({log!r}, "w") as file:
                    file.write(str(os.getpid()))
                os.read(os.pipe()[0], 1)  # nobody writes
            return x.mean((2, 3))
    return Sleepy()


@hookimpl
def poolzoo_poolings():
    yield Pooling(name="sleepy", summary="", kind="global", build=build)
"""


@pytest.mark.slow
def test_who_hears_no_more_leaves_no_trial_behind(tmp_path, monkeypatch, cluster):
    """Even where the cluster stays connected."""
    import ray

    from poolzoo.compare import cluster as ours
    from poolzoo.compare.config import ComparisonConfig
    from poolzoo.plugin import loader
    from poolzoo.train.settings import Settings

    log, plugin = tmp_path / "pid", tmp_path / "sleepy.py"
    plugin.write_text(SLEEPY.format(log=str(log)))
    monkeypatch.chdir(tmp_path)
    loader.settings.files = [Path("sleepy.py")]  # a worker's own directory is another
    settings = Settings(data="digits", backbone="nano/plain", limit=300, epochs=1, threads=1)
    config = ComparisonConfig("sleepy,avg", None, "nano/plain", 1, None, 0, 0, 0.05, settings)
    records = ours.runner(None)(config, config.trials, tmp_path)
    assert [record.pool for record in next(records)] == ["avg"]
    until(lambda: log.is_file() and log.read_text())
    process = Path("/proc") / log.read_text()
    assert process.exists()
    records.close()
    until(lambda: not process.exists())
    assert ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_what_is_interrupted_ends_at_once_and_goes_on_later(
    poolzoo, tmp_path, here, surroundings, cluster, number, code, word
):
    words = [*map(str, SMALL), "--executor", "ray", "--ray-address", "local", "--out", str(tmp_path / "c")]
    command = [sys.executable, "-m", "poolzoo", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **pipes) as process:
        until(lambda: journal(tmp_path / "c"), process)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert f"error: {word}\n" in err
    assert [line for line in err.splitlines() if not line.startswith(OURS)] == []
    assert f"hint: poolzoo compare --resume {tmp_path / 'c'} continues it" in err
    before = journal(tmp_path / "c")
    assert 1 <= len(before) < 4
    outcome = poolzoo("compare", "--resume", tmp_path / "c", "--executor", "ray", "--json")
    assert outcome.code == 0, outcome.err
    assert f"{len(before)} of 4 trials are done already" in outcome.err
    assert stable_rows(outcome.json) == stable_rows(found(here))


# --- What cannot be -----------------------------------------------------------------------------------------------


def test_without_ray_it_says_how_to_get_it(poolzoo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(poolzoo(*SMALL, "--executor", "ray", "--out", tmp_path / "c"), 4, "Ray is not installed", "poolzoo[ray]")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("kind", [ConnectionError, RuntimeError, Exception])
def test_whatever_keeps_ray_from_starting_is_one_line(monkeypatch, kind):
    """Ray raises a bare `Exception` where the machine is too busy."""

    def fails(*_, **__):
        raise kind("The current node timed out\nduring startup.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=fails))
    text = "^Ray cannot be started: The current node timed out during startup\\.$"
    with pytest.raises(EnvironmentProblem, match=text), connection.connected("local"):
        pass


@pytest.mark.parametrize("named", ["option", "variable"])
def test_where_no_cluster_answers_it_ends_at_once(poolzoo, tmp_path, monkeypatch, named):
    pytest.importorskip("ray")
    with socket.socket() as free:  # bound and not listening: nobody else takes it meanwhile
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address if named == "variable" else "")
        given = ("--ray-address", address) if named == "option" else ()
        outcome = poolzoo(*SMALL, "--executor", "ray", *given, "--out", tmp_path / "c")
    refused(outcome, 4, f"no Ray cluster at {address}", "ray start --head")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("address", ["x", "x:y", ":6379", "10.0.0.1:99999"])
def test_what_is_no_address_is_refused(poolzoo, tmp_path, address):
    pytest.importorskip("ray")
    refused(poolzoo(*SMALL, "--executor", "ray", "--ray-address", address, "--out", tmp_path / "c"), 2, address)
