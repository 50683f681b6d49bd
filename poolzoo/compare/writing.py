"""The files of a comparison, and of several together, and what the command line prints of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from poolzoo.common import files
from poolzoo.report import across_page, compare_page
from poolzoo.report.across_results import AcrossResult
from poolzoo.report.results import ComparisonResult

RESULT: Final = "compare.json"
CSV: Final = "compare.csv"
PAGE: Final = "report.html"
ACROSS: Final = "across.json"
ACROSS_CSV: Final = "across.csv"


def new_path(root: Path = Path("comparisons")) -> Path:
    """A directory name with the time of day, and a random part that makes it unique."""
    import secrets

    return root / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def write(result: ComparisonResult, out: Path) -> None:
    """Writes `compare.json`, `compare.csv` and `report.html`."""
    files.write_json(out / RESULT, result.to_json())
    files.write_atomically(out / CSV, compare_page.csv(result))
    files.write_atomically(out / PAGE, compare_page.html(result))


def write_across(result: AcrossResult, out: Path) -> None:
    """Writes `across.json`, `across.csv` and `report.html`."""
    files.write_json(out / ACROSS, result.to_json())
    files.write_atomically(out / ACROSS_CSV, across_page.csv(result))
    files.write_atomically(out / PAGE, across_page.html(result))


@dataclass(frozen=True)
class AcrossSummary:
    """What `report --json` prints for several comparisons."""

    result: AcrossResult
    out: Path

    @property
    def page(self) -> Path:
        return self.out / PAGE

    def to_json(self) -> dict[str, object]:
        return {**self.result.to_json(), "report": str(self.page), "csv": str(self.out / ACROSS_CSV)}


@dataclass(frozen=True)
class Summary:
    """What `compare --json` prints: the results, and where the files are."""

    result: ComparisonResult
    out: Path

    @property
    def page(self) -> Path:
        return self.out / PAGE

    def to_json(self) -> dict[str, object]:
        result = self.result
        return {
            "baseline": result.baseline,
            "seeds": result.seeds,
            "alpha": result.alpha,
            "conclusions": result.conclusions,
            "left_out": result.left_out,
            "results": [row.to_json() for row in result.results],
            **({"protocol": result.protocol, "unofficial": result.unofficial} if result.protocol else {}),
            "report": str(self.page),
            "csv": str(self.out / CSV),
        }
