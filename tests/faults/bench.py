"""Where faults happen: a box, in which a command is disturbed and the next one goes on; then it is judged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from faults import interposer
from faults.commands import Command, Ended, Forked, Fresh
from faults.fault import Fault
from faults.oracle import Reference, false_manifests, processes_of, said_wrong
from faults.scenarios import Scenario

SIGNALS: Final = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "hup": signal.SIGHUP,
    "power": signal.SIGKILL,  # which ends every process, and loses what has not come to the disk
}
CODES: Final = {"kill": -signal.SIGKILL, "term": 143, "int": 130, "hup": 129, "power": -signal.SIGKILL}
ERRORS: Final = {
    "full": (interposer.FAIL_FROM, errno.ENOSPC),
    "quota": (interposer.FAIL_FROM, errno.EDQUOT),
    "readonly": (interposer.FAIL_FROM, errno.EROFS),
    "eio": (interposer.FAIL_ONCE, errno.EIO),
    "denied": (interposer.FAIL_ONCE, errno.EACCES),
}
CHILD: Final = "child"  # the largest process that a command has started is killed, as a machine without memory does
YEAR: Final = 366 * 24 * 3600
# What a command must not even notice: jumps of the clock, in seconds; a write of half the bytes; no locks from here on.
UNNOTICED: Final = {
    "ahead": (interposer.JUMP, YEAR),
    "behind": (interposer.JUMP, -YEAR),
    "short": (interposer.SHORT, 0),
    "nolocks": (interposer.NO_LOCKS, 0),
}
REFUSED: Final = (0, 1, 2, 4)  # codes of a command whose disk fails: it goes on, or says why not
EVERYWHERE: Final = ("cache", "tmp", "config")  # where strays are looked for, beside what a command makes
LATE: Final = 4  # operations before the end from which on a signal may come too late
ENDING: Final = 5.0  # seconds that processes of a command have to end after it


class Bench:
    """One box and what is needed to fill it.

    Args:
        base: A directory of its own.
        library: The preloaded library.
        scenarios: By name.
        materials: What scenarios start from, by name.

    Attributes:
        counts: Operations of an undisturbed command, by scenario.
        seconds: CPU time of an undisturbed command, by scenario.
    """

    def __init__(self, base: Path, library: Path, scenarios: Mapping[str, Scenario], materials: Path) -> None:
        self.base, self.box, self.plan = base, base / "box", base / "plan"
        self.materials, self.library, self.scenarios = materials, library, scenarios
        self.counts: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self._references: dict[str, Reference] = {}
        self._commands: list[Command] = []
        remove(base / "streams")

    def start(self, words: Sequence[str], *, fresh: bool = False) -> Command:
        """Starts a command in the box, under the plan that was written last."""
        streams = self.base / "streams" / f"{len(self._commands):05}"
        streams.mkdir(parents=True)
        own = {"POOLZOO_CACHE": "cache", "POOLZOO_CONFIG": "config", "TMPDIR": "tmp", "FAULTS_BOX": ""}
        variables = {
            **{name: str(self.box / place) for name, place in own.items()},
            "MPLCONFIGDIR": str(self.base / "mpl"),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            interposer.VARIABLE: str(self.plan),
            "LD_PRELOAD": str(self.library),
        }
        self._commands.append((Fresh if fresh else Forked)(streams, words, variables))
        return self._commands[-1]

    def cpu_seconds(self) -> float:
        """CPU time of all commands so far, without that of their children."""
        return sum(one.seconds for one in self._commands)

    def undisturbed(self, words: Sequence[str]) -> tuple[Ended, Command]:
        """Runs a command without a fault, and counts its operations."""
        interposer.write_plan(self.plan, self.box)
        command = self.start(words)
        return command.wait(), command

    def fill(self, scenario: Scenario) -> None:
        """Makes the box anew, with the materials of a scenario."""
        remove(self.box)
        (self.box / "tmp").mkdir(parents=True)
        for name in scenario.inputs:
            material, _, other = name.partition(":")
            place, target = self.materials / material, self.box / (other or material)
            shutil.copytree(place, target) if place.is_dir() else shutil.copy2(place, target)

    def reference(self, name: str) -> Reference:
        """What an undisturbed command leaves; learnt from two when it is first needed."""
        if name not in self._references:
            scenario, boxes = self.scenarios[name], []
            known = self.base / "references" / f"{name}.json"
            for number in range(2):
                boxes.append(self.base / "references" / f"{name}-{number}")
                if known.is_file():
                    self.counts[name], self.seconds[name] = json.loads(known.read_text())
                    continue
                self.fill(scenario)
                ended, command = self.undisturbed(scenario.command)
                assert ended.code == 0, (name, ended)
                assert not (wrong := said_wrong(ended.err)), (name, wrong, ended.err)
                self.counts[name] = interposer.progress(self.plan).count
                self.seconds[name] = command.seconds
                remove(boxes[-1])
                shutil.copytree(self.box, boxes[-1])
            known.write_text(json.dumps([self.counts[name], self.seconds[name]]))
            self._references[name] = Reference.of(boxes, scenario.made, _everywhere(scenario))
        return self._references[name]

    def inject(self, fault: Fault) -> list[str]:
        """Lets a fault happen; gives what is wrong afterwards, nothing where all is well."""
        scenario, reference = self.scenarios[fault.scenario], self.reference(fault.scenario)
        self.fill(scenario)
        with self._disk(fault):
            ended, wrong = self._disturb(scenario, fault)
            happened = interposer.progress(self.plan).happened or fault.kind.endswith("%")
            wrong += [f"{text}: {ended.err[-800:]!r}" for text in said_wrong(ended.err)]
            wrong += _left_over(ended.session, str(self.plan))
            wrong += self._wrong_code(fault, ended, happened, is_whole=not scenario.next(self.box))
        if scenario.settle:
            settled, _ = self.undisturbed(scenario.settle)
            wrong += [f"then `{' '.join(scenario.settle)}` says {settled.err[-300:]!r}"] * (settled.code != 0)
        return wrong + self._go_on(scenario, reference, ended)

    def _disturb(self, scenario: Scenario, fault: Fault) -> tuple[Ended, list[str]]:
        """Runs a command with a fault, and perhaps another one beside it."""
        if fault.kind.removesuffix("%") in (*SIGNALS, CHILD) and fault.kind.endswith("%"):
            interposer.write_plan(self.plan, self.box)
            command = self.start(scenario.command, fresh=fault.fresh)
            command.run_for(self.seconds[fault.scenario] * fault.where / 100)
            if fault.kind == f"{CHILD}%":
                _kill_largest(set(processes_of(command.pid, str(self.plan))) - {command.pid})
            else:
                command.signal(SIGNALS[fault.kind[:-1]], group=fault.kind == "int%")
            return command.wait(), []
        action, value = ERRORS.get(fault.kind, (interposer.NOTHING, 0))
        if (name := fault.kind.removesuffix("-twice")) in SIGNALS:
            action, value = interposer.SIGNAL, SIGNALS[name]
        if fault.kind in ("gone", "twin"):
            action, value = interposer.SIGNAL, signal.SIGSTOP
        if fault.kind in UNNOTICED:
            action, value = UNNOTICED[fault.kind]
        twice = fault.kind.endswith("-twice")
        interposer.write_plan(self.plan, self.box, at=fault.where, action=action, value=value, twice=twice)
        command, wrong = self.start(scenario.command, fresh=fault.fresh), list[str]()
        if fault.kind in ("gone", "twin") and command.is_stopped():
            if fault.kind == "gone":
                remove(self.box / fault.what)
                (self.box / "tmp").mkdir(exist_ok=True)  # a cleaner removes what is in it
            else:
                other = self.start(scenario.next(self.box) or scenario.command)
                beside = other.wait(30)
                wrong = [f"the other one: {text}: {beside.err[-800:]!r}" for text in said_wrong(beside.err)]
                if beside.code not in (*REFUSED, None):
                    wrong.append(f"the other one ends with {beside.code}: {beside.err[-300:]!r}")
            command.signal(signal.SIGCONT)
        ended = command.wait()
        if fault.kind == "power":
            command.signal(signal.SIGKILL, group=True)
            self._lose()
        return ended, wrong

    def _lose(self) -> None:
        """Takes from all files what has not come to the disk."""
        lost = interposer.unsynced(self.plan)
        for path in self.box.rglob("*"):
            if path.is_file() and not path.is_symlink() and (size := lost.get(path.stat().st_ino)) is not None:
                os.truncate(path, min(size, path.stat().st_size))

    def _wrong_code(self, fault: Fault, ended: Ended, happened: bool, *, is_whole: bool) -> list[str]:
        kind, said = fault.kind.removesuffix("%").removesuffix("-twice"), ended.err[-300:]
        if ended.code is None:
            return ["it hangs"]
        if not happened:
            return [f"ends with {ended.code} without a fault: {said!r}"] if ended.code else []
        if kind in UNNOTICED:
            return [f"ends with {ended.code}: {said!r}"] if ended.code else []
        if kind not in SIGNALS:
            return [] if ended.code in REFUSED else [f"ends with {ended.code}: {said!r}"]
        if fault.kind.endswith("%"):  # a short command may have ended before its share of the time was seen
            is_late = fault.where > 90 or is_whole
        else:
            is_late = fault.where > self.counts[fault.scenario] - LATE
        right = ended.code == CODES[kind] or (ended.code == 0 and is_late)
        return [] if right else [f"ends with {ended.code}, not {CODES[kind]}: {said!r}"]

    def _go_on(self, scenario: Scenario, reference: Reference, before: Ended) -> list[str]:
        """Goes on as a user would, and compares."""
        words = scenario.next(self.box)
        if not words:
            wrong = reference.differences(self.box, scenario.made)
            return [*wrong, *reference.strays(self.box, scenario.made, scenario.made)]
        wrong = [text for one in scenario.made for text in false_manifests(self.box / one)]
        ended, _ = self.undisturbed(words)
        wrong += [f"then: {text}: {ended.err[-800:]!r}" for text in said_wrong(ended.err)]
        if ended.code != 0:
            text = f"then `{' '.join(words)}` ends with {ended.code}: {ended.err[-300:]!r}"
            return [*wrong, f"{text}, after {before.code} {before.err[-200:]!r}"]
        wrong += reference.differences(self.box, scenario.made)
        return [*wrong, *reference.strays(self.box, scenario.made, _everywhere(scenario))]

    @contextmanager
    def _disk(self, fault: Fault) -> Iterator[None]:
        """A real disk of a part of the bytes that an undisturbed command leaves, which becomes larger in the end."""
        if fault.kind != "disk%":
            yield
            return
        used = sum(path.stat().st_size for path in (self.base / "references" / f"{fault.scenario}-0").rglob("*"))
        inputs = self.base / "inputs"
        remove(inputs)
        self.box.rename(inputs)
        self.box.mkdir()
        size = 65536 + sum(path.stat().st_size + 4096 for path in inputs.rglob("*")) + used * fault.where // 100
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(self.box)], check=True)
        shutil.copytree(inputs, self.box, dirs_exist_ok=True)
        try:
            yield
            kept = self.base / "kept"
            remove(kept)
            shutil.copytree(self.box, kept, symlinks=True)
        finally:
            subprocess.run(["umount", "--lazy", str(self.box)], check=True)
        self.box.rmdir()
        kept.rename(self.box)


def _everywhere(scenario: Scenario) -> tuple[str, ...]:
    return (*scenario.made, *(one for one in EVERYWHERE if one not in scenario.made))


def _kill_largest(pids: set[int]) -> None:
    sizes = {}
    for pid in pids:
        with suppress(OSError):
            sizes[pid] = int(Path("/proc", str(pid), "statm").read_text().split()[1])
    if sizes:
        with suppress(ProcessLookupError):
            os.kill(max(sizes, key=sizes.__getitem__), signal.SIGKILL)


def _left_over(session: int, marker: str) -> list[str]:
    """Processes that outlive their command; they are ended."""
    deadline = time.monotonic() + ENDING
    while (left := processes_of(session, marker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    names = []
    for pid in left:
        with suppress(OSError):
            names.append(Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
            os.kill(pid, signal.SIGKILL)
    return [f"left over: {name}" for name in names]


def remove(place: Path) -> None:
    """Removes a directory or a file, or nothing."""
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
