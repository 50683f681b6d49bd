"""The plugin contract: what a plugin hands to the host, and the hooks it may implement.

A plugin is a module or an object with functions marked by `hookimpl`. It returns plain data (the dataclasses below);
the host checks the data and does everything else. The file is long because it is the whole contract. A complete plugin:

    from poolzoo import Pooling, hookimpl

    def build(channels: int, *, p: float = 3.0):
        from torch import nn
        class PowerMean(nn.Module):
            def forward(self, x):                       # float[N, C, H, W] → float[N, D]
                wide = x if x.dtype.itemsize > 4 else x.float()
                return wide.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p).to(x.dtype)
        return PowerMean()

    @hookimpl
    def poolzoo_poolings():
        yield Pooling(name="power-mean", summary="power mean over the feature map", kind="global", build=build)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import nn

    from poolzoo.plugin.image_index import ImageIndex

API_VERSION: Final = 1
PROJECT: Final = "poolzoo"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Kind = Literal["global", "local"]
Split = Literal["train", "test"]
Build = Callable[..., "nn.Module"] | str

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_BACKBONE_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]{0,127}")
_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


def _check_name(name: object, pattern: re.Pattern[str]) -> None:
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise ValueError(f"name {name!r} does not match {pattern.pattern}")


def _check_build(build: object, what: str = "build") -> None:
    if not callable(build) and not (isinstance(build, str) and _ATTRIBUTE.fullmatch(build)):
        raise TypeError(f"{what} must be a callable or a 'package.module:attribute' string, not {build!r}")


def _check_texts(name: str, **texts: object) -> None:
    for key, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{key} of {name!r} must be a string, not {type(text).__name__}")


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """A pooling strategy.

    Attributes:
        name: What users type; matches `[a-z0-9][a-z0-9._-]{0,63}`.
        summary: One line for `poolzoo list`.
        kind: "global" for the head, "local" inside a backbone.
        build: For a global pooling `build(channels, **options)`, a module from `float[N, C, H, W]` to `float[N, D]` for
            any N, H, W ≥ 1. For a local one `build(channels, kernel_size, stride, padding, ceil_mode, **options)`, a
            module whose output has the shape that `nn.MaxPool2d` would give. Options are keyword-only with defaults.
            A build that names `map_size` gets the measured (H, W), else None. A string is imported on first use.
        equation: What it computes, in plain text.
        tex: The same in TeX's mathematics, for pages that draw it; "" where the plain text has to do.
        paper: Authors, venue, year and arXiv number, or "" where there is no canonical one.
        parameter_free: Whether a layer with default options has no parameters; behind a frozen backbone the vectors
            of a global one that is not stochastic either can then be kept instead of feature maps.
        stochastic: Whether it draws at random, or otherwise computes something else, in training.
    """

    name: str
    summary: str
    kind: Kind
    build: Build
    equation: str = ""
    tex: str = ""
    paper: str = ""
    parameter_free: bool = False
    stochastic: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name, _NAME)
        _check_build(self.build)
        _check_texts(self.name, summary=self.summary, equation=self.equation, tex=self.tex, paper=self.paper)
        if self.kind not in ("global", "local"):
            raise ValueError(f"kind of pooling {self.name!r} must be 'global' or 'local', not {self.kind!r}")


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A feature extractor.

    Attributes:
        name: What users type; as for poolings, and `/` is allowed.
        summary: One line for `poolzoo list`.
        build: `build(*, pretrained=False, **options)`, a module from normalized `float[N, 3, H, W]` to features as
            NCHW, NHWC or NLC. A build that names `image_size` gets the network's input (H, W). One that names
            `local_pool` gets `make(channels, kernel_size, stride, padding, ceil_mode)` for its own pooling layers, or
            None, and measures the channels behind them; in others `nn.MaxPool2d` and `nn.AvgPool2d` are replaced.
        mean: Channel means that pretrained weights expect, on the 0–1 scale.
        std: Channel standard deviations that pretrained weights expect.
        input_size: Side of the square input in pixels that the weights were made for, or None.
        prefix_tokens: Leading tokens of an NLC output that are not spatial locations (class and register tokens).
        layout: "NCHW", "NHWC", "NLC", or "auto" to tell from the output's shape.
        license: License of the weights, an SPDX identifier where there is one.
        classifier: Key prefixes of the original network's classifier, which `--weights` may drop.
        network: `network(*, pretrained=False, **options)`, the original network with its own pooling and classifier,
            from normalized `float[N, 3, H, W]` to logits, `float[N, K]`; a callable or a string like `build`. It is
            what `poolzoo export NAME --pretrained` exports, at `input_size`, which must be given with it.
        labels: `labels()`, the names of the network's K classes in their order; None for "0", "1", …
        trained_on: Name of the data set whose training images the weights have seen, where it is one that people
            fine-tune on here too; they are then warned that their validation images were seen.
        trained_digests: `trained_digests()`, `uint8[K, 8]`, a sample of these images by the digests of their pixels, as
            `poolzoo.data.digest_sketch.sketch` draws it; with it, the warning counts them.
        crop_pct: Part of the shorter side of an image that the network was published to see: its center is cropped.
        interpolation: How images were resized for it.
    """

    name: str
    summary: str
    build: Build
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    input_size: int | None = None
    prefix_tokens: int = 0
    layout: Literal["auto", "NCHW", "NHWC", "NLC"] = "auto"
    license: str = ""
    classifier: tuple[str, ...] = ("fc", "classifier", "head", "heads")
    network: Build | None = None
    labels: Callable[[], Sequence[str]] | None = None
    trained_on: str = ""
    trained_digests: Callable[[], np.ndarray] | None = None
    crop_pct: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        _check_name(self.name, _BACKBONE_NAME)
        _check_build(self.build)
        _check_texts(self.name, summary=self.summary, license=self.license, trained_on=self.trained_on)
        if self.layout not in ("auto", "NCHW", "NHWC", "NLC"):
            raise ValueError(f"layout of backbone {self.name!r} must be auto, NCHW, NHWC or NLC, not {self.layout!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std of backbone {self.name!r} must be three numbers each, std above 0")
        if self.network is not None:
            _check_build(self.network, "network")
            if self.input_size is None:
                raise ValueError(f"backbone {self.name!r} has a network and must say its input_size")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct of backbone {self.name!r} must be above 0 and at most 1, not {self.crop_pct!r}")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation of backbone {self.name!r} must be bilinear or bicubic")
        for key, function in (("labels", self.labels), ("trained_digests", self.trained_digests)):
            if function is not None and not callable(function):
                raise TypeError(f"{key} of backbone {self.name!r} must be a callable, not {function!r:.80}")


