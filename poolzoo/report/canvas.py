"""matplotlib as we want it: loaded late, without a word on stderr, with its own defaults, the same bytes every time."""

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
    """Within it, matplotlib is loaded, ignores the user's `matplotlibrc`, and does not talk.

    Raises:
        EnvironmentProblem: It cannot be loaded.
    """
    log = logging.getLogger("matplotlib")  # it tells about a new font cache, and about a home that is read-only
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
            f"matplotlib cannot be loaded: {error}", "is MPLBACKEND set to something odd? or install matplotlib again"
        ) from error


@contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Nothing reaches stderr, not even from a child: matplotlib asks `fc-list` for fonts, which likes to complain."""
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
