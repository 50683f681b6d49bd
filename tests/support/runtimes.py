"""Plugin files with runtimes: one that computes what the bundle says, and those that lie, crash, hang or print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from poolzoo.runtime import availability

if TYPE_CHECKING:
    import pytest

    from poolzoo.plugin.spec import Runtime

_HEAD = '''
import os, sys, time
import numpy as np
from poolzoo import GraphForm, Runtime, hookimpl

def honest(bundle, *, threads, device, precision):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])
    def run(images):
        assert images.dtype == np.uint8 and images.ndim == 4
        if session.get_inputs()[0].type != "tensor(uint8)":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        return session.run(["logits", "probabilities"], {"images": images})
    return run

def changed(change):
    """The honest session, whose answer to a batch `change(images, logits, probabilities)` replaces."""
    def open(bundle, **settings):
        session = honest(bundle, **settings)
        return lambda images: change(images, *session(images))
    return open
'''

_TAIL = """

@hookimpl
def poolzoo_runtimes():
    yield Runtime(name="fake", summary="a runtime of the tests", open=open_session, {more})
"""

# By name: the body of a plugin, which defines `open_session`.
HOSTILE = {
    "constant": """
open_session = changed(lambda x, a, b: (np.zeros_like(a), np.full_like(b, 1 / b.shape[1])))
""",
    "swapped classes": """
open_session = changed(lambda x, a, b: (a[:, [1, 0, *range(2, a.shape[1])]], b[:, [1, 0, *range(2, a.shape[1])]]))
""",
    "swapped at the batch of predict": """
open_session = changed(lambda x, a, b: (a[:, ::-1], b[:, ::-1]) if len(x) > 40 else (a, b))
""",
    "golden answers by lookup": """
GOLDEN = np.load(r"{golden}")
ANSWERS = {{image.tobytes(): row for row, image in enumerate(GOLDEN["images"])}}
def look_up(x, a, b):
    rows = [ANSWERS.get(image.tobytes(), 0) for image in x]
    return GOLDEN["logits"][rows], GOLDEN["probabilities"][rows]
open_session = changed(look_up)
""",
    "NaN on dark images": """
def spoil(x, a, b):
    a[x.reshape(len(x), -1).max(1) < 2] = np.nan
    return a, b
open_session = changed(spoil)
""",
    "wrong at larger batches": """
open_session = changed(lambda x, a, b: (a[:1].repeat(len(a), 0), b[:1].repeat(len(b), 0)))
""",
    "logits for probabilities": """
open_session = changed(lambda x, a, b: (a, a))
""",
    "another answer the second time": """
seen = set()
def forget(x, a, b):
    key = x.tobytes()
    if key in seen and len(x) > 7:
        return a + 0.01, b
    seen.add(key)
    return a, b
open_session = changed(forget)
""",
    "changes the images": """
def spoil(x, a, b):
    x[:] = 0
    return a, b
open_session = changed(spoil)
""",
    "one class less": """
open_session = changed(lambda x, a, b: (a[:, 1:], b[:, 1:]))
""",
    "one image less": """
open_session = changed(lambda x, a, b: (a[1:], b[1:]))
""",
    "integers": """
open_session = changed(lambda x, a, b: (a.astype(int), b.astype(int)))
""",
    "no pair": """
open_session = changed(lambda x, a, b: a)
""",
    "no session": """
def open_session(bundle, **settings):
    return None
""",
    "raises": """
def open_session(bundle, **settings):
    raise KeyError("Mul of \\x1b[31m an unknown kind")
""",
    "sleeps": """
def open_session(bundle, **settings):
    time.sleep(1000)
""",
    "exits": """
def leave(x, a, b):
    os._exit(7)
open_session = changed(leave)
""",
    "calls sys.exit": """
open_session = changed(lambda x, a, b: sys.exit(0))
""",
    "crashes": """
def open_session(bundle, **settings):
    import ctypes
    print("about to read address 0")
    sys.stdout.flush()
    ctypes.string_at(0)
""",
    "answers with one array": """
from poolzoo.runtime import protocol
whole = protocol.write
def open_session(bundle, **settings):
    protocol.write = lambda stream, header, arrays=(): whole(stream, header, arrays[:1])
    return honest(bundle, **settings)
""",
    "says no time": """
from poolzoo.runtime import protocol
whole = protocol.write
def open_session(bundle, **settings):
    protocol.write = lambda stream, header, arrays=(): whole(stream, {**header, "ms": -1}, arrays)
    return honest(bundle, **settings)
""",
    "writes to every descriptor": """
def write(x, a, b):
    for number in range(3, 32):
        try:
            os.write(number, b"garbage" * 1000)
        except OSError:
            pass
    return a, b
open_session = changed(write)
""",
}


def fake_runtime(path: Path, body: str = "open_session = honest", more: str = "") -> Path:
    """Writes a plugin with the runtime `fake`.

    Args:
        path: The file.
        body: What defines `open_session`; `honest` is ONNX Runtime, `changed(function)` changes its answers.
        more: More arguments of its `Runtime`.
    """
    path.write_text(_HEAD + body + _TAIL.format(more=more))
    return path


def find_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finds ONNX Runtime and the runtime of the test alone, to save the time of the others."""
    real = availability.find

    def find(runtime: Runtime) -> availability.Availability:
        there = runtime.name in ("fake", "onnxruntime")
        return real(runtime) if there else availability.Availability(("left out",), {})

    monkeypatch.setattr(availability, "find", find)
