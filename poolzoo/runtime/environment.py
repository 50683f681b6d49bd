"""The machine, versions and settings that a speed is measured with. Needs no torch."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np

from poolzoo.artifacts import schema
from poolzoo.common import resources

# Instruction sets that decide how fast convolutions and their int8 and bf16 forms are.
X86: Final = frozenset(
    ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"]
)
ARM: Final = frozenset(("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"))


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a speed is measured on.

    Attributes:
        machine: The architecture, such as "x86_64".
        processor: The model's name.
        cpu_flags: Instruction sets that matter for inference.
        governor: The frequency governor; None where it is unknown.
        load: The load average of the last minute when this was made.
        threads: Threads of the runtimes; None where it does not matter.
        provider: ONNX Runtime's execution provider.
        omp_wait_policy: The value of OMP_WAIT_POLICY; torch's threads spin where it is not PASSIVE.
        python, numpy, onnxruntime: Versions.
        torch: torch's version where it is loaded.
        openvino: OpenVINO's version where it was measured.
        optimization: ONNX Runtime's graph optimization level.
        spinning: Whether ONNX Runtime's threads spin.
    """

    machine: str
    processor: str
    cpu_flags: tuple[str, ...]
    governor: str | None
    load: float | None
    threads: int | None
    provider: str | None
    omp_wait_policy: str | None
    python: str
    numpy: str
    onnxruntime: str
    torch: str | None
    openvino: str | None = None
    optimization: str = "all"
    spinning: bool = False

    def to_json(self) -> schema.Environment:
        """`environment` in `speed.json`; without `openvino` where it was not measured."""
        facts = {**asdict(self), "cpu_flags": list(self.cpu_flags)}
        if self.openvino is None:
            del facts["openvino"]
        return cast(schema.Environment, facts)


def current_environment(threads: int | None, provider: str | None = None) -> Environment:
    """The environment of this process at this moment.

    Args:
        threads: Threads of the runtimes that are measured.
        provider: ONNX Runtime's execution provider.
    """
    import onnxruntime

    processor = _processor()
    flags = (processor.get("flags") or processor.get("Features", "")).split()
    return Environment(
        machine=platform.machine(),
        processor=processor.get("model name") or platform.processor(),
        cpu_flags=tuple(sorted((X86 | ARM) & set(flags))),
        governor=_governor(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        threads=threads,
        provider=provider,
        omp_wait_policy=os.environ.get("OMP_WAIT_POLICY"),
        python=platform.python_version(),
        numpy=np.__version__,
        onnxruntime=onnxruntime.__version__,
        # Commands that work without torch must not import it.
        torch=str(sys.modules["torch"].__version__) if sys.modules.get("torch") else None,
    )


def physical_cores() -> int:
    """How many physical cores this process may use, within a quota of CPU time."""
    return min(_cores(), resources.cpus())


def _cores() -> int:
    try:
        usable = os.sched_getaffinity(0)
        topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
        return len({Path(topology.format(cpu)).read_text() for cpu in usable})
    except (AttributeError, OSError):  # not Linux
        return os.cpu_count() or 1


def _processor() -> dict[str, str]:
    """What `/proc/cpuinfo` says of the first processor; empty where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _governor() -> str | None:
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None
