"""Checks a bundle on any machine: checksums, a graph that opens, outputs that agree. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from poolzoo.artifacts import manifest, reading
from poolzoo.artifacts.schema import PluginSource
from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.common.text import one_line
from poolzoo.runtime import decision_checks, ort_session, photo_input, rule_outputs, tolerance

if TYPE_CHECKING:
    from poolzoo.artifacts.schema import Config, Parity
    from poolzoo.runtime.measurements import BatchSpeed, PreprocessingTime


@dataclass(frozen=True)
class Check:
    """One check of a bundle: what was checked, whether it passed, and a detail in words."""

    id: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, object]:
        """`{"id", "passed", "detail"}`."""
        return {"id": self.id, "passed": self.passed, "detail": self.detail}


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        checks: Every check, in order; one that makes later ones impossible is the last.
        provider: ONNX Runtime's execution provider; None where the graph was not opened.
        speed: The speed by batch size; empty where it was not measured.
        preprocessing: The time from a file's bytes to pixels; None likewise.
    """

    checks: tuple[Check, ...]
    provider: str | None = None
    speed: Mapping[int, BatchSpeed]
    preprocessing: PreprocessingTime | None = None

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def first_failure(self) -> Check | None:
        """The first check that failed."""
        return next((check for check in self.checks if not check.passed), None)

    def to_json(self) -> dict[str, object]:
        """What `verify --json` prints."""
        from poolzoo.runtime.measurements import speeds_to_json

        report: dict[str, object] = {
            "passed": self.passed,
            "checks": [check.to_json() for check in self.checks],
            "speed": speeds_to_json(self.speed),
        }
        if self.provider is not None:
            report["provider"] = self.provider
        if self.preprocessing is not None:
            report["preprocessing"] = self.preprocessing.to_json()
        return report


def verify(
    directory: Path,
    *,
    provider: str = "cpu",
    threads: int | None = None,
    measure_speed: bool = True,
    arithmetics: Sequence[str] = (),
) -> VerifyReport:
    """Repeats every check that needs the bundle alone.

    Args:
        directory: The bundle.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Threads to compute with; None for ONNX Runtime's own choice.
        measure_speed: Whether to measure the speed of the graph and of preprocessing.
        arithmetics: Types, "fp16" or "bf16", in which a graph in fp32 shall give the stored logits too.

    Raises:
        UsageError: There is no bundle, or it is in lower precision and arithmetic is asked for.
        CheckFailed: The graph cannot be run in such arithmetic.
        EnvironmentProblem: There is no device for the provider, or the onnx package is needed and not installed.
    """
    if not directory.is_dir() or not files.has_file(directory / manifest.MANIFEST):
        manifest.check(directory, "bundle")
    ort_session.choose_provider(provider)
    found = manifest.differences(directory)
    checks = [Check("manifest", not found, ", ".join(found[:5]) or "every file has its checksum")]
    if found:
        return VerifyReport(checks=tuple(checks), speed={})
    manifest.require_kind(directory, "bundle")
    try:
        model = ort_session.open_model(directory / "model.onnx", provider, threads)
    except CheckFailed as error:
        checks.append(Check("session", False, error.message))
        return VerifyReport(checks=tuple(checks), speed={})
    checks.append(Check("session", True, f"opens with {model.provider}"))
    try:
        images, logits, outputs = _check_golden(directory, model, checks)
        if model.takes_photos:
            arrays = files.read_archive(directory / "golden.npz")
            checks.append(Check("golden-photographs", *photo_input.compare(model, arrays)))
        config = reading.read_bundle_config(directory)
        checks += [Check(*found) for found in rule_outputs.checks(directory / "model.onnx", model, images)]
        checks += [Check(*found) for found in decision_checks.checks(config, model, outputs)]
    except (CheckFailed, ValueError, TypeError, LookupError) as error:
        checks.append(Check("golden", False, f"what is stored cannot be used: {error}"))
        return VerifyReport(checks=tuple(checks), speed={}, provider=model.provider)
    precision = json.loads(model.metadata.get("precision", "null"))
    if arithmetics and precision not in (None, "fp32"):
        raise UsageError(f"bundle {directory} is in {precision}, and --arithmetic is for float32", "leave it out")
    if precision == "fp16":
        checks.append(_check_half_arithmetic(directory, model, images, logits))
    checks += [_check_arithmetic(directory, model, images, logits, one) for one in arithmetics]
    batches: Mapping[int, BatchSpeed] = {}
    preprocessing = None
    if measure_speed:
        from poolzoo.runtime import speed

        batches = speed.measure_graph(model, images, directory / "model.onnx", threads=threads)
        preprocessing = speed.time_preprocessing(images[0], model.fit)
    _warn_of_other_plugins(config)
    return VerifyReport(checks=tuple(checks), provider=model.provider, speed=batches, preprocessing=preprocessing)


