"""Makes the plugin importable where it is not installed, and the tests quick on few cores."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
