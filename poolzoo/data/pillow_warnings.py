"""Keeps what Pillow and the libraries below it say of odd files off stderr."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from poolzoo.common import streams


@contextmanager
def pillow() -> Iterator[None]:
    """Keeps to itself what Pillow says of odd images: one is either read or a row with an error."""
    logger, nowhere = logging.getLogger("PIL"), logging.NullHandler()
    logger.addHandler(nowhere)
    try:
        with warnings.catch_warnings(action="ignore"), streams.stderr_for_python():
            yield
    finally:
        logger.removeHandler(nowhere)


def hush() -> None:
    """The same for the rest of the process, where images are read by threads while others work."""
    logger = logging.getLogger("PIL")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", module=r"PIL\b")
