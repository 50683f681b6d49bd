"""Runs a page in headless Chromium, through the pipe of its DevTools protocol; no driver is needed."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from poolzoo.common.errors import CheckFailed, EnvironmentProblem
from poolzoo.common.json_writer import dumps
from poolzoo.common.programs import find_program
from poolzoo.common.text import one_line

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
# No profile, no service of Google, no GPU; no other machine is reached.
SWITCHES: Final = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Becomes Chromium, with the ends of the pipes at the file descriptors that it reads commands from and answers to.
LAUNCHER: Final = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for wanted, end in zip((3, 4), ends):
    os.dup2(end, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""
WAIT: Final = 300.0  # seconds for one answer …
CLOSING: Final = 4.0  # … and for its end
LOCAL: Final = ("file:", "data:", "blob:", "about:")


def find_chromium() -> str:
    """The path of a Chromium or Chrome.

    Raises:
        EnvironmentProblem: There is none on PATH.
    """
    for program in PROGRAMS:
        if (path := find_program(program)) is not None:
            return path
    raise EnvironmentProblem("Chromium is not installed", f"install it; it is looked for as {', '.join(PROGRAMS)}")


class Page:
    """A page in a Chromium of its own, with an empty profile.

    Args:
        file: The HTML file, opened from disk, in a directory that can be written to.

    Attributes:
        requests: The addresses that the page asked for beyond files of its own, data and blobs.

    Raises:
        EnvironmentProblem: Chromium is not installed or does not start, or this is Windows.
    """

    def __init__(self, file: Path) -> None:
        if sys.platform == "win32":
            raise EnvironmentProblem("the page is checked on Linux and macOS only", "open it in a browser")
        program = find_chromium()
        self.requests: list[str] = []
        # Beside the page: should Chromium be killed with this process, the host still removes both.
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", dir=file.parent, ignore_cleanup_errors=True)
        self._rest, self._count, self._session = b"", 0, ""
        read_here, write_there = os.pipe()
        read_there, self._write = os.pipe()
        self._read = read_here
        switches = [*SWITCHES, f"--user-data-dir={self._profile.name}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            switches.append("--no-sandbox")  # Chromium refuses to run as root with it
        command = [sys.executable, "-I", "-c", LAUNCHER, str(read_there), str(write_there), program, *switches]
        try:
            self._process = subprocess.Popen(
                [*command, "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(read_there, write_there),
            )
        finally:
            os.close(read_there)
            os.close(write_there)
        try:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self._call("Network.enable")
            self._call("Page.enable")
            self._call("Page.navigate", url=file.resolve().as_uri())
            self.evaluate("new Promise((done) => document.readyState === 'complete' ? done() : onload = () => done())")
        except BaseException:
            self.close()
            raise

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is awaited.

        Raises:
            CheckFailed: It throws, or Chromium ended.
        """
        found = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text", "")
            raise CheckFailed(f"the page reports: {one_line(str(text), 300)}")
        return found["result"].get("value")

    def set_file(self, selector: str, file: Path) -> None:
        """Chooses a file in an `<input type="file">`, as a user does."""
        document = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", files=[str(file.resolve())], nodeId=node)

    def close(self) -> None:
        """Ends Chromium and removes its profile."""
        os.close(self._write)  # it ends by itself then, with its children, and its profile can be removed
        try:
            self._process.wait(CLOSING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        self._profile.cleanup()

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._count += 1
        message: dict[str, object] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        content = memoryview(dumps(message).encode() + b"\0")
        try:
            while content:
                content = content[os.write(self._write, content) :]
        except OSError as error:
            raise _ended() from error
        deadline = time.monotonic() + WAIT
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._count:
                break
            if answer.get("method") == "Network.requestWillBeSent":
                address = str(answer["params"]["request"]["url"])
                if not address.startswith(LOCAL):
                    self.requests.append(address)
        if "error" in answer:
            raise CheckFailed(f"Chromium refuses {method}: {one_line(str(answer['error'].get('message')), 300)}")
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self, deadline: float) -> dict[str, Any]:
        parts = [self._rest]
        while b"\0" not in parts[-1]:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise CheckFailed(f"Chromium gave no answer within {WAIT:.0f} seconds")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise _ended()
            parts.append(part)
        content, _, self._rest = b"".join(parts).partition(b"\0")
        answer: dict[str, Any] = json.loads(content)
        return answer


def _ended() -> EnvironmentProblem:
    return EnvironmentProblem("Chromium ended", "run it once from a terminal to see why")
