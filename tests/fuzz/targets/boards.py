"""What other people send: a board, and the directory of a comparison under a protocol."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fuzz.harness import Disagreement, Target
from fuzz.targets.arrays import mutated_arrays, mutated_tensors
from fuzz.targets.runs import mutated_json, mutated_lines
from fuzz.targets.settings import mutated_toml
from poolzoo.common import files
from poolzoo.common.errors import CheckFailed
from poolzoo.compare.board import board_file, board_page, checking
from poolzoo.compare.board.board import Board, BoardRow, BoardSection
from poolzoo.report.results import Accuracy


def targets(folder: Path) -> Iterator[Target]:
    yield _board(folder)
    yield from _submissions(folder)


def _board(folder: Path) -> Target:
    bits = "////"
    rows = tuple(
        BoardRow(
            backbone="nano/plain",
            pool=pool,
            local_pool=None,
            author="somebody",
            date="2026-11-29",
            plugin_sha256=None,
            versions={"torch": "2.9"},
            reran=("evaluation",),
            f1={0: 0.5, 1: 0.6},
            correct={0: bits, 1: bits},
            accuracy=Accuracy(mean=0.5, sd=0.1, n=2, low=0.4, high=0.6),
            rank=1,
        )
        for pool in ("avg", "gem:p=4")
    )
    section = BoardSection("digits-heads@1:" + "0" * 64, "Which?", "pool", "avg", 0.05, 24, rows, ("nothing",))
    seed = files.json_text(Board({"digits-heads": section}).to_json()).encode()

    def read(content: bytes) -> object:
        (folder / "board.json").write_bytes(content)
        found = board_file.load(folder / "board.json")
        for section in found.sections.values():
            for row in section.rows:
                row.right(section.images)
        (folder / "again.json").write_bytes(files.json_text(found.to_json()).encode())
        if board_file.load(folder / "again.json").to_json() != found.to_json():
            raise Disagreement("to_json is read as another board")
        return board_page.markdown(found), board_page.html(found)

    return Target("board", [seed], mutated_json, read)


def _submissions(folder: Path) -> Iterator[Target]:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from support import submissions

    place = submissions.make_submission(folder)
    (run,) = place.glob("trials/*seed0*/mine")
    runs = {
        "submitted-config": ("config.json", mutated_json),
        "submitted-metrics": ("metrics.json", mutated_json),
        "submitted-env": ("env.json", mutated_json),
        "submitted-settings": ("run.toml", mutated_toml()),
        "submitted-predictions": ("predictions.npz", mutated_arrays),
        "submitted-data": ("data.npz", mutated_arrays),
        "submitted-weights": ("model.safetensors", mutated_tensors),
        "submitted-lines": ("metrics.jsonl", mutated_lines),
    }
    for name, (file, mutate) in runs.items():
        yield Target(name, [(run / file).read_bytes()], mutate, _checked(place, run / file, folder / "tiny.toml"), 0.02)
    whole = {
        "submitted-plan": ("plan.json", mutated_json),
        "submitted-journal": ("journal.jsonl", mutated_lines),
        "submitted-result": ("compare.json", mutated_json),
        "submitted-manifest": (str((run / "manifest.json").relative_to(place)), mutated_json),
    }
    for name, (file, mutate) in whole.items():
        yield Target(
            name, [(place / file).read_bytes()], mutate, _checked(place, place / file, folder / "tiny.toml"), 0.02
        )


def _checked(place: Path, file: Path, protocol: Path) -> Callable[[bytes], object]:
    """Checks the submission with another content of a file."""
    from support import submissions

    before = file.read_bytes()
    run = file.parent if file.name != "manifest.json" and (file.parent / "manifest.json").is_file() else None
    manifest = run and (run / "manifest.json").read_bytes()

    def read(content: bytes) -> object:
        file.write_bytes(content)
        try:
            if run is not None:
                submissions.sign_again(run)
            report = checking.check([place], str(protocol))
        finally:
            file.write_bytes(before)
            if run is not None and manifest is not None:
                (run / "manifest.json").write_bytes(manifest)
        for check in report.checks:
            if check.reason.startswith("unexpected "):
                raise CheckFailed(check.reason)
        if not report.passed:
            raise CheckFailed(next(check.reason for check in report.checks if check.status == "failed"))
        return report.to_json()

    return read
