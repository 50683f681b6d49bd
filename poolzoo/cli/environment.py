"""Examines the machine: what is installed, which devices and providers really work, where things are kept."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distributions, version
from typing import Final, Literal

from poolzoo._version import __version__
from poolzoo.common import resources
from poolzoo.common.temporary import temporary_folder
from poolzoo.plugin import loader
from poolzoo.plugin.discovery import admitted
from poolzoo.plugin.health import health_of
from poolzoo.plugin.problems import by_stage

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


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        what: A package, a device, a provider, a cache or a plugin.
        state: "ok", "absent" where it need not be there, or "wrong".
        detail: A version, a place, or what is wrong.
        hint: What to do about it.
    """

    what: str
    state: Literal["ok", "absent", "wrong"]
    detail: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def examine() -> list[Finding]:
    """Every finding on this machine, in the order in which `poolzoo doctor` prints them."""
    return [*_versions(), *_devices(), *_runtimes(), *_caches(), *plugin_findings()]


def _versions() -> Iterator[Finding]:
    yield Finding("poolzoo", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in PACKAGES:
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "wrong", "not installed", f"pip install {package}")


def _devices() -> Iterator[Finding]:
    try:
        torch = import_module("torch")
    except ImportError as error:
        yield Finding("devices", "wrong", f"torch cannot be imported: {error}", "install torch again")
        return
    threads = torch.get_num_threads()
    yield Finding("cpu", "ok", f"{resources.cpus()} of {os.cpu_count()} processors, torch uses {threads} threads")
    if not torch.cuda.is_available():
        yield Finding("cuda", "absent", "torch sees no GPU")
    for index in range(torch.cuda.device_count()):  # gpu: no round without a device
        try:
            torch.ones(1, device=f"cuda:{index}").sum().item()
            yield Finding(f"cuda:{index}", "ok", torch.cuda.get_device_name(index))
        except RuntimeError as error:
            yield Finding(f"cuda:{index}", "wrong", str(error), "update the driver, or use --device cpu")


def _runtimes() -> Iterator[Finding]:
    names = {dist.name for dist in distributions()}
    installed = sorted(name for name in names if name in ("onnxruntime", "onnxruntime-gpu"))
    if len(installed) != 1:
        detail = " and ".join(installed) or "not installed"
        hint = "pip uninstall both, then install one of them: they overwrite each other"
        yield Finding("onnxruntime", "wrong", detail, hint)
        return
    from poolzoo.runtime import ort_session

    yield Finding("onnxruntime", "ok", f"{installed[0]} {version(installed[0])}")
    for name, provider in ort_session.PROVIDERS.items():
        if not ort_session.has_device(provider):
            yield Finding(f"{name} provider", "absent", "no device for it")
            continue
        try:
            _add_one(name)
            yield Finding(f"{name} provider", "ok", provider)
        except Exception as error:  # whatever a provider's libraries raise is the finding
            # Every GPU build lists TensorRT, and few machines have it.
            state: Literal["absent", "wrong"] = "absent" if name == "tensorrt" else "wrong"
            yield Finding(f"{name} provider", state, str(error)[:200], "see ONNX Runtime's table of CUDA versions")


def _add_one(name: str) -> None:
    """Runs a graph of one node under a provider."""
    import numpy as np
    from onnx import TensorProto, helper, save

    from poolzoo.runtime import ort_session

    pixels = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Add", ["images", "images"], ["logits"])], "doctor", [pixels], [out])
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    helper.set_model_props(model, {"labels": '["one"]', "input": '{"kind": "float", "height": 1, "width": 1}'})
    with temporary_folder() as folder:
        path = folder / "doctor.onnx"
        save(model, path)
        opened = ort_session.open_model(path, name)
        (result,) = opened.session.run(["logits"], {"images": np.ones(1, np.float32)})
        if result[0] != 2:
            raise RuntimeError(f"1 + 1 gave {result[0]}")


def _caches() -> Iterator[Finding]:
    try:
        yield from (_data_cache(), _weights_cache())
    except ModuleNotFoundError as error:  # an installation that predicts, and neither trains nor exports
        yield Finding("caches", "wrong", f"{error.name} is not installed", f"pip install {error.name}")


def _data_cache() -> Finding:
    from poolzoo.data.source import cache_dir

    place = cache_dir()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if os.access(existing, os.W_OK):
        return Finding("data cache", "ok", f"{place}, {free:.0f} GB free")
    return Finding("data cache", "wrong", f"{place} is not writable", "set POOLZOO_CACHE to another directory")


def _weights_cache() -> Finding:
    from huggingface_hub import constants

    return Finding("weights cache", "ok", f"{constants.HF_HUB_CACHE}")


def plugin_findings() -> Iterator[Finding]:
    catalog = loader.catalog()
    for health in health_of(catalog, admitted(loader.candidates())):
        source = health.source
        if health.faults:
            yield Finding(f"plugin {health.plugin}", "wrong", by_stage(health.faults), health.faults[0].hint)
        else:
            detail = "; ".join([f"{source.dist} {source.version or source.path} ({source.tier})", *health.notes])
            yield Finding(f"plugin {health.plugin}", "ok", detail)
