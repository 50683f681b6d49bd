"""Checks a bundle wherever it is: files as they were sealed, graph that opens, outputs that agree. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.plugin import loader
from poolzoo.runtime import ort_session, speed, tolerance


def verify(directory: Path, *, provider: str = "cpu", threads: int | None = None, timed: bool = True) -> dict[str, Any]:
    """Repeats what can be repeated from the bundle alone.

    Returns:
        `{"passed", "checks": [{"id", "passed", "detail"}], "speed", "preprocessing"}`.

    Raises:
        UsageError: There is no bundle.
        EnvironmentProblem: There is no device for the provider.
    """
    if not directory.is_dir() or not (directory / manifest.MANIFEST).is_file():
        manifest.check(directory, "bundle")
    ort_session.choose_provider(provider)
    checks: list[dict[str, Any]] = []

    def note(identity: str, passed: bool, detail: str) -> bool:
        checks.append({"id": identity, "passed": passed, "detail": detail})
        return passed

    result: dict[str, Any] = {"passed": False, "checks": checks, "speed": {}}
    differences = manifest.differences(directory)
    if not note("manifest", not differences, ", ".join(differences[:5]) or "every file is as it was sealed"):
        return result
    if files.read_json(directory / manifest.MANIFEST).get("kind") != "bundle":
        raise UsageError(f"{directory} is no bundle", "give the directory of a bundle")
    try:
        model = ort_session.open_model(directory / "model.onnx", provider, threads)
    except CheckFailed as error:
        note("session", False, error.message)
        return result
    note("session", True, f"opens with {model.provider}")
    result["provider"] = model.provider
    try:
        names = ("images", "allowed", "logits", "probabilities")
        images, allowed, *expected = files.read_arrays(directory / "golden.npz", names)
        for size in (1, 2, 7, len(images)):
            got = ort_session.run_in_batches(model, images, size)
            rows = [np.nan_to_num(np.abs(a - b), nan=np.inf).max(1) for a, b in zip(got, expected, strict=True)]
            error = np.maximum(*rows)
            within, (worst, _) = bool((error <= allowed).all()), tolerance.nearest(error, allowed)
            detail = (
                f"image {worst} is nearest to its limit: difference {error[worst]:.2e}, allowed {allowed[worst]:.2e}"
            )
            note(f"golden-batch-{size}", within, detail)
    except (CheckFailed, ValueError, TypeError, IndexError) as error:
        note("golden", False, f"the stored inputs and outputs cannot be used: {error}")
        return result
    if json.loads(model.metadata.get("precision", "null")) == "fp16":
        note("half-arithmetic", *_in_half_arithmetic(directory, model, images, expected[0]))
    if timed:
        result["speed"] = speed.of_graph(model, images, directory / "model.onnx", threads=threads)
        result["preprocessing"] = speed.preprocessing(images[0], model.fit)
    _warn_of_other_plugins(files.read_json(directory / "config.json"))
    result["passed"] = all(check["passed"] for check in checks)
    return result


def _in_half_arithmetic(
    directory: Path, model: ort_session.OnnxModel, images: np.ndarray, logits: np.ndarray
) -> tuple[bool, str]:
    """Whether a graph in fp16 gives the stored logits in half arithmetic too, and in words how near to them.

    ONNX Runtime's CPU provider computes it in float32. Bundles from before this was checked are judged likewise.
    """
    try:
        import onnx

        from poolzoo.runtime import half_arithmetic
    except ImportError:
        return True, "not checked: it needs the onnx package, which is not installed"
    report = files.read_json(directory / "parity.json")
    rows = half_arithmetic.chosen(len(images))
    try:
        found = half_arithmetic.logits(onnx.load(directory / "model.onnx"), model.to_input(images[rows]))
    except Exception as error:  # whatever onnx raises for an operator that its reference does not have
        return True, f"not checked: {type(error).__name__}: {output.one_line(str(error), 200)}"
    edges = len(report.get("max_abs_by_edge", {}))
    judged = half_arithmetic.judge(found, logits[rows], rows >= edges, report.get("limits", {}).get("agreement", 0.99))
    since = "" if "half" in report else "; the bundle is older than this check"
    return judged["passed"], half_arithmetic.explain(judged) + since


def _warn_of_other_plugins(config: dict[str, Any]) -> None:
    """Says where the plugins of today are not those that the bundle was made with; its graph needs none of them."""
    made_with = config.get("poolzoo", {}).get("plugins", {})
    for was in {part["dist"]: part for part in made_with.values() if part["tier"] != "built-in"}.values():
        release = f"{was['dist']} {was['version'] or ''}".strip()
        now = [c.source for c in loader.candidates() if c.source.dist == was["dist"] and c.source.tier != "built-in"]
        if not now:
            output.detail(f"made with the plugin {release}, which is not here; to train or export again, install it")
        elif was["version"] != now[0].version or (now[0].path and was["sha256"] != now[0].sha256()):
            here = f"{now[0].dist} {now[0].version or ''}".strip()
            output.warn(f"made with the plugin {release}; another {here} is here")
