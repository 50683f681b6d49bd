"""A file of JSON records that survives a kill: one line a record, each whole or not there. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from poolzoo.common import json_reader, json_writer


class Journal:
    """A `.jsonl` file of records with a key, `trial`; the last record of a key counts.

    Attributes:
        path: The file; it need not exist yet.
        records: By key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Mapping[str, object]] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            try:
                record = json_reader.mapping(json_reader.parse(line))
                self.records[str(record["trial"])] = record
            except (ValueError, KeyError):
                continue  # cut off by a kill; that trial is run again

    def done(self, key: str) -> bool:
        """Whether the record of a key has the status `done`."""
        return self.records.get(key, {}).get("status") == "done"

    def add(self, record: Mapping[str, object]) -> None:
        """Appends a record and flushes it to the disk."""
        self.records[str(record["trial"])] = record
        torn = self.path.is_file() and self.path.stat().st_size and self.path.read_bytes()[-1:] != b"\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json_writer.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
