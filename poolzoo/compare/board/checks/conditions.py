"""Checks that a submission was made under the conditions of the protocol: plan, settings, data, versions."""

from __future__ import annotations

import numpy as np

from poolzoo.artifacts.manifest import file_sha256
from poolzoo.common import files, json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.compare import grid
from poolzoo.compare.board import pinning
from poolzoo.compare.board.checks.context import Context
from poolzoo.compare.board.protocol import FREE
from poolzoo.compare.board.submission import listed
from poolzoo.compare.config import ComparisonConfig
from poolzoo.data.identity import FILE as IDENTITY
from poolzoo.data.identity import DataIdentity


def protocol_check(context: Context) -> str:
    """The digest that the plan and every run name."""
    wanted = context.protocol.reference
    named = {run.name: run.settings.protocol for run in context.runs}
    if context.submission.comparison is not None:
        plan = json_reader.mapping(context.submission.plan.get("settings"))
        named["plan.json"] = json_reader.text(plan.get("protocol"))
    if other := {name: found for name, found in named.items() if found != wanted}:
        name, found = next(iter(other.items()))
        raise CheckFailed(f"{name} names {found or 'no protocol'} instead of {wanted}")
    return context.protocol.title


def plan_check(context: Context) -> str:
    """`plan.json` is what `compare --protocol` writes."""
    content = {key: value for key, value in context.submission.plan.items() if key not in ("provenance", "facts")}
    found, protocol = ComparisonConfig.from_json(content), context.protocol
    if found.unofficial:
        raise CheckFailed(f"it is unofficial: {found.unofficial}")
    base = protocol.base
    typed = "pools" if protocol.free == "pool" else "local_pools"
    wanted = ComparisonConfig(
        **{"pools": base.pool, "local_pools": base.local_pool, typed: getattr(found, typed)},
        backbones=base.backbone,
        seeds=protocol.seeds,
        baseline=protocol.baseline,
        robustness_samples=found.robustness_samples,
        export_top=found.export_top,
        alpha=protocol.alpha,
        settings=found.settings,
    )
    pairs = ((name, value, getattr(found, name)) for name, value in vars(wanted).items())
    problems = [f"{name} is {now} instead of {value}" for name, value, now in pairs if now != value]
    problems += pinning.differing_settings(base, found.settings, (*FREE, "pool", "local_pool"))
    if problems:
        raise CheckFailed(f"plan.json: {listed(problems)}")
    if grid.named(str(getattr(found, typed)))[0] != protocol.baseline:
        raise CheckFailed(f"plan.json does not begin with the baseline {protocol.baseline}")
    return "plan.json is that of the protocol"


def trials_check(context: Context) -> str:
    """All variants from all seeds, each trained by itself."""
    found = context.by_trial
    if len(context.chosen) < 2:
        raise CheckFailed("there is no pooling beside the baseline")
    for name in context.chosen:
        seen: dict[str, int] = {}
        for seed in context.protocol.seed_range:
            digest = file_sha256(found[name, seed].path / "model.safetensors")
            if digest in seen:
                raise CheckFailed(f"{name} has the same weights from seeds {seen[digest]} and {seed}")
            seen[digest] = seed
    return f"{len(context.chosen)} variants × {context.protocol.seeds} seeds"


def settings_check(context: Context) -> str:
    """`run.toml` and `config.json` of every run."""
    protocol, problems = context.protocol, []
    for run in context.runs:
        wanted = protocol.settings_of(protocol.baseline, run.settings.seed)
        found = pinning.differing_settings(wanted, run.settings, (*FREE, protocol.free))
        source = protocol.data.source
        if not run.settings.data.startswith(source) or (run.settings.data != source and not source.endswith(":")):
            found.append(f"data is {run.settings.data} instead of {source}")
        network, own = run.network, run.settings
        pairs: list[tuple[str, object, object]] = [
            (name, getattr(own, name), network.get(name)) for name in ("backbone", "pool", "local_pool", "stem", "head")
        ]
        pairs += [("data_size", list(protocol.data.size), network.get("data_size"))]
        pairs += [("num_classes", len(protocol.data.classes), run.config.get("num_classes"))]
        found += [f"{name} is {now} in config.json instead of {value}" for name, value, now in pairs if now != value]
        problems += [f"{run.name}: {text}" for text in found]
    if problems:
        raise CheckFailed(listed(problems))
    return "run.toml and config.json of every run are those of the protocol"


def length_check(context: Context) -> str:
    """Every run trained for as many epochs as its settings say."""
    epochs = context.protocol.base.epochs
    for run in context.runs:
        lines = len(files.read_json_lines(run.path / "metrics.jsonl"))
        ending = json_reader.mapping(run.metrics.get("ending"))
        for place, count in (("metrics.jsonl", lines), ("metrics.json", ending.get("epochs"))):
            if count != epochs:
                raise CheckFailed(f"{run.name} trained for {count} epochs by {place}, the protocol has {epochs}")
    return f"{epochs} epochs each"


def data_check(context: Context) -> str:
    """The identity of every run's data, and of the comparison's."""
    found: list[tuple[str, DataIdentity]] = [(run.name, run.data) for run in context.runs]
    if (folder := context.submission.comparison) is not None:
        whole = DataIdentity.load(folder / IDENTITY)
        if whole is None:
            raise CheckFailed(f"the comparison has no {IDENTITY}")
        found.append(("the comparison", whole))
    for name, data in found:
        if problems := pinning.differing_data(context.protocol.data, data):
            raise CheckFailed(f"{name}: {'; '.join(problems)}")
    counts = context.protocol.data
    return f"{counts.train.images:,} training and {counts.test.images:,} test images of the protocol"


def labels_check(context: Context) -> str:
    """The labels beside the predictions, and the names of the classes."""
    for run in context.runs:
        if (names := json_reader.texts(run.config.get("label_names"))) != list(context.protocol.data.classes):
            same = sorted(names) == sorted(context.protocol.data.classes)
            what = "are in another order" if same else "are other ones"
            raise CheckFailed(f"{run.name}: the classes in config.json {what}")
        if not np.array_equal(run.predictions[1], run.data.test.labels):
            raise CheckFailed(f"{run.name}: the labels in predictions.npz are not those of the test images")
    return "labels and classes are those of the protocol"


def versions_check(context: Context) -> str:
    """The versions and the device of every run's `env.json`; its threads are those of the last step alone."""
    notes: dict[str, None] = {}
    for run in context.runs:
        found = run.environment
        refused, noted = pinning.version_problems(context.protocol, json_reader.mapping(found.get("versions")))
        base = context.protocol.base
        if found.get("device") != base.device:
            refused.append(f"device {found.get('device')} instead of {base.device}")
        if refused:
            raise CheckFailed(f"{run.name}: {listed(refused)}")
        notes |= dict.fromkeys(noted)
    if notes:
        return f"allowed; results are equal within chance, not bitwise: {listed(list(notes))}"
    return "those that made the protocol's baseline"
