"""Why cells do not agree, in words."""

from __future__ import annotations

import re
from typing import Final

from benchmarks.runtimes.cells import CellResult
from poolzoo.common.text import one_line

# The runtime, a pattern of what it says or of the graph's name, and the cause.
CAUSES: Final[tuple[tuple[str, str, str], ...]] = ()


def of(cell: CellResult) -> str:
    """The cause of a cell that does not agree; what the runtime says where none is known."""
    text = f"{cell.graph}: {cell.detail}"
    for runtime, pattern, cause in CAUSES:
        if runtime == cell.runtime and re.search(pattern, text):
            return cause
    return f"It says: {one_line(cell.detail, 200)}"
