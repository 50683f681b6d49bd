"""From a protocol to a comparison: sets what is pinned, and refuses options, data, weights and versions that differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from poolzoo._version import __version__
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.compare import grid
from poolzoo.compare.board.protocol import FREE, Protocol, ProtocolData, SplitDigest
from poolzoo.data import sizes
from poolzoo.data.identity import DataIdentity, SplitIdentity
from poolzoo.train.settings import Settings, flag
from poolzoo.train.step_plan import show_duration

if TYPE_CHECKING:
    from torch import Tensor

    from poolzoo.train.prepare import PreparedRun

# Options of `compare` that no protocol pins: they decide nothing that a board shows.
EXTRAS: Final = ("robustness_samples", "export_top")
PLURALS: Final = {"pool": "pools", "local_pool": "local_pools", "backbone": "backbones"}
NOTHING: Final = "none"
# Releases of poolzoo that split, augment and train as an earlier one did. What allows that one allows them. Features of
# frozen backbones differ by rounding: 1.0 folds batch norms.
TRAINS_AS: Final = {"1.0": "0.1"}


def pin(protocol: Protocol, given: Mapping[str, Any], typed: Set[str]) -> dict[str, Any]:
    """The arguments of `compare` under a protocol.

    Args:
        protocol: What is pinned.
        given: All arguments by name, with their defaults.
        typed: Names of those on the command line.

    Returns:
        All arguments: pinned ones, free ones as they were typed, and the baseline first among the poolings.

    Raises:
        UsageError: What was typed contradicts the protocol, or the free side is missing.
    """
    base = vars(protocol.base)
    free = PLURALS[protocol.free]
    pinned: dict[str, Any] = {PLURALS.get(name, name): value for name, value in base.items()}
    pinned |= {"seeds": protocol.seeds, "alpha": protocol.alpha, "baseline": protocol.baseline}
    for name in sorted(typed):
        if name not in (free, *FREE, *EXTRAS):
            _require_pinned(protocol, name, given[name], pinned)
    if free not in typed:
        option = flag(protocol.free)
        raise UsageError(f"protocol {protocol.name} compares what {option} names", f"add {option} NAME")
    chosen = [one for one in grid.specs(given[free], protocol.kind) if one != protocol.baseline]
    if not chosen:
        hint = f"{flag(protocol.free)} names what is compared with it"
        raise UsageError(f"{protocol.baseline} is the baseline of protocol {protocol.name} itself", hint)
    every = [grid.identity(one) for one in (protocol.baseline, *chosen)]
    if twice := [one for one, same in zip(chosen, every[1:], strict=True) if every.count(same) > 1]:
        raise UsageError(f"{twice[0]} is named twice under protocol {protocol.name}", "name each pooling once")
    result = {name: pinned.get(name, value) for name, value in given.items()}
    result |= {name: value for name, value in base.items() if name == "protocol" or name not in FREE}
    result |= {name: given[name] if name in typed else 0 for name in EXTRAS}
    result["data_workers"] = given["data_workers"]
    result["data"] = _data(protocol, given["data"] if "data" in typed else None)
    result[free] = ",".join([protocol.baseline, *chosen])
    return result


def _require_pinned(protocol: Protocol, name: str, value: object, pinned: Mapping[str, object]) -> None:
    option = flag({plural: one for one, plural in PLURALS.items()}.get(name, name))
    if name not in pinned:
        raise UsageError(f"{option}: protocol {protocol.name} has no such setting to choose", "leave it out")
    wanted = pinned[name]
    if value != wanted and not (name == "local_pools" and wanted is None and value == grid.NONE):
        if name == "time_budget" and isinstance(value, float):
            value = show_duration(value)
        shown = [NOTHING if one is None else str(one) for one in (value, wanted)]
        raise UsageError(f"{option} {shown[0]}: protocol {protocol.name} pins {shown[1]}", "leave it out")


def _data(protocol: Protocol, typed: str | None) -> str:
    """What `--data` is: it must come from the protocol's source; its content is looked at when it is read."""
    source = protocol.data.source
    if typed is None:
        if source.endswith(":"):
            raise UsageError(f"protocol {protocol.name} needs --data {source}PATH", protocol.data.obtain)
        return source
    if typed != source and not (source.endswith(":") and typed.startswith(source)):
        shown = f"{source}PATH" if source.endswith(":") else source
        raise UsageError(f"--data {typed}: protocol {protocol.name} pins {shown}", protocol.data.obtain)
    return typed


def differing_settings(wanted: Settings, found: Settings, free: Sequence[str]) -> list[str]:
    """How settings differ, such as `epochs is 9 instead of 2`.

    Args:
        wanted: Those of a protocol.
        found: Others.
        free: Names of those that may differ.
    """
    pairs = ((name, value, getattr(found, name)) for name, value in vars(wanted).items() if name not in free)
    return [f"{name} is {_shown(now)} instead of {_shown(value)}" for name, value, now in pairs if now != value]


def _shown(value: object) -> str:
    return NOTHING if value is None else str(value)


