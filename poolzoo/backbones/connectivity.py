"""Checks once, and quickly, whether a host can be reached, instead of waiting for a library's retries."""

from __future__ import annotations

import socket
from functools import cache
from urllib.parse import urlsplit

from poolzoo.common.errors import EnvironmentProblem

PROBE_SECONDS = 3.0  # measured: without a network, the model hub's client retries for 49 s before it gives up


@cache
def reachable(url: str) -> bool:
    """Whether the host of `url` answers within three seconds."""
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False


def require(url: str, what: str, hint: str) -> None:
    """Raises where the host of `url` cannot be reached.

    Args:
        url: Of the file that is needed.
        what: What it is, for the message.
        hint: What to do without a network.

    Raises:
        EnvironmentProblem: The host does not answer within three seconds.
    """
    if not reachable(url):
        raise EnvironmentProblem(f"no network: {what} would come from {urlsplit(url).hostname}", hint)
