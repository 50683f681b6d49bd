"""Calls on a machine that lacks a package, a program, a device or a network: each is hidden, or a fake stands in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest

from poolzoo.common.errors import EnvironmentProblem

Call = Callable[[], object]
UNUSED = ("datasets", "webdataset")  # with them, command lines get further: `test_packages` goes on there
BUNDLE = Path(__file__).parents[1] / "data" / "digits_bundle"

# A program that speaks the protocol of Chromium's pipes. Its name says what it does.
CHROMIUM = """#!{python}
import json, os, sys
behavior = {behavior!r}
waiting = b""
while behavior != "ends" and (part := os.read(3, 1 << 16)):
    *whole, waiting = (waiting + part).split(b"\\0")
    for one in map(json.loads, whole):
        answer = {{"id": one["id"], "result": {{"targetId": "1", "sessionId": "1"}}}}
        if behavior == "refuses":
            answer = {{"id": one["id"], "error": {{"message": "no such method"}}}}
        elif one["method"] == "Runtime.evaluate":
            answer["result"] = {{"exceptionDetails": {{"text": "Error: it\\nthrows"}}}}
        if behavior != "is silent":
            os.write(4, json.dumps(answer).encode() + b"\\0")
"""
NODE = """#!{python}
import sys
sys.path.insert(0, {root!r})
from poolzoo.runtime import protocol
if {behavior!r} == "refuses":
    protocol.write(sys.stdout.buffer, {{"error": "no such\\noperator"}})
    sys.stdin.buffer.read()
sys.exit("the last\\nline")
"""


@contextmanager
def unused() -> Iterator[None]:
    """The catalog provokes the same places on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in UNUSED:
            patch.setitem(sys.modules, name, None)
        yield


def _without(module: str, call: Call, **variables: str) -> object:
    """A call in a Python that does not have a module, with environment variables."""
    return _with({module: None}, call, **variables)


def _with(modules: Mapping[str, object], call: Call, **variables: str) -> object:
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        for name, value in variables.items():
            patch.setenv(name, value)
        return call()


def _packages(folder: Path) -> Iterator[Call]:
    from poolzoo.cli import data
    from poolzoo.cli.foreign import require_onnx
    from poolzoo.data import walk
    from poolzoo.plugin.spec import GraphForm
    from poolzoo.runtime import forms, verify
    from poolzoo.runtime.builtin import coreml
    from poolzoo.runtime.prediction import file_lists
    from poolzoo.testing.release.run import ReleaseOptions, check_release

    near = {"limit": None, "task": "classification", "near": True, "page": None, "as_json": False}
    yield lambda: _without("imagehash", lambda: data.check.callback("digits", **near))
    yield lambda: _without("onnx", require_onnx)
    yield lambda: _without("onnx", lambda: forms.adapt(b"", GraphForm(batch=1)))
    yield lambda: _without("onnx", lambda: verify.verify(BUNDLE, arithmetics=["fp16"], measure_speed=False))
    (folder / "names.parquet").write_bytes(b"")
    yield lambda: _without("pyarrow", lambda: list(file_lists.images_in(str(folder / "names.parquet"), walk.Tally())))
    project = folder / "released"
    project.mkdir()
    (project / "pyproject.toml").write_text("[project]\nname = 'released'\n")
    yield lambda: _without("build", lambda: check_release(project, ReleaseOptions()))
    yield lambda: _with(_tools(), lambda: check_release(project, ReleaseOptions(clean=True, offline=True)))
    yield lambda: _elsewhere("linux", lambda: coreml.open_session(BUNDLE, threads=1, device="cpu", precision="fp32"))


def _tools() -> dict[str, object]:
    """The packages of a release check, as something that is found and does nothing."""
    return {name: Namespace(__spec__=ModuleSpec(name, None)) for name in ("build", "twine")}


def _elsewhere(system: str, call: Call) -> object:
    """A call on another system, as far as Python says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "platform", system)
        return call()


def _places(folder: Path) -> Iterator[Call]:
    """An environment cannot be made where its links cannot; a package index is not reached."""
    from poolzoo.testing.release import environment
    from poolzoo.testing.release.run import ReleaseOptions, check_release

    taken = folder / "taken"
    taken.mkdir()
    (taken / "this").write_text("")
    yield lambda: environment.make(taken, "mine", (), None, clean=True, offline=True, temporary=taken)
    options = ReleaseOptions(clean=True)
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}
    yield lambda: _with(_tools(), lambda: check_release(folder / "released", options), **nowhere)


def _program(folder: Path, name: str, text: str, behavior: str) -> str:
    """A folder with a fake program, for PATH."""
    place = folder / f"{name} that {behavior}"
    place.mkdir()
    values = {"python": sys.executable, "behavior": behavior, "root": str(Path(__file__).parents[2])}
    (place / name).write_text(text.format(**values))
    (place / name).chmod(0o755)
    return str(place)


def _no_programs(folder: Path) -> Iterator[Call]:
    from poolzoo.runtime.builtin import chromium, web

    page = folder / "page.html"
    ends = _program(folder, "chromium", CHROMIUM, "ends")
    yield lambda: _elsewhere("win32", lambda: chromium.Page(page))
    for path in ("", ends):
        yield lambda path=path: _with({}, lambda: chromium.Page(page), PATH=path)
    yield lambda: _with({}, lambda: web.open_session(BUNDLE, threads=1, device="cpu", precision="fp32"), PATH="")


def _other_programs(folder: Path) -> Iterator[Call]:
    from poolzoo.runtime.builtin import chromium, web

    page = folder / "page.html"
    for behavior in ("refuses", "throws", "is silent"):
        path = _program(folder, "chromium", CHROMIUM, behavior)
        yield lambda path=path: _impatient(lambda: _with({}, lambda: chromium.Page(page), PATH=path))
    (folder / "modules" / web.PACKAGE).mkdir(parents=True)
    (folder / "modules" / web.PACKAGE / "package.json").write_text("{}")

    def opened() -> object:
        return web.open_session(BUNDLE, threads=1, device="cpu", precision="fp32")

    for behavior in ("refuses", "ends"):
        path = _program(folder, "node", NODE, behavior)
        yield lambda path=path: _with({}, opened, PATH=path, NODE_PATH=str(folder / "modules"))


def _impatient(call: Call) -> object:
    """A call that waits no minutes for Chromium's answers."""
    from poolzoo.runtime.builtin import chromium

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chromium, "WAIT", 0.5)
        return call()