def split_digest(split: SplitIdentity) -> SplitDigest:
    """The digest of a split in a protocol."""
    pixels = hashlib.sha256(np.ascontiguousarray(split.digests).data).hexdigest()
    return SplitDigest(len(split.labels), pixels, hashlib.sha256(split.labels.astype("<i8").data).hexdigest())


def differing_data(data: ProtocolData, found: DataIdentity) -> list[str]:
    """How the data of a run differs from a protocol's, in words; empty where it does not."""
    if found.classes != data.classes:
        if sorted(found.classes) == sorted(data.classes):
            return [f"the classes are in another order: {_listed(found.classes)} instead of {_listed(data.classes)}"]
        return [f"the classes are {_listed(found.classes)} instead of {_listed(data.classes)}"]
    differences = []
    for name, wanted in (("train", data.train), ("test", data.test)):
        if name not in found.splits:
            differences.append(f"{name} is missing")
            continue
        split = found.splits[name]
        now = split_digest(split)
        if now.images != wanted.images:
            differences.append(f"{name} has {now.images:,} images instead of {wanted.images:,}")
        elif split.of_files:
            differences.append(f"the pixels of {name} are unknown, since it was streamed")
        elif now != wanted:
            what = [part for part in ("pixels", "labels") if getattr(now, part) != getattr(wanted, part)]
            differences.append(f"{' and '.join(what)} of {name} differ, in content or in order")
    return differences


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def require_prepared(protocol: Protocol, prepared: PreparedRun) -> None:
    """Makes sure that a run which is about to train has the data, weights and settings of a protocol.

    Raises:
        CheckFailed: Something differs; says what.
    """
    title = f"protocol {protocol.name}"
    if found := differing_data(protocol.data, prepared.data.identity):
        raise CheckFailed(f"the data is not that of {title}: {'; '.join(found)}", protocol.data.obtain)
    if prepared.data.size != protocol.data.size:
        text = f"images of {sizes.show(prepared.data.size)} are not those of {title}: {sizes.show(protocol.data.size)}"
        raise CheckFailed(text, protocol.data.obtain)
    if protocol.backbone_sha256 is not None:
        digest = backbone_sha256(prepared.assembly.network.backbone.state_dict())
        if digest != protocol.backbone_sha256:
            text = f"weights of {prepared.settings.backbone} with sha256 {digest[:12]}… are not those of {title}"
            raise CheckFailed(f"{text}: {protocol.backbone_sha256[:12]}…", "install the version that it was made with")
    wanted = protocol.settings_of(protocol.baseline, prepared.settings.seed)
    if found := differing_settings(wanted, prepared.settings, (*FREE, "pool", "local_pool")):
        raise CheckFailed(f"{title} cannot be followed here: {found[0]}", "use the version that it was made with")
    require_validation(protocol)


def require_validation(protocol: Protocol) -> None:
    """Makes sure that this version of poolzoo holds out as many images as a protocol says.

    Raises:
        CheckFailed: It does not.
    """
    from poolzoo.train.validation import VAL_FRACTION

    if protocol.data.validation != VAL_FRACTION:
        text = f"this version holds out {VAL_FRACTION:g} of the images, protocol {protocol.name} says"
        raise CheckFailed(f"{text} {protocol.data.validation:g}", "use the version that it was made with")


def backbone_sha256(state: Mapping[str, Tensor]) -> str:
    """The digest of a backbone's tensors, by their names within it."""
    from poolzoo.artifacts.run import weights_bytes

    return hashlib.sha256(weights_bytes(dict(state))).hexdigest()


def version_problems(protocol: Protocol, found: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Versions that a protocol does not allow, and those that it allows but that did not make its baseline.

    Args:
        protocol: What is pinned.
        found: By package, as in `env.json`.
    """
    from packaging.specifiers import SpecifierSet

    refused, noted = [], []
    for package, allowed in protocol.versions.items():
        version = str(found.get(package, "none")).partition("+")[0]
        same = TRAINS_AS.get(".".join(version.split(".")[:2]), version) if package == "poolzoo" else version
        try:
            required = SpecifierSet(allowed.required)
            fits = any(required.contains(one, prereleases=True) for one in (version, same))
        except ValueError:  # no version at all
            fits = False
        if not fits:
            refused.append(f"{package} {version} is not {allowed.required}")
        elif version != allowed.reference:
            noted.append(f"{package} {version} is not {allowed.reference}")
    return refused, noted


def require_versions(protocol: Protocol) -> None:
    """Makes sure that a protocol allows what is installed.

    Raises:
        EnvironmentProblem: It does not.
    """
    refused, _ = installed_problems(protocol)
    if refused:
        hint = "install what it needs, or --protocol-versions any for an unofficial result"
        raise EnvironmentProblem(f"protocol {protocol.name} does not allow it: {'; '.join(refused)}", hint)


def installed_problems(protocol: Protocol) -> tuple[list[str], list[str]]:
    """`version_problems` of what is installed here."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, object] = {}
    for package in protocol.versions:
        try:
            found[package] = __version__ if package == "poolzoo" else version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return version_problems(protocol, found)