@dataclass(frozen=True, kw_only=True)
class BackboneFamily:
    """Many backbones behind one prefix, looked up on demand, such as `timm/…`.

    Attributes:
        prefix: What comes before the `/`.
        summary: One line for `poolzoo list`.
        names: All names without the prefix; may import heavy packages.
        get: The backbone of one name (without the prefix); raises `KeyError` for an unknown one.
    """

    prefix: str
    names: Callable[[], Sequence[str]]
    get: Callable[[str], Backbone]
    summary: str = ""

    def __post_init__(self) -> None:
        _check_name(self.prefix, _NAME)
        if not callable(self.names) or not callable(self.get):
            raise TypeError(f"names and get of family {self.prefix!r} must be callables")

    @property
    def name(self) -> str:
        return f"{self.prefix}/*"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A labeled set of images: decoded arrays from `load`, or an index of encoded images from `index`.

    Attributes:
        name: What users type.
        summary: One line for `poolzoo list`.
        load: `load(split, cache_dir)` with split "train" or "test" gives `(uint8[N, H, W, 3], int64[N])`.
            For several labels an image, the second array is `uint8[N, K]` of zeros and ones.
        index: `index(split, cache_dir)` with a split of `splits` gives a `poolzoo.ImageIndex`, from which
            images are read when they are needed. Its labels are places in `classes`.
        splits: The splits that there are, of "train", "val" and "test".
        classes: Names of the labels, in their order; None for "0", "1", …
        flip: Whether a mirrored image keeps its label.
        remarks: Gives lines that the host shows once it has the indices, such as what was left out.
    """

    name: str
    summary: str
    load: Callable[[Split, Path], tuple[np.ndarray, np.ndarray]] | None = None
    index: Callable[[str, Path], ImageIndex] | None = None
    splits: tuple[str, ...] = ("train", "test")
    classes: tuple[str, ...] | None = None
    flip: bool = True
    remarks: Callable[[], Iterable[str]] | None = None

    def __post_init__(self) -> None:
        _check_name(self.name, _NAME)
        _check_texts(self.name, summary=self.summary)
        if (self.load is None) == (self.index is None):
            raise TypeError(f"dataset {self.name!r} must have one of load and index")
        for key, function in (("load", self.load), ("index", self.index), ("remarks", self.remarks)):
            if function is not None and not callable(function):
                raise TypeError(f"{key} of dataset {self.name!r} must be a callable")
        if not set(self.splits) <= {"train", "val", "test"}:
            raise ValueError(f"splits of dataset {self.name!r} must be of train, val and test, not {self.splits!r:.80}")
        if self.classes is not None and not isinstance(self.classes, tuple | list):
            raise TypeError(f"classes of dataset {self.name!r} must be a tuple of names, not {self.classes!r:.80}")


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """Data sets behind one prefix, such as `csv:FILE`.

    Attributes:
        prefix: What comes before the `:`.
        summary: One line for `poolzoo list`.
        open: `open(place, *, splits, multilabel)` gives the `Dataset` that the text behind the `:` names; a callable or
            a string that is imported on first use. It reads no image. `splits` are those that are needed, of which the
            first that there is gives the names of the classes. With `multilabel` an image may have several labels or
            none. Raises `poolzoo.UsageError` for a place that is not as it should be.
        is_path: Whether the text behind the `:` is a path, which the host makes absolute in what it keeps.
        example: What users type, such as "csv:photos.csv".
        install: How to get what it needs, such as "pip install 'poolzoo[shards]'".
        modules: Importable names that must be there, found without importing them.
    """

    prefix: str
    summary: str
    open: Callable[..., Dataset] | str
    is_path: bool = True
    example: str = ""
    install: str = ""
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.prefix, _NAME)
        _check_build(self.open, "open")
        _check_texts(self.prefix, summary=self.summary, example=self.example, install=self.install)
        if not isinstance(self.modules, tuple | list) or not all(isinstance(one, str) and one for one in self.modules):
            raise TypeError(f"modules of source {self.prefix!r} must be a tuple of names, not {self.modules!r:.80}")

    @property
    def name(self) -> str:
        return f"{self.prefix}:"


@dataclass(frozen=True, kw_only=True)
class GraphForm:
    """What a runtime asks of a graph beyond what every bundle's graph is; the host adapts a copy of it.

    Attributes:
        input: "uint8" for images `uint8[N, h, w, 3]`, "float" for `float32[N, 3, h, w]` in 0–1; None takes either.
        batch: The fixed batch size that it needs; None for any batch in one session.
        opset: The highest opset that it reads; None for any.
        dynamic_slices: Whether it takes slices whose bounds the graph computes, as graphs with photo input have them.
    """

    input: Literal["uint8", "float"] | None = None
    batch: int | None = None
    opset: int | None = None
    dynamic_slices: bool = True

    def __post_init__(self) -> None:
        if self.input not in (None, "uint8", "float"):
            raise ValueError(f"input of a graph's form must be 'uint8', 'float' or None, not {self.input!r:.80}")
        for key, number in (("batch", self.batch), ("opset", self.opset)):
            if number is not None and (type(number) is not int or number < 1):
                raise ValueError(f"{key} of a graph's form must be a whole number ≥ 1 or None, not {number!r:.80}")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime: what runs a bundle's graph on some machine.

    Each session runs in a process of its own, with limits of time and memory, so it may crash and print.

    Attributes:
        name: What users type.
        summary: One line for `poolzoo list`.
        open: `open(bundle, *, threads, device, precision)` gives a session: a callable from `uint8[N, h, w, 3]` to
            logits and probabilities, `float[N, K]` each, for batches of any size in any order. Its `close()` is called
            where it has one. `bundle` is a directory whose `model.onnx` has the form that `form` asks for, or what
            `convert` wrote. `device` is one of `devices`; `precision` is "fp32" for float32 arithmetic, or "auto" for
            what the runtime prefers. A string is imported on first use.
        convert: `convert(bundle, out)` writes files of the runtime's own into the empty directory `out`; a callable or
            a string like `open`. None where it reads `model.onnx`.
        install: How to get it, such as "pip install 'poolzoo[openvino]'".
        modules: Importable names that must be there, found without importing them.
        programs: Programs that must be on PATH, such as "node".
        npm: Packages of npm that must be installed globally or in a folder of `NODE_PATH`; their versions are shown.
        distributions: Distributions whose versions are shown.
        devices: The devices that it computes on; the first one is the default.
        form: What it asks of the graph.
        converts_to_code: Whether what `convert` writes is a program, such as machine code. What a bundle holds of it is
            run only for a user who names this runtime; else it is made anew from the graph.
    """

    name: str
    summary: str
    open: Callable[..., object] | str
    convert: Callable[[Path, Path], object] | str | None = None
    install: str = ""
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    form: GraphForm = GraphForm()
    converts_to_code: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name, _NAME)
        if self.name in ("all", "auto"):
            raise ValueError(f"name {self.name!r} means several runtimes, and can be that of none")
        _check_texts(self.name, summary=self.summary, install=self.install)
        _check_build(self.open, "open")
        if self.convert is not None:
            _check_build(self.convert, "convert")
        for key in ("modules", "programs", "npm", "distributions", "devices"):
            names = getattr(self, key)
            if not isinstance(names, tuple | list) or not all(isinstance(one, str) and one for one in names):
                raise TypeError(f"{key} of runtime {self.name!r} must be a tuple of names, not {names!r:.80}")
        if not self.devices:
            raise ValueError(f"devices of runtime {self.name!r} must name at least one device")
        if not isinstance(self.form, GraphForm):
            raise TypeError(f"form of runtime {self.name!r} must be a GraphForm, not {self.form!r:.80}")
        if not isinstance(self.converts_to_code, bool):
            raise TypeError(f"converts_to_code of runtime {self.name!r} must be True or False")


