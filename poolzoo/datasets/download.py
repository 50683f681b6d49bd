"""Published files, fetched once: each is checked and appears whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from poolzoo.common import locks, output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem
from poolzoo.common.text import one_line

MAX_BYTES: Final = 4 << 30  # of a file: no published one is a tenth of it, and a mirror may send without end
TIMEOUT: Final = 20.0  # seconds without a byte after which a mirror is given up
# The network's errors; any other `OSError` is the disk's.
_NETWORK: Final = (URLError, TimeoutError, ConnectionError, socket.gaierror, ssl.SSLError, http.client.HTTPException)


def fetch(path: Path, urls: Sequence[str], md5: str, name: str) -> Path:
    """The file at `path`: checked where it is there, else downloaded to it.

    Args:
        path: Where it is kept.
        urls: Where it is published; the next one is tried when one fails.
        md5: Its checksum.
        name: The data set's, for what is said.

    Raises:
        EnvironmentProblem: It is not there, and none of the mirrors gives it.
        CheckFailed: What is there is not the published file.
    """
    if path.is_file():
        if (found := _md5(path)) != md5:
            raise CheckFailed(
                f"{path} is not the published file of {name} (md5 {found})", "delete it, and it is fetched again"
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    locks.sweep(path.parent)
    output.say(f"downloading {name} to {path}")
    problem = "it has no mirrors"
    for url in urls:
        try:
            _download(path, url, md5, name)
            return path
        except _Failed as failed:
            problem = f"{url}: {failed}"
            output.detail(problem)
    raise EnvironmentProblem(
        f"{name} cannot be downloaded ({problem})",
        f"put {path.name} into {path.parent}, or use --data folder:PATH or --data digits",
    )


class _Failed(Exception):
    """A mirror did not give the file; says why."""


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _download(path: Path, url: str, md5: str, name: str) -> None:
    try:
        with locks.unfinished(path) as temporary:
            with temporary.open("wb") as file, urlopen(url, timeout=TIMEOUT) as answer:
                total = int(answer.headers.get("Content-Length") or 0)  # 0: unknown
                with output.progress(name, total / 1e6) as bar:
                    done = 0
                    while chunk := answer.read(1 << 20):
                        file.write(chunk)
                        done += len(chunk)
                        bar.update(done / 1e6, "MB")
                        if done > MAX_BYTES:
                            raise _Failed(f"more than {MAX_BYTES:,} bytes came")
            if done < total:
                raise _Failed(f"{done} of {total} bytes came")
            if (found := _md5(temporary)) != md5:
                raise _Failed(f"what came is not the published file (md5 {found})")
            os.replace(temporary, path)
    except _NETWORK as error:
        reason = getattr(error, "reason", error)
        raise _Failed(one_line(str(reason)) or type(error).__name__) from error
