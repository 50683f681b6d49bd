"""matplotlib loaded late, quiet on stderr, at its own defaults, with bitwise reproducible files."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from poolzoo.common.errors import EnvironmentProblem

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def matplotlib_at_its_defaults() -> Iterator[None]:
    """Loads matplotlib; within the block it ignores the user's `matplotlibrc` and logs nothing.

    Raises:
        EnvironmentProblem: It cannot be loaded.
    """
    log = logging.getLogger("matplotlib")  # it reports a new font cache, and a read-only home
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        _load()
        import matplotlib

        with matplotlib.rc_context(), warnings.catch_warnings():
            matplotlib.rcdefaults()
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a title in another script
            yield
    finally:
        log.setLevel(level)


def _load() -> None:
    """Imports what a figure needs. The first time on a machine this collects its fonts, in about a second."""
    if "matplotlib.figure" in sys.modules:
        return
    try:
        with _stderr_silenced(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import matplotlib.backends.backend_agg
            import matplotlib.figure  # noqa: F401
    except Exception as error:
        raise EnvironmentProblem(
            f"matplotlib cannot be loaded: {error}", "check MPLBACKEND, or install matplotlib again"
        ) from error


@contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Silences stderr, also that of child processes: matplotlib runs `fc-list`, which prints warnings."""
    try:
        kept = os.dup(2)
    except OSError:  # it was closed already
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(null)
        os.close(kept)


def png(figure: Figure) -> bytes:
    """The figure as PNG, without date or version of any software."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as SVG, without date or version of any software, and with the same ids each time."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "poolzoo"}):
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None})
    return buffer.getvalue()
