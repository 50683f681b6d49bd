"""How much of the machine is ours, read from fake roots of both versions of cgroups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from poolzoo.common import errors, memory, resources
from poolzoo.common.errors import EnvironmentProblem

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """A machine of 8 processors and 16 GB without limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    write(tmp_path / "proc/meminfo", "MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_quota_the_affinity_mask_counts(machine):
    assert resources.cpus(machine) == 8
    assert resources.cpu_quota(machine) is None
    assert resources.thread_limit(machine) is None
    assert resources.available_memory(machine) == 16_000_000 * 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("max 100000", 8)],
)
def test_a_quota_is_rounded_up_and_never_above_the_mask(machine, text, expected):
    write(machine / "proc/self/cgroup", "0::/\n")
    write(machine / "sys/fs/cgroup/cpu.max", text)
    assert resources.cpus(machine) == expected
    assert resources.thread_limit(machine) == (expected if expected < 8 else None)


def test_the_tightest_group_on_the_way_up_counts(machine):
    write(machine / "proc/self/cgroup", "0::/slice/pod/task\n")
    group = machine / "sys/fs/cgroup"
    for path, cpu, most, used in (("slice", "300000 100000", 4 * GB, GB), ("slice/pod", "max 100000", 8 * GB, GB)):
        write(group / path / "cpu.max", cpu)
        write(group / path / "memory.max", str(most))
        write(group / path / "memory.current", str(used))
    write(group / "slice/pod/task/cpu.max", "400000 100000")
    write(group / "slice/pod/task/memory.max", "max\n")
    assert resources.cpus(machine) == 3
    assert resources.available_memory(machine) == 3 * GB


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_the_first_version_has_its_own_files(machine, mount):
    write(machine / "proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/box/inner\n")
    cpu, ram = machine / "sys/fs/cgroup" / mount / "box", machine / "sys/fs/cgroup/memory/box"
    write(cpu / "cpu.cfs_quota_us", "400000")
    write(cpu / "cpu.cfs_period_us", "100000")
    write(cpu / "inner/cpu.cfs_quota_us", "-1")
    write(cpu / "inner/cpu.cfs_period_us", "100000")
    write(ram / "memory.limit_in_bytes", str(2 * GB))
    write(ram / "memory.usage_in_bytes", str(GB))
    write(ram / "memory.stat", f"cache 5\ntotal_inactive_file {GB // 2}\n")
    write(ram.parent / "memory.limit_in_bytes", str(2**63 - 4096))
    write(ram.parent / "memory.usage_in_bytes", str(30 * GB))
    assert resources.cpus(machine) == 4
    assert resources.available_memory(machine) == 3 * GB // 2


def test_in_a_container_the_path_may_be_the_hosts(machine):
    write(machine / "proc/self/cgroup", "0::/../../system.slice/docker-1234.scope\n")
    write(machine / "sys/fs/cgroup/cpu.max", "100000 100000")
    assert resources.cpus(machine) == 1


def test_damaged_files_limit_nothing(machine):
    write(machine / "proc/self/cgroup", "nonsense\n0::/\n")
    for name in ("cpu.max", "memory.max", "memory.current"):
        write(machine / "sys/fs/cgroup" / name, "many\n")
    assert resources.cpus(machine) == 8
    assert resources.available_memory(machine) == 16_000_000 * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rlimits are counted where /proc tells what is used")
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_an_rlimit_leaves_what_is_not_used(limit):
    code = (
        f"import resource; resource.setrlimit(resource.{limit}, (3 * 10**9, resource.RLIM_INFINITY))\n"
        "from poolzoo.common import resources; print(resources.available_memory())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 2 * GB < int(out) < 3 * GB


# --- What does not fit, and what is large ---------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "fits"), [(None, True), (0, False), (1, False)])
def test_every_process_of_the_machine_needs_its_own_copy(monkeypatch, rank, fits):
    monkeypatch.setattr(resources, "available_memory", lambda: 3 * GB)
    if rank is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        monkeypatch.setenv("LOCAL_RANK", str(rank))
    if fits:
        memory.require("the 9 decoded images", GB)
        return
    with pytest.raises(
        EnvironmentProblem, match=r"1\.0 GB in each of 4 processes, do not fit .*: 3\.0 GB are"
    ) as found:
        memory.require("the 9 decoded images", GB)
    assert "--image-size" in found.value.hint
    assert "POOLZOO_CACHE_LIMIT" in found.value.hint


def test_an_allocation_that_fails_names_what_is_largest(monkeypatch):
    monkeypatch.setattr(resources, "HELD", {})
    with pytest.raises(MemoryError) as failed:
        np.empty(2**60, np.uint8)
    assert "--batch-size" in errors.explain(failed.value).hint
    resources.hold("a batch of 8 images", GB, "a smaller --batch-size")
    resources.hold("the decoded train images", 5 * GB, "a smaller --limit")
    shown = errors.explain(failed.value)
    assert shown.exit_code == 4
    assert shown.message.endswith("could not be allocated; most is taken by the decoded train images, 5.0 GB")
    assert shown.hint == "a smaller --limit"
