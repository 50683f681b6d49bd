"""The bounds around other people's code, one by one: state is put back, time and memory end."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import signal
import sys
import threading

import pytest
import torch

from poolzoo.plugin import isolation

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the limits of Linux")


def on_interrupt(number, frame):
    raise AssertionError


CHANGES = {
    "sys.path": (lambda folder: sys.path.insert(0, "/changed"), lambda: list(sys.path)),
    "what Ctrl-C does": (lambda folder: signal.signal(signal.SIGINT, on_interrupt), lambda: signal.getsignal(2)),
    "the current directory": (os.chdir, os.getcwd),
    "json": (lambda folder: setattr(json, "dumps", None), lambda: json.dumps),
    "Python's random generator": (lambda folder: random.random(), random.getstate),
    "torch's default dtype": (lambda folder: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "torch's threads": (lambda folder: torch.set_num_threads(torch.get_num_threads() + 1), torch.get_num_threads),
    "torch's gradient mode": (lambda folder: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "torch's random generator": (lambda folder: torch.rand(1), lambda: torch.random.get_rng_state().tolist()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_that_changed_is_named_and_put_back(tmp_path, name):
    change, read = CHANGES[name]
    before, finders = read(), list(sys.meta_path)
    state = isolation.GlobalState()
    change(tmp_path)
    assert read() != before
    assert state.restore() == [name]
    assert read() == before
    assert sys.meta_path == finders


def test_a_profile_function_is_taken_away():
    state, before = isolation.GlobalState(), sys.getprofile()
    sys.setprofile(lambda *event: None)
    changed = state.restore()
    found = sys.getprofile()
    sys.setprofile(before)
    assert changed == ["the profile function"]
    assert found is before


def test_what_did_not_change_is_not_named():
    assert isolation.GlobalState().restore() == []


def test_a_directory_that_is_gone_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    state = isolation.GlobalState()
    os.chdir(tmp_path)
    (tmp_path / "gone").rmdir()
    assert state.restore() == ["the current directory"]
    assert os.getcwd() == str(tmp_path)


def both(*arguments: object):
    """A function's result under limits and without, which must be alike."""
    limited, free = isolation.call(*arguments), isolation.call_unlimited(*arguments)
    assert limited[0] == free[0]
    assert type(limited[1]) is type(free[1])
    return limited


def test_results_and_whatever_is_thrown_come_back():
    assert both(max, 1, 3, 2) == (3, None)
    result, error = both(int, "x")
    assert result is None
    assert isinstance(error, ValueError)
    for thrown in (SystemExit, GeneratorExit):
        assert isinstance(both(thrower, thrown)[1], thrown)
    for call in (isolation.call, isolation.call_unlimited):
        with pytest.raises(KeyboardInterrupt):
            call(thrower, KeyboardInterrupt)


def thrower(kind: type[BaseException]) -> None:
    raise kind


def alarm() -> tuple[object, float]:
    return signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]


def test_the_clock_runs_in_each_call_and_not_between(monkeypatch):
    monkeypatch.setattr(isolation, "SECONDS", 50.0)
    before = alarm()
    assert before[1] == 0
    with isolation.Limits() as limits:
        for _ in range(2):
            (handler, left), error = limits.call(alarm)
            assert error is None
            assert handler is not before[0]
            assert 49 < left <= 50
            assert alarm() == (handler, 0.0)
            limits.call(signal.signal, signal.SIGALRM, signal.SIG_IGN)  # as a plugin might
    assert alarm() == before


def test_a_call_that_takes_too_long_ends_though_it_changed_the_handler(monkeypatch):
    monkeypatch.setattr(isolation, "SECONDS", 0.05)
    with isolation.Limits() as limits:
        limits.call(signal.signal, signal.SIGALRM, signal.SIG_IGN)
        _, error = limits.call(signal.pause)
    assert isinstance(error, isolation.OutOfTime)
    assert str(error) == "took longer than 0.05 seconds"


def test_outside_the_main_thread_nothing_is_timed():
    found = []

    def work() -> None:
        with isolation.Limits() as limits:
            found.append(limits.call(signal.getitimer, signal.ITIMER_REAL))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [((0.0, 0.0), None)]


def test_a_trace_function_of_the_code_ends_with_it():
    before = sys.gettrace()
    isolation.call(sys.settrace, lambda *event: None)
    assert sys.gettrace() is before

    def ours(*event: object) -> None: ...

    sys.settrace(ours)
    isolation.call(sys.settrace, None)
    found = sys.gettrace()
    sys.settrace(before)
    assert found is ours


def test_the_state_of_a_module_is_noted_as_it_is_imported(monkeypatch):
    finders = list(sys.meta_path)
    monkeypatch.delitem(sys.modules, "random")
    state = isolation.GlobalState()
    assert sys.meta_path[1:] == finders
    fresh = importlib.import_module("random")
    assert fresh is not random
    before = fresh.getstate()
    fresh.random()
    assert importlib.util.find_spec("no_such_module") is None
    assert state.restore() == ["Python's random generator"]
    assert fresh.getstate() == before
    assert sys.meta_path == finders


def test_without_standard_output_nothing_is_redirected(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", None)  # as where a program has no console
    with isolation.stdout_to_stderr():
        print("said")
    assert sys.stdout is None
    assert capfd.readouterr().err == "said\n"


@LINUX
def test_memory_is_limited_within_a_call_alone(monkeypatch):
    monkeypatch.setattr(isolation, "MEMORY", 64 << 20)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with isolation.Limits() as limits:
        (soft, hard), error = limits.call(resource.getrlimit, resource.RLIMIT_DATA)
        assert error is None
        assert hard == before[1]
        with open("/proc/self/statm", "rb") as file:
            used = int(file.read().split()[5]) * resource.getpagesize()
        assert abs(soft - used - (64 << 20)) < 32 << 20
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
        # More than what the process may have given back to malloc, which needs no new memory.
        assert isinstance(limits.call(bytearray, 4 << 30)[1], MemoryError)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_what_is_printed_goes_to_stderr_also_from_below(capfd):
    with isolation.stdout_to_stderr():
        print("from python")
        sys.stdout.flush()
        os.write(1, b"from below\n")
    print("after")
    sys.stdout.flush()
    os.write(1, b"after below\n")
    out, err = capfd.readouterr()
    assert out == "after\nafter below\n"
    assert "from python" in err
    assert "from below" in err


def test_of_many_lines_a_few_and_their_number_are_shown(capsys):
    with isolation.printing_little("plugin x"):
        for index in range(500):
            print(f"line {index}")
        print("also to stderr", file=sys.stderr)
    out, err = capsys.readouterr()
    assert out == ""
    assert "line 0\n" in err
    assert "line 499" not in err
    assert "plugin x" in err
    assert "more lines" in err
