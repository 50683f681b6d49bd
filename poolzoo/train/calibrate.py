"""Adds a calibration to a finished run: to one of an earlier version, or one that was trained without."""

from __future__ import annotations

from dataclasses import replace

from poolzoo.artifacts import manifest, run, samples
from poolzoo.artifacts.run import Run
from poolzoo.artifacts.samples import ValidationLogits
from poolzoo.common import files, output
from poolzoo.common.errors import UsageError
from poolzoo.data import identity
from poolzoo.data.identity import DataIdentity
from poolzoo.metrics import calibration_fit
from poolzoo.metrics.calibration_fit import CalibrationFit
from poolzoo.train import device as devices
from poolzoo.train import inference
from poolzoo.train.settings_file import read_run_settings
from poolzoo.train.splits import read_data


def calibrate_run(path: str, device: str = "auto", threads: int | None = None) -> CalibrationFit:
    """Fits a temperature on the validation images of a run, takes label smoothing back where it helps, and keeps both.

    So are the logits of these images, which are read again where the run did not keep them. Neither changes a
    prediction, so that the other files stay right.

    Args:
        path: The run directory.
        device: `auto`, `cpu` or `cuda`.
        threads: Number of torch threads on the CPU; None for torch's default.

    Raises:
        UsageError: There is no such run, it has a calibration, or its data is gone.
        CheckFailed: The run is incomplete, or its data changed.
    """
    found = run.load_run(path)
    if found.decision.calibration is not None:
        raise UsageError(f"run {path} has a calibration", "leave --calibrate out")
    validation = samples.load_validation(found.path)
    if validation is None:
        output.say("reading the validation images, of which the run keeps no logits")
        validation = _validation_logits(found, device, threads)
    fit = calibration_fit.fit(validation.logits, validation.labels, vector=False)
    _keep(found, fit, validation)
    return fit


def _validation_logits(found: Run, device: str, threads: int | None) -> ValidationLogits:
    settings = replace(read_run_settings(found.path), device=device)
    policy = devices.policy(device)
    devices.set_threads(threads)
    data = read_data(settings)
    known = DataIdentity.load(found.path / identity.FILE)
    identity.require_same(known, data.identity, "restore it: only the images of the run can calibrate it")
    policy.place(found.network)
    logits = inference.predict_logits(
        found.network,
        found.preprocess.to(policy.device),
        data.images,
        policy,
        label="evaluating on val",
        indices=data.val_indices,
    )
    return ValidationLogits(logits=logits, labels=data.labels[data.val_indices])


def _keep(found: Run, fit: CalibrationFit, validation: ValidationLogits) -> None:
    """Replaces the decision in `config.json`, and keeps the logits. Thresholds decide as they did."""
    config = found.config.copy()
    if fit.calibration is not None:
        config["calibration"] = fit.calibration.to_json()
        if found.decision.thresholds is not None:
            config["thresholds"] = list(fit.calibration.calibrated_probabilities(found.decision.thresholds))
    content = {
        "config.json": files.json_text(config).encode(),
        samples.VALIDATION: samples.validation_bytes(validation),
    }
    manifest.replace_files(found.path, content)
