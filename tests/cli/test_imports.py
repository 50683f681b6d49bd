"""Commands import what they use: a finished comparison is read without torch, a bundle checked without Pillow."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        ("poolzoo.compare.comparison", {"torch", "scipy.signal", "scipy.stats", "scipy.optimize"}),
        ("poolzoo.metrics.corruptions", {"scipy.signal", "scipy.ndimage"}),
        ("poolzoo.runtime.verify", {"torch", "PIL", "pluggy"}),
    ],
)
def test_what_a_command_does_not_need_is_not_imported(module, unused):
    code = f"import sys, {module}; print(sorted({unused!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
