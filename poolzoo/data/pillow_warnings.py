"""Keeps what Pillow and the libraries below it say of odd files off stderr."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def pillow() -> Iterator[None]:
    """Keeps to itself what Pillow says of odd images: one is either read or a row with an error."""
    logger, nowhere = logging.getLogger("PIL"), logging.NullHandler()
    logger.addHandler(nowhere)
    try:
        with warnings.catch_warnings(action="ignore"), _stderr_for_python():
            yield
    finally:
        logger.removeHandler(nowhere)


@contextmanager
def _stderr_for_python() -> Iterator[None]:
    """Moves Python's stderr to a descriptor of its own, while 2, which libtiff writes to, leads nowhere."""
    try:
        shared = sys.stderr.fileno() == 2
    except (OSError, ValueError):  # it is closed, or no file
        shared = False
    if not shared:
        yield
        return
    sys.stderr.flush()
    encoding = sys.stderr.encoding
    with (
        open(os.dup(2), "w", buffering=1, encoding=encoding, errors="backslashreplace") as ours,
        open(os.devnull, "w") as nowhere,
    ):
        os.dup2(nowhere.fileno(), 2)
        try:
            with redirect_stderr(ours):
                yield
        finally:
            ours.flush()
            os.dup2(ours.fileno(), 2)
