"""A file of JSON records that survives a kill: one line a record, each whole or not there. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from poolzoo.common import files, json_reader, json_writer


class Journal:
    """A `.jsonl` file of records with a key, `trial`; the last record of a key counts.

    Attributes:
        path: The file; it need not exist yet.
        records: By key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Mapping[str, object]] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if files.has_file(path) else ():
            try:
                record = json_reader.mapping(json_reader.parse(line))
                self.records[str(record["trial"])] = record
            except (ValueError, KeyError):
                continue  # cut off by a kill; that trial is run again

    def done(self, key: str) -> bool:
        """Whether the record of a key has the status `done`."""
        return self.records.get(key, {}).get("status") == "done"

    def add(self, record: Mapping[str, object]) -> None:
        """Appends a record and flushes it to the disk; what a kill or a full disk left of a line goes."""
        self.records[str(record["trial"])] = record
        with self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write((json_writer.dumps(record) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