def _converters(folder: Path) -> Iterator[Call]:
    from poolzoo.runtime.builtin import litert

    writes_nothing = Namespace(convert=lambda **_: None)
    (folder / "written").mkdir()
    yield lambda: _with({"onnx2tf": writes_nothing}, lambda: litert.convert(BUNDLE, folder / "written"))


def _workers(folder: Path) -> Iterator[Call]:
    """A Ray without its data library, and one that cannot start; a worker of another version."""
    from poolzoo.common import cluster
    from poolzoo.runtime.prediction import cluster as predictions

    class RayError(Exception):
        """As Ray calls it."""

    def fails(*_: object, **__: object) -> None:
        raise ConnectionError("no node\nanswers")

    ray = Namespace(exceptions=Namespace(RayError=RayError), is_initialized=lambda: True)
    closed = Namespace(exceptions=ray.exceptions, is_initialized=lambda: False, init=fails)
    plan: Any = Namespace(provider="cpu")

    def parts() -> object:
        return list(predictions.runner("local")(folder, plan, [0], 1))

    def connected() -> object:
        with cluster.connected("local"):
            return None

    yield lambda: _with({"ray": ray}, parts)
    yield lambda: _with({"ray": closed}, connected)
    for address in ("x", "127.0.0.1:1"):
        yield lambda address=address: _with({"ray": ray}, lambda: cluster.require(address))

    class Ended:
        """What workers that died give."""

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: self

        def iter_rows(self) -> object:
            raise RayError("the worker\ndied")

    context = Namespace(get_current=lambda: Namespace())
    data = Namespace(DataContext=context, from_items=lambda *_, **__: Ended(), ActorPoolStrategy=dict)
    nodes = [{"Alive": True, "Resources": {"CPU": 1}}]
    ending = Namespace(exceptions=ray.exceptions, is_initialized=lambda: True, data=data, nodes=lambda: nodes)
    yield lambda: _with({"ray": ending, "ray.data": data}, parts)


def _groups() -> Iterator[Call]:
    """Two processes that train together: what the other one says is given."""
    import torch.distributed

    from poolzoo.common import output
    from poolzoo.train import distributed

    def with_other(said: object, call: Callable[[distributed.Rank], object]) -> object:
        def gathered(values: list[object], own: object) -> None:
            values[:] = [said, own]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.distributed, "all_gather_object", gathered)
            try:
                return call(distributed.Rank(1, 2))
            finally:
                output.set_rank(0)

    def together(rank: distributed.Rank) -> None:
        with distributed.fail_together(rank):
            pass

    yield lambda: with_other("another", lambda rank: distributed.require_equal("the data", "one", rank))
    failed = distributed.Failure.of(EnvironmentProblem("the disk is full", "make room"))
    yield lambda: with_other(failed, together)


def _parts(folder: Path) -> Iterator[Call]:
    """A cluster whose workers give no part."""
    from poolzoo.runtime.prediction import predict_parts
    from poolzoo.runtime.prediction.plan import Request

    (folder / "parts.txt").write_text("a.png\n")
    request = Request(bundle=BUNDLE, images=[f"@{folder / 'parts.txt'}"])

    def idle(*_: object) -> Any:
        yield from ()

    tables = {"pyarrow": Namespace(parquet=None)}
    yield lambda: _with(tables, lambda: predict_parts.start(folder / "parts", request, idle))


def _devices(folder: Path) -> Iterator[Call]:
    """A GPU that ONNX Runtime names and cannot use."""
    from poolzoo.runtime import ort_session

    def named() -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ort_session, "has_device", lambda provider: True)
            return ort_session.open_model(BUNDLE / "model.onnx", "cuda")

    yield named


def calls(folder: Path) -> Iterator[Call]:
    """Calls whose errors have a hint."""
    yield from _packages(folder)
    yield from _places(folder)
    yield from _no_programs(folder)
    yield from _workers(folder)
    yield from _groups()
    yield from _parts(folder)
    yield from _devices(folder)


def reasons(folder: Path) -> Iterator[Call]:
    """Calls whose errors are reasons that somebody else shows."""
    yield from _other_programs(folder)
    yield from _converters(folder)
