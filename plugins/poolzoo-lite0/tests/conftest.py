"""One thread, set before torch loads: threads that wait for one another are slow where cores are shared."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
