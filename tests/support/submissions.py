"""A small protocol on digits, a submission under it, and what somebody might change in one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolzoo import cli
from poolzoo.artifacts import manifest
from poolzoo.compare.board import protocol
from poolzoo.plugin import loader

PLUGIN = """
from pathlib import Path

from poolzoo import Pooling, hookimpl

Path(__file__).with_name("executed").touch()


def build(channels: int, *, p: float = 3.0):
    from torch import nn

    class Mine(nn.Module):
        def forward(self, x):
            return x.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)

    return Mine()


@hookimpl
def poolzoo_poolings():
    yield Pooling(name="mine", summary="a power mean", kind="global", build=build)
"""


def tiny_protocol(**changes: str) -> str:
    """The text of `digits-heads` for one epoch and two seeds.

    Args:
        changes: Keys of the file and their new values, as TOML.
    """
    text = (protocol.BUILT_IN / "digits-heads.toml").read_text(encoding="utf-8")
    for key, value in {"name": '"digits-tiny"', "epochs": "1", "seeds": "2", **changes}.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1, key
    return text


def make_submission(folder: Path) -> Path:
    """`folder/submission` under `folder/tiny.toml`, with the pooling of `folder/mine.py`, which was executed."""
    from poolzoo.report import curves

    (folder / "tiny.toml").write_text(tiny_protocol())
    (folder / "mine.py").write_text(PLUGIN)
    words = ("compare", "--protocol", folder / "tiny.toml", "--plugin", folder / "mine.py", "--pool", "mine", "-q")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "draw", lambda *_: None)
        loader.forget()
        assert cli.run([str(word) for word in (*words, "--out", folder / "submission")]) == 0
        loader.forget()
    (folder / "executed").unlink()
    return folder / "submission"


def run_of(submission: Path, pool: str, seed: int) -> Path:
    """The run directory of a trial."""
    (found,) = submission.glob(f"trials/*seed{seed}*/{pool}")
    return found


def sign_again(run: Path) -> None:
    """Gives a run a manifest for the files that it has now."""
    (run / "manifest.json").unlink()
    manifest.write_manifest(run, "run")


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Changes the content of a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def edit_arrays(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Changes the arrays of an archive in place."""
    with np.load(path) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez_compressed(path, **arrays)
