"""The fuzzer itself: it finds what is planted, repeats inputs, and everything that poolzoo reads withstands it."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from fuzz import harness, odd, targets, trees
from fuzz.progress import Progress
from poolzoo.common.errors import CheckFailed, UsageError

ROOT = Path(__file__).parents[2]
QUICK = ("settings", "tables", "graphs", "caches")  # rooms that open within a tenth of a second


def target(read: Callable[[bytes], object]) -> harness.Target:
    """A target that reads `a` as valid, and `b` and `c` as odd input."""
    return harness.Target("planted", [b"a"], lambda rng, seeds: rng.choice((b"b", b"c")), read)


def raises(error: Exception) -> Callable[[bytes], object]:
    def read(content: bytes) -> object:
        if content != b"a":
            raise error
        return content

    return read


def failures(read: Callable[[bytes], object], count: int = 10) -> list[str]:
    with harness.watched():
        return [one.what for one in harness.run(target(read), range(count), seed=0).failures]


@pytest.mark.parametrize("error", [CheckFailed("damaged", "again"), UsageError("odd"), FileNotFoundError(2, "gone")])
def test_errors_of_one_line_are_no_failures(error):
    assert failures(raises(error)) == []


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("y"), CheckFailed("unexpected KeyError"), CheckFailed("")])
def test_other_exceptions_are_failures(error):
    assert len(failures(raises(error))) == 1


def test_an_endless_loop_is_a_failure(monkeypatch):
    monkeypatch.setattr(harness, "CPU_SECONDS", 0.05)

    def read(content: bytes) -> object:
        while content != b"a":
            pass
        return content

    assert failures(read, count=1) == ["takes more than 0.05 CPU seconds"]


def test_memory_without_a_bound_is_a_failure(monkeypatch):
    found = failures(lambda content: content == b"a" or bytes(1 << 62))
    assert len(found) == 1
    assert "MemoryError" in found[0]


def test_a_valid_input_that_is_lost_is_a_failure():
    seen: list[bytes] = []

    def read(content: bytes) -> object:
        seen.append(content)
        if content == b"a":
            raise CheckFailed("lost")
        return content

    assert failures(read, count=harness.NEIGHBOR_EVERY) == ["after it a valid input is refused"]


def test_inputs_follow_from_seed_and_number():
    found = harness.Target(
        "t", [b"[1, 2, 3]"], lambda rng, seeds: trees.json_text(rng, [1, 2, 3]), raises(ValueError())
    )
    assert found.make(3, 7) == found.make(3, 7)
    assert len({found.make(0, index) for index in range(50)}) > 25
    assert found.make(0, 1) != found.make(1, 1)


def test_trees_stay_as_they_were():
    tree = {"a": [1, {"b": 2}]}
    for seed in range(100):
        trees.json_text(Random(seed), tree)
        trees.toml_text(Random(seed), tree)
    assert tree == {"a": [1, {"b": 2}]}


def test_an_odd_value_is_nobody_elses():
    whole, rng = copy.deepcopy([one for one in odd.OTHERS if isinstance(one, list | dict)]), Random(0)
    for _ in range(200):
        value = odd.value(rng)
        if isinstance(value, list | dict):
            value.clear()
    assert [one for one in odd.OTHERS if isinstance(one, list | dict)] == whole


def test_a_stopped_target_says_how_far_it_is():
    def read(content: bytes) -> object:
        if next(numbers) == 7:
            raise KeyboardInterrupt
        return content

    numbers = iter(range(10))
    with harness.watched():
        found = harness.run(target(read), range(10), seed=0)
    assert found.is_stopped
    assert (found.inputs, found.accepted) == (7, 7)


def test_results_of_a_target_are_shown_and_added(capsys):
    progress = Progress()
    for part in (harness.Result("t", 5, 2, 3, 0.5), harness.Result("t", 1, 0, 1, 0.5)):
        progress.add(harness.Result.from_json(json.loads(json.dumps(part.to_json()))))
    progress.fail(harness.Failure("u", 3, "ends the process with -8"))
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in shown[:2]] == [["t", "5", "inputs"], ["t", "6", "inputs"]]
    assert shown[2:] == ["FAILED u 3: ends the process with -8"]
    assert progress.totals() == (6, 1)


@pytest.mark.parametrize("room", QUICK)
def test_readers_take_valid_input_and_refuse_odd_in_one_line(room, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with harness.watched():
        for one in targets.open_room(room, tmp_path):
            for seed in one.seeds:
                assert harness.judge(one, seed) == (True, None)
            assert not harness.run(one, range(5), seed=1).failures, one.name


def fuzz(*arguments: object) -> str:
    command = [sys.executable, "-m", "tests.fuzz", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]
    return ended.stdout


@pytest.mark.slow
def test_a_stopped_run_shows_what_it_has_read():
    command = [sys.executable, "-m", "tests.fuzz", "--room", "graphs", "--inputs", "30000", "--jobs", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        text = process.stdout.read()
    assert process.returncode == 130
    counts = [int(re.search(r"([\d,]+) inputs", line)[1].replace(",", "")) for line in (first, *text.splitlines()[:2])]
    assert 0 < counts[1] < counts[0]
    assert counts[2] == counts[0] + counts[1]
    assert "2 targets, 0 failures, stopped" in text


@pytest.mark.slow
def test_two_hundred_thousand_odd_inputs_are_withstood():
    inputs = int(os.environ.get("POOLZOO_FUZZ_INPUTS", "200000"))
    text = fuzz("--inputs", inputs, "--seed", os.environ.get("POOLZOO_FUZZ_SEED", "0"))
    print(text)
    counted = re.search(r"^([\d,]+) inputs, \d+ targets, 0 failures", text, re.M)
    assert counted is not None
    assert int(counted[1].replace(",", "")) >= inputs


@pytest.mark.slow
def test_inputs_chosen_by_coverage_are_withstood():
    pytest.importorskip("atheris")
    print(fuzz("--coverage", "--inputs", 20_000, "--seed", 0))
