"""A protocol as a value: all that decides the result of a comparison but one pooling. Needs no torch.

A protocol is a TOML file. Its digest is that of its content, so that comments and layout do not count.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from poolzoo.common import conform, json_writer
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare.board import protocol_names
from poolzoo.plugin.grammar import suggest
from poolzoo.plugin.spec import Kind
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import LEGACY_DEFAULTS, checked

FILE: Final = "protocol.toml"  # in the directory of a comparison
BUILT_IN: Final = Path(__file__).parent / "protocols"
SIDES: Final = ("pool", "local_pool")
METRICS: Final = ("accuracy", "f1")  # what predictions tell, so that a check computes it again
# Settings that a protocol leaves to whoever runs it: what is compared, where the data lies, how it is read.
FREE: Final = ("data", "plugins", "data_workers", "protocol")
# Settings that a run derives from its data or machine where nobody gives them. A protocol states them.
DERIVED: Final = (
    "epochs",
    "batch_size",
    "lr",
    "weight_decay",
    "label_smoothing",
    "augment",
    "shift",
    "threads",
    "device",
    "precision",
    "compile",
    "split_seed",
)


@dataclass(frozen=True)
class SplitDigest:
    """The images of a split: their number, and digests of their pixels and of their labels, in their order."""

    images: int
    pixels: str
    labels: str


@dataclass(frozen=True)
class ProtocolData:
    """The data of a protocol.

    Attributes:
        source: What `--data` must be: a data set's name, or a source with its colon, such as `folder:`.
        obtain: Where the data comes from, in a sentence.
        size: Height and width of the images as they are kept.
        classes: In the order of the labels.
        validation: The share of the training images that is held out.
        train, test: The images, after `limit`.
    """

    source: str
    obtain: str
    size: tuple[int, int]
    classes: tuple[str, ...]
    validation: float
    train: SplitDigest
    test: SplitDigest


@dataclass(frozen=True)
class VersionPin:
    """The versions of a package that a protocol allows, as in `>=2.9,<3`, and the one that made its baseline."""

    required: str
    reference: str


@dataclass(frozen=True)
class Protocol:
    """What everybody who submits a row does alike.

    Attributes:
        name, version: A protocol never changes; a better one is another version.
        question: What it asks, in a sentence.
        free: The setting that a submission chooses: `pool` or `local_pool`.
        baseline: Its value in the baseline.
        seeds: Number of trials of each variant, from the settings' seed upwards.
        alpha: The significance level of the tests.
        metrics: The figures that a board shows.
        backbone_sha256: Of the pretrained weights of the backbone; None where it starts from scratch.
        differing_images: How many test images an evaluation elsewhere may decide differently, by rounding.
        state_tolerance: How far weights of a repeated training may differ, as a share of each tensor's largest value.
        data: The data.
        settings: All settings that are not None, as `run.toml` has them.
        versions: By package.
        text: The file.
    """

    name: str
    version: int
    question: str
    free: Literal["pool", "local_pool"]
    baseline: str
    seeds: int
    alpha: float
    metrics: tuple[str, ...]
    backbone_sha256: str | None
    differing_images: int
    state_tolerance: float
    data: ProtocolData
    settings: Mapping[str, Any]
    versions: Mapping[str, VersionPin]
    text: str

    @cached_property
    def digest(self) -> str:
        """The sha256 of the content, without comments, layout and the order of keys."""
        content = json_writer.dumps(_sorted(tomllib.loads(self.text)), separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def reference(self) -> str:
        """What runs and comparisons say of it: `NAME@VERSION:SHA256`."""
        return f"{self.name}@{self.version}:{self.digest}"

    @property
    def title(self) -> str:
        """Its name and version, and the start of its digest."""
        return short(self.reference)

    @property
    def kind(self) -> Kind:
        """The kind of pooling that a submission chooses."""
        return "global" if self.free == "pool" else "local"

    @property
    def seed_range(self) -> range:
        """The seeds of the trials."""
        first = int(self.settings.get("seed", 0))
        return range(first, first + self.seeds)

    @property
    def base(self) -> Settings:
        """The settings that all trials share, with the baseline on the free side."""
        values: dict[str, Any] = {**LEGACY_DEFAULTS, **self.settings, "data": self.data.source}
        local = None if self.baseline == "none" else self.baseline
        values[self.free] = local if self.free == "local_pool" else self.baseline
        return Settings(**values, protocol=self.reference)

    def settings_of(self, chosen: str, seed: int) -> Settings:
        """The settings of one trial.

        Args:
            chosen: The pooling on the free side, `none` for the backbone's own.
            seed: Of the trial.
        """
        value = None if self.free == "local_pool" and chosen == "none" else chosen
        base = replace(self.base, seed=seed)
        return replace(base, pool=str(value)) if self.free == "pool" else replace(base, local_pool=value)

    def to_json(self) -> dict[str, object]:
        """What `poolzoo show NAME --json` prints."""
        return {**{key: value for key, value in asdict(self).items() if key != "text"}, "digest": self.digest}


def short(reference: str) -> str:
    """A reference for people: `digits-heads 1, sha256 5f0c…`."""
    name, _, rest = reference.partition("@")
    version, _, digest = rest.partition(":")
    return f"{name} {version}, sha256 {digest[:12]}…"


def find(text: str) -> Protocol:
    """A built-in protocol by its name, or one of a file by its path.

    Raises:
        UsageError: There is none.
        CheckFailed: It is not a protocol.
    """
    if text in protocol_names():
        return load(BUILT_IN / f"{text}.toml")
    path = Path(text).expanduser()
    if path.is_file():
        return load(path)
    hint = suggest(text, protocol_names()) or f"there are {', '.join(protocol_names())}; a path to a file is one too"
    raise UsageError(f"there is no protocol {text!r}", hint)


def load(path: Path) -> Protocol:
    """Reads a protocol from its file.

    Raises:
        CheckFailed: It is not a protocol; says what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return parse(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckFailed(f"{path} is not TOML: {error}", "correct the file") from error
    except UsageError as error:
        raise CheckFailed(f"{path} is no protocol: {error.message}", error.hint) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckFailed(f"{path} is no protocol: {problem}", "poolzoo show digits-heads has one") from error


def parse(text: str) -> Protocol:
    """Reads a protocol.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, UsageError: Something is missing, unknown, or wrong.
    """
    found = tomllib.loads(text)
    data = dict(found.pop("data"))
    splits = {name: _split(data.pop(name)) for name in ("train", "test")}
    given = found.pop("settings")
    versions = {package: VersionPin(**pin) for package, pin in found.pop("versions").items()}
    lists = {"size": tuple(data.pop("size")), "classes": tuple(data.pop("classes"))}
    found["metrics"] = tuple(found["metrics"])
    protocol = Protocol(
        **{"backbone_sha256": None, **found},
        data=ProtocolData(**{**data, **lists, **splits}),
        settings=checked(given, "[settings]"),
        versions=versions,
        text=text,
    )
    if problem := conform.problem(protocol, Protocol):
        raise ValueError(problem)
    _require_sound(protocol)
    return protocol


def _require_sound(protocol: Protocol) -> None:
    """Raises ValueError where a protocol leaves open what decides a result."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", protocol.name) or type(protocol.version) is not int:
        raise ValueError("its name is of small letters, digits and dashes, its version a whole number")
    if protocol.free not in SIDES:
        raise ValueError(f"free = {protocol.free!r} is neither pool nor local_pool")
    if type(protocol.seeds) is not int or protocol.seeds < 2:
        raise ValueError("it needs two seeds or more: one tells nothing about chance")
    if len(protocol.data.size) != 2 or any(type(side) is not int or side < 1 for side in protocol.data.size):
        raise ValueError("size of [data] is height and width in pixels")
    if not 0 < protocol.alpha <= 0.5 or not set(protocol.metrics) <= set(METRICS):
        raise ValueError(f"alpha is above 0 and at most 0.5, and metrics are among {', '.join(METRICS)}")
    if found := [name for name in (*FREE, protocol.free) if name in protocol.settings]:
        raise ValueError(f"{found[0]} is free, so that [settings] cannot have it")
    base = protocol.base
    if found := [name for name in DERIVED if getattr(base, name) in (None, "auto")]:
        raise ValueError(f"[settings] leaves {found[0]} open, which decides the result")
    if base.time_budget is not None or base.steps is not None:
        raise ValueError("a time budget gives other results on another machine")
    if base.pretrained and protocol.backbone_sha256 is None:
        raise ValueError("it lacks backbone_sha256, the digest of the pretrained weights")
    if base.weights or base.distill_from or (base.class_weights or "balanced") != "balanced":
        raise ValueError("weights, distill_from and class_weights name files of one machine")
    if protocol.data.source.endswith(":") and base.data_cache != "decoded":
        raise ValueError('files need data_cache = "decoded": streamed images are known by their times')
    require_specifiers(protocol.versions)


def require_specifiers(versions: Mapping[str, VersionPin]) -> None:
    """Raises ValueError where a range of versions cannot be read."""
    from packaging.specifiers import SpecifierSet

    for pin in versions.values():
        SpecifierSet(pin.required)  # its error is a ValueError


def _split(found: Mapping[str, Any]) -> SplitDigest:
    split = SplitDigest(**found)
    for field in fields(split):
        value = getattr(split, field.name)
        if field.name == "images" and (type(value) is not int or value < 2):
            raise ValueError("a split has two images or more")
        if field.name != "images" and not re.fullmatch("[0-9a-f]{64}", str(value)):
            raise ValueError(f"{field.name} of a split is a sha256")
    return split


def _sorted(value: Any) -> Any:
    """The same with the keys of all tables in order."""
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value
