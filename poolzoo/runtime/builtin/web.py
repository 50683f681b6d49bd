"""onnxruntime-web in node: ONNX Runtime compiled to WebAssembly, as browsers run it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import IO, Final

import numpy as np

from poolzoo.common.errors import CheckFailed, EnvironmentProblem
from poolzoo.common.programs import find_program
from poolzoo.common.text import one_line
from poolzoo.runtime import npm, protocol
from poolzoo.runtime.graph_input import read_input

SCRIPT: Final = Path(__file__).with_name("node_session.mjs")
PACKAGE: Final = "onnxruntime-web"
CLOSING: Final = 3  # seconds that node has to end


class NodeSession:
    """A node process that holds the opened graph. Batches go to it through pipes, as frames of `protocol`.

    Args:
        model: The ONNX file.
        threads: Threads to compute with.

    Raises:
        EnvironmentProblem: node or the npm package is not installed.
        CheckFailed: onnxruntime-web refuses the graph.
    """

    def __init__(self, model: Path, threads: int) -> None:
        node = find_program("node")
        if node is None:
            raise EnvironmentProblem("node is not installed", "install node 18 or newer from nodejs.org")
        package = npm.find_package(PACKAGE)
        self._input = read_input(model)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, close() closes it
        command = [node, str(SCRIPT), str(package), str(model), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        try:
            self._receive()  # an empty frame once the graph is open
        except BaseException:
            self.close()
            raise

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs a batch.

        Args:
            images: `uint8[N, h, w, 3]`.

        Returns:
            Logits and probabilities, `float32[N, K]` each.

        Raises:
            CheckFailed: onnxruntime-web reports an error, or node ended.
        """
        try:
            protocol.write(_pipe(self._process.stdin), {}, [self._input.convert(images)])
        except OSError as error:
            raise self._ended() from error
        logits, probabilities = self._receive().arrays
        return logits, probabilities

    def close(self) -> None:
        """Ends the process."""
        try:
            _pipe(self._process.stdin).close()
            self._process.wait(CLOSING)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()
        self._errors.close()

    def _receive(self) -> protocol.Frame:
        try:
            answer = protocol.read(_pipe(self._process.stdout))
        except protocol.NoFrame as error:
            raise self._ended() from error
        if "error" in answer.header:
            raise CheckFailed(f"onnxruntime-web: {one_line(str(answer.header['error']), 300)}")
        return answer

    def _ended(self) -> CheckFailed:
        """The error for a process that ended, with the last line that it wrote."""
        code = self._process.wait(CLOSING)
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no message")
        return CheckFailed(f"node ended with code {code}: {one_line(last, 300)}")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> NodeSession:
    """Opens `model.onnx` of a directory in node.

    Args:
        bundle: The directory.
        threads: Threads to compute with.
        device: "cpu".
        precision: Any: WebAssembly computes the graph as it is.

    Raises:
        EnvironmentProblem: node or the npm package is not installed.
        CheckFailed: onnxruntime-web refuses the graph.
    """
    return NodeSession(bundle / "model.onnx", threads)
