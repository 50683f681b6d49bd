"""What became of each trial, one line a trial, so that a comparison goes on after a kill. Needs no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from poolzoo.common import json_writer

Record = dict[str, Any]


class Journal:
    """`journal.jsonl`: a line is there whole or not at all; the last one of a trial counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            try:
                record = json.loads(line)
                self.records[record["trial"]] = record
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill; that trial is done again

    def done(self, key: str) -> bool:
        """Whether a trial has ended well; one that failed is tried again."""
        return self.records.get(key, {}).get("status") == "done"

    def add(self, record: Record) -> None:
        """Writes what became of a trial, and makes sure that it stays written."""
        self.records[record["trial"]] = record
        torn = self.path.is_file() and self.path.stat().st_size and self.path.read_bytes()[-1:] != b"\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json_writer.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
