"""Fills the tables of docs/explanation/leaderboard-findings.md from docs/results/leaderboard.json.

python docs/make_findings.py

A test compares the page with what this would write.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE / "explanation" / "leaderboard-findings.md"
HEADS = {
    "cifar10-lite0": "natural images, features of ImageNet",
    "cifar10-nano": "natural images, features of the same images",
    "digits-lite0": "digits, features of ImageNet",
    "digits-nano": "digits, features of small natural images",
}
LOCALS = {"cifar10-local": "natural images, 9,000", "digits-local": "digits"}


def render(text: str) -> str:
    """The page with its tables brought up to date."""
    found = json.loads((HERE / "results" / "leaderboard.json").read_text(encoding="utf-8"))
    tables = {"heads": table(found, HEADS, "pool"), "locals": table(found, LOCALS, "local_pool")}
    return re.sub(
        r"(<!-- (\w+) -->\n\n).*?(?<=\n)(<!-- end -->)",
        lambda m: m[1] + tables[m[2]] + "\n" + m[3],
        text,
        flags=re.DOTALL,
    )


def table(found: dict[str, Any], columns: dict[str, str], key: str) -> str:
    """Differences from the baseline in points, for the strategies that all comparisons have; the best mean first."""
    sections = [found[name]["results"] for name in columns]
    rows = [{row[key]: row for row in section if row["delta"] and ":" not in str(row[key])} for section in sections]
    names = [name for name in rows[0] if all(name in one for one in rows)]
    names.sort(key=lambda name: -sum(one[name]["delta"]["mean"] for one in rows))
    head = ["| pooling | " + " | ".join(columns.values()) + " |", "|---" + "|---:" * len(columns) + "|"]
    resolved = [found[name]["conclusions"][-1].split("difference of ")[1].split(" ")[0] for name in columns]
    last = "| *resolved with a power of 0.8* | " + " | ".join(f"*{one}*" for one in resolved) + " |"
    return "\n".join([*head, *(_row(name, [one[name]["delta"] for one in rows]) for name in names), last]) + "\n"


def _row(name: str, deltas: list[dict[str, Any]]) -> str:
    cells = []
    for delta in deltas:
        text = f"{100 * delta['mean']:+.1f}".replace("-", "−")
        cells.append(f"**{text}**" if delta["better"] or delta["worse"] else text)
    return f"| `{name}` | {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
