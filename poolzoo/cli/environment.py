"""Looks at the machine: what is installed, which devices and providers really work, where things are kept."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any, Final

from poolzoo.common import resources
from poolzoo.plugin import loader
from poolzoo.plugin.health import verdicts
from poolzoo.plugin.problems import stages

PACKAGES: Final = (
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxscript",
    "numpy",
    "scikit-learn",
    "safetensors",
    "pillow",
)
Finding = dict[str, Any]


def _finding(what: str, state: str, detail: str, hint: str = "") -> Finding:
    return {"what": what, "state": state, "detail": detail, "hint": hint}


def examine() -> list[Finding]:
    """What was found, each as `{"what", "state": "ok" | "absent" | "wrong", "detail", "hint"}`."""
    return [*_versions(), *_devices(), *_runtimes(), *_caches(), *_plugins()]


def _versions() -> Iterator[Finding]:
    yield _finding("poolzoo", "ok", f"{version('poolzoo')}, Python {platform.python_version()}, {platform.platform()}")
    for package in PACKAGES:
        try:
            yield _finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield _finding(package, "wrong", "not installed", f"pip install {package}")


def _devices() -> Iterator[Finding]:
    try:
        torch = import_module("torch")
    except ImportError as error:
        yield _finding("devices", "wrong", f"torch cannot be imported: {error}", "install torch again")
        return
    yield _finding(
        "cpu", "ok", f"{resources.cpus()} of {os.cpu_count()} processors, torch uses {torch.get_num_threads()} threads"
    )
    if not torch.cuda.is_available():
        yield _finding("cuda", "absent", "torch sees no GPU")
    for index in range(torch.cuda.device_count()):
        try:
            torch.ones(1, device=f"cuda:{index}").sum().item()
            yield _finding(f"cuda:{index}", "ok", torch.cuda.get_device_name(index))
        except RuntimeError as error:
            yield _finding(f"cuda:{index}", "wrong", str(error), "update the driver, or use --device cpu")


def _runtimes() -> Iterator[Finding]:
    names = {dist.name for dist in distributions()}
    installed = sorted(name for name in names if name in ("onnxruntime", "onnxruntime-gpu"))
    if len(installed) != 1:
        detail = " and ".join(installed) or "not installed"
        hint = "pip uninstall both, then install one of them: they overwrite each other"
        yield _finding("onnxruntime", "wrong", detail, hint)
        return
    from poolzoo.runtime import ort_session

    yield _finding("onnxruntime", "ok", f"{installed[0]} {version(installed[0])}")
    for name, provider in ort_session.PROVIDERS.items():
        if not ort_session.has_device(provider):
            yield _finding(f"{name} provider", "absent", "no device for it")
            continue
        try:
            _add_one(name)
            yield _finding(f"{name} provider", "ok", provider)
        except Exception as error:  # whatever a provider's libraries raise is the finding
            state = "absent" if name == "tensorrt" else "wrong"  # every GPU build lists TensorRT, few machines have it
            yield _finding(f"{name} provider", state, str(error)[:200], "see ONNX Runtime's table of CUDA versions")


def _add_one(name: str) -> None:
    """Runs a graph of one node under a provider."""
    import tempfile

    import numpy as np
    from onnx import TensorProto, helper, save

    from poolzoo.runtime import ort_session

    pixels = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Add", ["images", "images"], ["logits"])], "doctor", [pixels], [out])
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    helper.set_model_props(model, {"labels": "[]", "input": "{}"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor.onnx"
        save(model, path)
        opened = ort_session.open_model(path, name)
        (result,) = opened.session.run(["logits"], {"images": np.ones(1, np.float32)})
        if result[0] != 2:
            raise RuntimeError(f"1 + 1 gave {result[0]}")


def _caches() -> Iterator[Finding]:
    from poolzoo.data.source import cache_dir

    place = cache_dir()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if os.access(existing, os.W_OK):
        yield _finding("data cache", "ok", f"{place}, {free:.0f} GB free")
    else:
        yield _finding("data cache", "wrong", f"{place} is not writable", "set POOLZOO_CACHE to another directory")
    from huggingface_hub import constants

    yield _finding("weights cache", "ok", f"{constants.HF_HUB_CACHE}")


def _plugins() -> Iterator[Finding]:
    catalog = loader.catalog()
    for verdict in verdicts(catalog, loader.admitted(loader.candidates())):
        source = verdict.source
        if verdict.faults:
            yield _finding(f"plugin {verdict.plugin}", "wrong", stages(verdict.faults), verdict.faults[0].hint)
        else:
            detail = "; ".join([f"{source.dist} {source.version or source.path} ({source.tier})", *verdict.notes])
            yield _finding(f"plugin {verdict.plugin}", "ok", detail)
