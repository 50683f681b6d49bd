"""What `verify --runtime` found of a bundle, kept in it: `runtimes.json`, and `runtimes.html` for people.

The manifest lists neither, so the bundle stays as it was exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from poolzoo.artifacts import manifest
from poolzoo.artifacts.schema import KeptRuntime, KeptRuntimes
from poolzoo.common import conform, files, json_reader, locks, output
from poolzoo.common.errors import reason

if TYPE_CHECKING:
    from poolzoo.runtime.runtime_results import RuntimesReport

RUNTIMES, PAGE = "runtimes.json", "runtimes.html"
SCHEMA: Final = 1
ABSENT: Final = "not installed"


def keep(bundle: Path, report: RuntimesReport, precision: str) -> None:
    """Writes both files: the rows of the report, and those that the bundle holds of other runtimes.

    A bundle that cannot be written stays as it is, with a warning.

    Args:
        bundle: The bundle's directory, whose files are as they were exported.
        report: What was found.
        precision: The arithmetic that was asked for, "fp32" or "auto".
    """
    from poolzoo.report import runtimes_page

    environment = report.environment
    measured = {
        "precision": precision,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": environment.processor or environment.machine,
        "threads": environment.threads,
    }
    try:
        digest = manifest.file_sha256(bundle / "model.onnx")
        rows = {row["runtime"]: row for row in read(bundle, digest)}
        for one in report.results:
            if one.status != ABSENT:
                rows[one.runtime] = cast(KeptRuntime, {**one.to_json(), **measured})
        if not rows:
            return
        content: KeptRuntimes = {"schema": SCHEMA, "model_sha256": digest, "runtimes": list(rows.values())}
        page = runtimes_page.html(bundle.resolve().name, content["runtimes"])
        locks.sweep(bundle)
        files.write_together({bundle / RUNTIMES: files.json_text(content).encode(), bundle / PAGE: page.encode()})
    except OSError as error:
        output.warn(f"what was found in runtimes is not kept: {reason(error)}", "make the bundle writable")
    else:
        output.say(f"{bundle / PAGE} has the table of all runtimes")


def read(bundle: Path, digest: str) -> list[KeptRuntime]:
    """The rows that a bundle holds of the graph with this checksum; none where the file is missing or damaged."""
    try:
        found = json_reader.parse((bundle / RUNTIMES).read_bytes())
    except (OSError, ValueError):
        return []
    if conform.problem(found, KeptRuntimes) or not isinstance(found, Mapping):
        return []
    kept = cast(KeptRuntimes, found)
    return list(kept["runtimes"]) if kept["schema"] == SCHEMA and kept["model_sha256"] == digest else []
