"""Inputs that atheris chooses by what code of poolzoo they reach, half of them made by the targets' own mutations.

atheris instruments poolzoo's modules while they are imported. libFuzzer ends its process when it has made its inputs,
so that each target is read in a fork.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from random import Random

MAX_BYTES = 1 << 16  # of an input
EXCLUDED = ("plugins",)  # rooms whose inputs are code, which nobody makes up freely


def instrument() -> None:
    """Has atheris instrument all modules of poolzoo that this process imports from now on."""
    import atheris

    atheris.instrument_imports(include=["poolzoo"]).__enter__()  # until the process ends


def run(target, inputs: int, seed: int, folder: Path) -> None:
    """Fuzzes one target in a fork, which prints the result as a line of JSON.

    Args:
        target: A `harness.Target`.
        inputs: How many.
        seed: Of libFuzzer.
        folder: Where inputs that fail are kept.
    """
    from fuzz import harness

    sys.stdout.flush()
    fork = os.fork()
    if not fork:
        try:
            _fuzz(target, inputs, seed, folder)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
    if status:
        failure = harness.Failure(target.name, -1, f"ends the process with {status}")
        print(json.dumps(harness.Result(target.name, failures=[failure]).to_json()), flush=True)


def _fuzz(target, inputs: int, seed: int, folder: Path) -> None:
    import time

    import atheris

    from fuzz import harness

    corpus = folder / f"corpus-{target.name}"
    corpus.mkdir(exist_ok=True)
    for number, content in enumerate(target.seeds):
        (corpus / f"{number}").write_bytes(content[:MAX_BYTES])
    result, places, started = harness.Result(target.name), set[str](), time.perf_counter()

    def one(content: bytes) -> None:
        accepted, failure = harness.judge(target, content, result.inputs)
        result.inputs += 1
        result.accepted += accepted
        result.refused += not accepted and failure is None
        if failure is not None and (place := failure.where or failure.what) not in places:
            places.add(place)
            kept = folder / f"failed-{target.name}-{len(places)}.bin"
            kept.write_bytes(content)
            result.failures.append(harness.Failure(target.name, failure.index, failure.what, f"{failure.where} {kept}"))
        if result.inputs >= inputs:
            result.seconds = time.perf_counter() - started
            print(json.dumps(result.to_json()), flush=True)
            os._exit(0)

    def mutate(content: bytes, most: int, number: int) -> bytes:
        if number % 2:
            return bytes(atheris.Mutate(content, most))[:most]
        return target.mutate(Random(number), target.seeds)[:most]

    words = [sys.argv[0], f"-runs={2 * inputs}", f"-seed={seed + 1}", f"-max_len={MAX_BYTES}", "-verbosity=0"]
    words += ["-rss_limit_mb=0", f"-timeout={harness.WALL_SECONDS:.0f}", f"-artifact_prefix={folder}/"]
    target.read(target.seeds[0])  # what it imports takes longer than one input may
    with harness.watched():
        atheris.Setup([*words, str(corpus)], one, custom_mutator=mutate)
        atheris.Fuzz()
