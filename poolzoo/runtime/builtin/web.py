"""onnxruntime-web in node: ONNX Runtime compiled to WebAssembly, as browsers run it."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from poolzoo.common.errors import CheckFailed, EnvironmentProblem
from poolzoo.common.json_writer import dumps
from poolzoo.common.text import one_line
from poolzoo.runtime import npm
from poolzoo.runtime.graph_input import read_input

SCRIPT: Final = Path(__file__).with_name("node_session.mjs")
PACKAGE: Final = "onnxruntime-web"
OUTPUTS: Final = ("logits", "probabilities")
CLOSING: Final = 10  # seconds that node has to end


class NodeSession:
    """A node process that holds the opened graph. Batches go to it through pipes.

    Args:
        model: The ONNX file.
        threads: Threads to compute with.

    Attributes:
        version: The version of the npm package.

    Raises:
        EnvironmentProblem: node or the package is not installed.
        CheckFailed: onnxruntime-web refuses the graph.
    """

    def __init__(self, model: Path, threads: int) -> None:
        node = shutil.which("node")
        if node is None:
            raise EnvironmentProblem("node is not installed", "install node 18 or newer from nodejs.org")
        package = npm.find_package(PACKAGE)
        self._input = read_input(model)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, close() closes it
        command = [node, str(SCRIPT), str(package), str(model), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
        )
        try:
            self.version = str(self._receive()["version"])
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
        batch = np.ascontiguousarray(self._input.convert(images))
        header = dumps({"type": str(batch.dtype), "dims": batch.shape}).encode()
        try:
            self._stdin.write(struct.pack("<I", len(header)) + header)
            _write_all(self._stdin, batch.data.cast("B"))
        except OSError as error:
            raise self._ended() from error
        dims = self._receive()["outputs"]
        logits, probabilities = (self._read_array(dims[name]) for name in OUTPUTS)
        return logits, probabilities

    def close(self) -> None:
        """Ends the process."""
        self._stdin.close()
        try:
            self._process.wait(CLOSING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._errors.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _receive(self) -> dict[str, Any]:
        """The header of the next answer."""
        (length,) = struct.unpack("<I", self._read(4))
        header: dict[str, Any] = json.loads(self._read(length))
        if "error" in header:
            raise CheckFailed(f"onnxruntime-web: {one_line(header['error'], 300)}")
        return header

    def _read_array(self, dims: list[int]) -> np.ndarray:
        return np.frombuffer(self._read(4 * int(np.prod(dims))), "<f4").reshape(dims)

    def _read(self, count: int) -> bytes:
        parts = []
        while count:
            part = self._stdout.read(count)
            if not part:
                raise self._ended()
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _ended(self) -> CheckFailed:
        """The error for a process that ended, with the last line that it wrote."""
        self._process.wait(CLOSING)
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no message")
        return CheckFailed(f"node ended with code {self._process.returncode}: {one_line(last, 300)}")


def _write_all(stream: IO[bytes], content: memoryview) -> None:
    while content:
        content = content[stream.write(content) :]


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