# --- What a plugin provides ----------------------------------------------------------------------------------------


@hookspec
def poolzoo_poolings() -> Iterable[Pooling]:  # type: ignore[empty-body]
    """Called once, when names are first needed. Returns the poolings that the plugin provides."""


@hookspec
def poolzoo_backbones() -> Iterable[Backbone | BackboneFamily]:  # type: ignore[empty-body]
    """Called once, when names are first needed. Returns the backbones, or their families, that the plugin provides."""


@hookspec
def poolzoo_datasets() -> Iterable[Dataset | DatasetSource]:  # type: ignore[empty-body]
    """Called once, when names are first needed. Returns the data sets, or their sources, that the plugin provides."""


@hookspec
def poolzoo_runtimes() -> Iterable[Runtime]:  # type: ignore[empty-body]
    """Called once, when names are first needed. Returns the runtimes that the plugin provides."""


# --- Events of a run: read-only; an exception there is reported and stops nothing ----------------------------------


@hookspec
def poolzoo_run_started(run: dict[str, object]) -> None:
    """Called before the first epoch. `run` holds `path` and the arguments of the run."""


@hookspec
def poolzoo_epoch_finished(run: dict[str, object], epoch: int, metrics: dict[str, float]) -> None:
    """Called after each epoch (1, 2, …) with the line that goes into `metrics.jsonl`."""


@hookspec
def poolzoo_run_finished(run: dict[str, object], metrics: dict[str, object]) -> None:
    """Called when the run directory is complete, with its test metrics."""


@hookspec
def poolzoo_exported(bundle: str, report: dict[str, object]) -> None:
    """Called when a bundle is complete, with its path and the report that `export --json` prints."""
