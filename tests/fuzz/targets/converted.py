"""What a bundle holds for other runtimes: what its configuration says of them, and the input of a converted graph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from fuzz.harness import Disagreement, Target
from fuzz.targets.runs import mutated_json
from poolzoo.plugin import loader
from poolzoo.runtime import prepare
from poolzoo.runtime.builtin import sessions

NAME = "openvino"


def targets(folder: Path) -> Iterator[Target]:
    from support.linear_bundle import linear_bundle

    bundle = linear_bundle(folder / "bundle", "uint8")
    kept = prepare.target_directory(bundle, NAME)
    kept.mkdir(parents=True)
    sessions.keep_input(bundle, kept)
    stated = {"version": "2026.1", "changes": ["opset 17"], "bytes": 10, "checked": True}
    config = json.dumps({"export": {"opset": 18, "input": "uint8", "precision": "fp32", "targets": {NAME: stated}}})
    entry = loader.catalog().runtime(NAME)

    def described(content: bytes) -> object:
        (bundle / prepare.CONFIG).write_bytes(content)
        shutil.rmtree(folder / "work", ignore_errors=True)
        found = prepare.prepare(bundle, entry, folder / "work")
        if not all(isinstance(change, str) for change in found.changes):
            raise Disagreement(f"changes {found.changes}")
        return found

    def given(content: bytes) -> object:
        (folder / sessions.INPUT).write_bytes(content)
        return sessions.kept_input(folder)

    yield Target("target-config", [config.encode()], mutated_json, described, 0.5)
    yield Target("target-input", [(kept / sessions.INPUT).read_bytes()], mutated_json, given)