def _check_golden(
    directory: Path, model: ort_session.OnnxModel, checks: list[Check]
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Adds a check for each batch size of the golden images.

    Returns:
        The images, their stored logits, and the graph's logits and probabilities for the largest batch.
    """
    names = ("images", "allowed", "logits", "probabilities")
    images, allowed, *expected = files.read_arrays(directory / "golden.npz", names)
    for size in (1,) if model.takes_photos else (1, 2, 7, len(images)):
        outputs = ort_session.run_in_batches(model, images, size)
        difference = tolerance.apart(outputs, expected)
        worst, _ = tolerance.closest_to_limit(difference, allowed)
        detail = (
            f"image {worst} is closest to its limit: difference {difference[worst]:.2e}, allowed {allowed[worst]:.2e}"
        )
        checks.append(Check(f"golden-batch-{size}", bool((difference <= allowed).all()), detail))
    return images, expected[0], outputs


def _check_half_arithmetic(
    directory: Path, model: ort_session.OnnxModel, images: np.ndarray, logits: np.ndarray
) -> Check:
    """Whether a graph in fp16 gives the stored logits in float16 arithmetic too.

    ONNX Runtime's CPU provider computes it in float32. Bundles of versions without this check are checked likewise.
    """
    name = "half-arithmetic"
    try:
        import onnx

        from poolzoo.runtime import half_arithmetic
    except ImportError:
        return Check(name, True, "not checked: the onnx package is not installed")
    parity, rows, regular, agreement = _half_images(directory, len(images))
    try:
        found = half_arithmetic.logits(onnx.load(directory / "model.onnx"), model.to_input(images[rows]))
    except Exception as error:  # whatever onnx raises for an operator that its reference does not have
        return Check(name, True, f"not checked: {type(error).__name__}: {one_line(str(error), 200)}")
    result = half_arithmetic.check_logits(found, logits[rows], regular, agreement, model.decision)
    older = "" if "half" in parity else "; the bundle is older than this check"
    return Check(name, result.passed, result.describe() + older)


def _half_images(directory: Path, count: int) -> tuple[Parity, np.ndarray, np.ndarray, float]:
    """The parity report; which images are run in half arithmetic, and which of these are natural; the limit."""
    from poolzoo.runtime import half_arithmetic

    parity = reading.read_parity(directory)
    rows = half_arithmetic.sample_rows(count)
    regular = rows >= len(parity.get("max_abs_by_edge", {}))
    return parity, rows, regular, parity.get("limits", {}).get("agreement", 0.99)


def _check_arithmetic(
    directory: Path, model: ort_session.OnnxModel, images: np.ndarray, logits: np.ndarray, arithmetic: str
) -> Check:
    """Whether a graph gives the stored logits where every value is rounded to a type of 16 bits."""
    try:
        import onnx

        from poolzoo.runtime import half_arithmetic
    except ImportError:
        text = f"the onnx package is needed to compute in {arithmetic}"
        raise EnvironmentProblem(text, "pip install onnx, or leave --arithmetic out") from None
    _, rows, regular, agreement = _half_images(directory, len(images))
    result = half_arithmetic.check_rounded(
        onnx.load(directory / "model.onnx"),
        model.to_input(images[rows]),
        arithmetic,
        logits[rows],
        regular,
        agreement,
        model.decision,
    )
    return Check(f"arithmetic-{arithmetic}", result.passed, result.describe())


def _warn_of_other_plugins(config: Config) -> None:
    """Warns where other plugins are installed than the bundle was made with; its graph needs none of them."""
    made_with = config.get("poolzoo", {}).get("plugins", {})
    whole = (part for part in made_with.values() if PluginSource.__required_keys__ <= part.keys())
    others = {part["dist"]: part for part in whole if part["tier"] != "built-in"}
    if not others:
        return
    from poolzoo.plugin import loader

    for was in others.values():
        release = f"{was['dist']} {was['version'] or ''}".strip()
        now = [c.source for c in loader.candidates() if c.source.dist == was["dist"] and c.source.tier != "built-in"]
        if not now:
            output.detail(f"made with the plugin {release}, which is not installed; training and export need it")
        elif was["version"] != now[0].version or (now[0].path and was["sha256"] != now[0].sha256()):
            here = f"{now[0].dist} {now[0].version or ''}".strip()
            output.warn(f"made with the plugin {release}; another version is installed: {here}")
