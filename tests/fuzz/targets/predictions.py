"""What `predict --out` keeps in its directory, and what a resumed command reads: the plan and the list of images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from fuzz.harness import Disagreement, Target
from fuzz.targets.caches import damaged
from fuzz.targets.runs import mutated_json
from poolzoo.runtime.prediction import plan
from poolzoo.runtime.prediction.plan import Plan

NAMES = [f"photos/{number}.jpg" for number in range(130)]


def targets(folder: Path) -> Iterator[Target]:
    whole = Plan(
        version="1",
        bundle="bundle",
        bundle_sha256="",
        arguments=("photos",),
        names_sha256=("",),
        root="/",
        relative=True,
        folders=("/photos",),
        top=1,
        provider="cpu",
        runtime="onnxruntime",
        images=len(NAMES),
        part_size=64,
    )
    raw = [name.encode() + b"\0" for name in NAMES]
    names, ends = b"".join(raw), np.cumsum([0, *map(len, raw)])
    index = np.array([*ends[: len(raw) : plan.BATCH], ends[-1]], "<i8").tobytes()
    seed = json.dumps(whole.to_json()).encode()

    def planned(content: bytes) -> object:
        (folder / plan.PLAN).write_bytes(content)
        found = Plan.load(folder)
        plan.require_list(folder, found)
        return found.parts, [len(plan.files_of(folder, found, part)) for part in range(min(found.parts, 5))]

    def listed(file: str, valid: bytes) -> Target:
        def read(content: bytes) -> object:
            for name, other in ((plan.LIST, names), (plan.INDEX, index)):
                (folder / name).write_bytes(content if name == file else other)
            found = [plan.files_of(folder, whole, part) for part in range(whole.parts)]
            if content == valid and [*chain(*found)] != NAMES:
                raise Disagreement("other names than were written")
            return found

        return Target(f"prediction-{Path(file).suffix[1:]}", [valid], damaged, read, 0.5)

    (folder / plan.LIST).write_bytes(names)
    (folder / plan.INDEX).write_bytes(index)
    yield Target("prediction-plan", [seed], mutated_json, planned)
    yield listed(plan.LIST, names)
    yield listed(plan.INDEX, index)
