"""Checks of a submission, one function each: what it found in words, or `CheckFailed` with the reason.

The files of a submission are data. Code runs only where the checker has loaded a plugin. One function a check keeps the
table of checks readable, which is why this file is long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from poolzoo.artifacts.manifest import file_sha256
from poolzoo.common import files, json_reader
from poolzoo.common.errors import CheckFailed, PoolzooError, UsageError, explain
from poolzoo.compare import grid
from poolzoo.compare.board import pinning
from poolzoo.compare.board.protocol import FREE, Protocol
from poolzoo.compare.board.submission import Submission, SubmittedRun, listed
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.writing import RESULT
from poolzoo.data.identity import FILE as IDENTITY
from poolzoo.data.identity import DataIdentity
from poolzoo.plugin import loader
from poolzoo.plugin.grammar import parse_spec
from poolzoo.report.results import ComparisonResult, VariantResult

if TYPE_CHECKING:
    from torch import Tensor

    from poolzoo.metrics.results import Metrics
    from poolzoo.model.assemble import Assembly

OK: Final = "ok"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
CLOSE: Final = 1e-9  # figures from the same integers, perhaps summed in another order
ALIKE: Final = 1e-6  # p-values and intervals, whose quantiles another version of scipy may round otherwise
OWN: Final = ("poolzoo", None)  # distributions of built-in poolings in a spec


@dataclass(frozen=True)
class Check:
    """One line of the report: its name, `ok`, `failed` or `skipped`, and what was found."""

    name: str
    status: str
    reason: str

    def to_json(self) -> dict[str, object]:
        return {"check": self.name, "status": self.status, "reason": self.reason}


@dataclass(frozen=True)
class Context:
    """What the checks look at: a submission and the checker's own protocol."""

    submission: Submission
    protocol: Protocol

    @property
    def runs(self) -> tuple[SubmittedRun, ...]:
        return self.submission.runs

    @cached_property
    def chosen(self) -> list[str]:
        """The poolings on the free side, the baseline first, as the plan or the runs name them."""
        if self.submission.comparison is None:
            found = [self.chosen_of(run) for run in self.runs]
        else:
            side = "pools" if self.protocol.free == "pool" else "local_pools"
            text = json_reader.text(self.submission.plan.get(side))
            if text is None:
                raise CheckFailed(f"plan.json names no {side}")
            found = grid.named(text)
        return list(dict.fromkeys([self.protocol.baseline, *found]))

    def chosen_of(self, run: SubmittedRun) -> str:
        """What a run has on the free side."""
        value = getattr(run.settings, self.protocol.free)
        return grid.NONE if value is None else str(value)

    @cached_property
    def by_trial(self) -> dict[tuple[str, int], SubmittedRun]:
        """Runs by what they have on the free side and their seed.

        Raises:
            CheckFailed: A trial is missing, unknown, or there twice.
        """
        names = {_identity(one): one for one in self.chosen}
        found: dict[tuple[str, int], SubmittedRun] = {}
        for run in self.runs:
            own = self.chosen_of(run)
            name, seed = names.get(_identity(own)), run.settings.seed
            if name is None or seed not in self.protocol.seed_range:
                raise CheckFailed(f"{run.name} is no trial of it: {own} from seed {seed}")
            if (name, seed) in found:
                text = f"{run.name} and {found[name, seed].name} are both {name} from seed {seed}"
                raise CheckFailed(text)
            found[name, seed] = run
        wanted = [(name, seed) for name in self.chosen for seed in self.protocol.seed_range]
        if missing := [f"{name} from seed {seed}" for name, seed in wanted if (name, seed) not in found]:
            raise CheckFailed(f"{len(missing)} of {len(wanted)} trials are missing: {listed(missing)}")
        return {key: found[key] for key in wanted}

    @property
    def trials(self) -> list[Trial]:
        """All trials, under the names of the plan."""
        return [Trial(self.variant(name), seed) for name, seed in self.by_trial]

    def variant(self, chosen: str) -> Variant:
        """The variant with this pooling on the free side."""
        own = self.protocol.settings_of(chosen, 0)
        return Variant(own.backbone, own.pool, own.local_pool)

    def is_known(self, chosen: str) -> bool:
        """Whether a pooling is built in, or comes with a plugin that the checker has loaded."""
        if chosen == grid.NONE:
            return True
        try:
            grid.specs(chosen, self.protocol.kind)
        except PoolzooError:
            return False
        return True


def _identity(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A pooling without its distribution: a run's settings may name it where the plan does not."""
    spec = parse_spec(text)
    return spec.name, tuple(sorted(spec.options.items()))


# --- What the files are --------------------------------------------------------------------------------------------


def files_check(submission: Submission) -> str:
    """Known plain files only."""
    if found := submission.file_problems():
        raise CheckFailed(listed(found))
    if not submission.runs:
        raise CheckFailed("there is no run in it")
    return f"{len(submission.runs)} runs, no link, no executable or unknown file"


def manifests_check(submission: Submission) -> str:
    """Every run's checksums."""
    if found := submission.manifest_problems():
        raise CheckFailed(listed(found))
    return "all checksums are right"


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


# --- Whether they are those of the protocol ------------------------------------------------------------------------


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
        lines = len((run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
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
        if not np.array_equal(run.predictions[1], run.data.splits["test"].labels):
            raise CheckFailed(f"{run.name}: the labels in predictions.npz are not those of the test images")
    return "labels and classes are those of the protocol"


# --- Whether the figures follow from them --------------------------------------------------------------------------


def metrics_check(context: Context) -> str:
    """`metrics.json` of every run, computed again from its predictions."""
    keys = ("accuracy", "interval", "precision", "recall", "f1", "n", "per_class", "confusion")
    for run in context.runs:
        wanted = metrics_of(run).to_json()
        stated = json_reader.mapping(run.metrics.get("test"))
        for key in keys:
            if not _close(wanted[key], stated.get(key), CLOSE):
                text = f"{run.name}: {key} in metrics.json is not that of predictions.npz"
                raise CheckFailed(f"{text} ({_number(stated.get(key))} instead of {_number(wanted[key])})")
    return "every metrics.json follows from its predictions"


def metrics_of(run: SubmittedRun) -> Metrics:
    """The metrics that predictions tell."""
    from poolzoo.metrics import classification

    predicted, labels = run.predictions
    classes = json_reader.texts(run.config.get("label_names"))
    count = len(classes)
    if labels.min(initial=0) < 0 or max(labels.max(initial=0), predicted.max(initial=0)) >= count:
        raise CheckFailed(f"{run.name}: predictions.npz holds a class that there is not")
    logits = np.zeros((len(labels), count), np.float32)
    logits[np.arange(len(labels)), predicted] = 1
    logits[predicted < 0] = np.nan  # what the network gave was not finite
    return classification.compute(logits, labels, classes)


def weights_check(context: Context) -> str:
    """Every weights file fits the network that the protocol names, and a frozen backbone is the pinned one.

    Of a pooling whose plugin is not loaded here, the tensors of the backbone alone can be compared.
    """
    from poolzoo.model.accounting import differences

    protocol, unknown = context.protocol, []
    for name in context.chosen:
        known = context.is_known(name)
        own = _assembled(context, name if known else protocol.baseline).network.state_dict()
        if not known:
            own = {key: value for key, value in own.items() if key.startswith("backbone.")}
            unknown.append(name)
        for seed in protocol.seed_range:
            run = context.by_trial[name, seed]
            state = state_of(run)
            compared = state if known else {key: value for key, value in state.items() if key in own}
            if found := differences(own, compared, dtypes=True):
                raise CheckFailed(f"{run.name}: model.safetensors does not fit the network: {', '.join(found)}")
            if broken := [key for key, value in state.items() if not value.float().isfinite().all()]:
                raise CheckFailed(f"{run.name}: {broken[0]} in model.safetensors is not finite")
            if protocol.base.freeze == "backbone" and protocol.backbone_sha256 is not None:
                backbone = {key.removeprefix("backbone."): state[key] for key in own if key.startswith("backbone.")}
                if pinning.backbone_sha256(backbone) != protocol.backbone_sha256:
                    raise CheckFailed(f"{run.name}: its frozen backbone has other weights than the protocol pins")
    if unknown:
        return f"all load and fit; of {', '.join(unknown)} the backbone alone was compared, without --plugin"
    return "all load and fit the networks of the protocol"


def state_of(run: SubmittedRun) -> dict[str, Tensor]:
    """The tensors of a run. The format holds no code.

    Raises:
        CheckFailed: The file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load((run.path / "model.safetensors").read_bytes())
    except SafetensorError as error:
        raise CheckFailed(f"{run.name}: model.safetensors holds no weights: {error}") from error


def _assembled(context: Context, chosen: str) -> Assembly:
    from poolzoo.model.assemble import assemble
    from poolzoo.model.config import ModelConfig

    own, data = context.protocol.settings_of(chosen, 0), context.protocol.data
    return assemble(
        ModelConfig(
            backbone=own.backbone,
            pool=own.pool,
            num_classes=len(data.classes),
            data_size=data.size,
            image_size=own.input_size,
            local_pool=own.local_pool,
            stem=own.stem,
            head=own.head,
            final_norm="head" if own.final_norm == "head" else "backbone",
        )
    )


def plugins_check(context: Context) -> str:
    """Who provided each pooling: built-in ones are, the others come from one plugin file each, named by its digest."""
    found = []
    for name in context.chosen:
        if name == grid.NONE:
            continue
        digests: dict[str, str] = {}
        for seed in context.protocol.seed_range:
            run = context.by_trial[name, seed]
            source = run.plugin(context.protocol.free)
            if source.get("tier") == "built-in":
                if parse_spec(name).dist not in OWN or not _is_built_in(context, name):
                    raise CheckFailed(f"{run.name}: {name} is no built-in pooling")
                continue
            digest = json_reader.text(source.get("sha256"))
            if digest is None:
                raise CheckFailed(f"{run.name}: config.json does not name the plugin file of {name} by its sha256")
            digests.setdefault(digest, run.name)
        if name == context.protocol.baseline and digests:
            raise CheckFailed(f"the baseline {name} comes from a plugin")
        if len(digests) > 1:
            raise CheckFailed(f"{name} comes from two versions of a plugin: {' and '.join(digests.values())}")
        for digest in digests:
            loaded = _loaded_sha256(context, name)
            if loaded is not None and loaded != digest:
                raise CheckFailed(f"the plugin of {name} here has sha256 {loaded[:12]}…, the runs' {digest[:12]}…")
            state = "loaded here" if loaded else "not loaded"
            found.append(f"{name} from a file with sha256 {digest[:12]}…, {state}")
    return "; ".join(found) or "all poolings are built in"


def _is_built_in(context: Context, name: str) -> bool:
    kind = context.protocol.kind
    wanted = parse_spec(name).name
    return any(
        entry.source.tier == "built-in" and entry.item.name == wanted and getattr(entry.item, "kind", None) == kind
        for entry in loader.catalog().entries
    )


def _loaded_sha256(context: Context, name: str) -> str | None:
    """The digest of the plugin that provides a pooling here; None where none does."""
    if not context.is_known(name):
        return None
    spec = parse_spec(name)
    text = f"{spec.dist}:{spec.name}" if spec.dist else spec.name
    resolved = loader.catalog().pooling(text, context.protocol.kind)
    return resolved.entry.source.sha256()


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


def statistics_check(context: Context) -> str:
    """`compare.json`, computed again from the predictions."""
    folder = context.submission.comparison
    assert folder is not None
    stated = ComparisonResult.from_json(json_reader.mapping(files.read_json(folder / RESULT)))
    rows, sentences = recomputed(context)
    if stated.protocol != context.protocol.reference or stated.unofficial:
        raise CheckFailed(f"compare.json names {stated.protocol or 'no protocol'}")
    pairs: list[tuple[str, object, object]] = [
        ("baseline", context.variant(context.protocol.baseline).name, stated.baseline),
        ("seeds", list(context.protocol.seed_range), list(stated.seeds)),
        ("alpha", context.protocol.alpha, stated.alpha),
        ("conclusions", list(sentences), list(stated.conclusions)),
    ]
    for key, wanted, found in pairs:
        if wanted != found:
            raise CheckFailed(f"{key} in compare.json is {_number(found)} instead of {_number(wanted)}")
    names = [(row.pool, row.local_pool) for row in rows]
    if sorted(map(str, names)) != sorted(str((row.pool, row.local_pool)) for row in stated.results):
        raise CheckFailed("compare.json has other rows than the plan")
    for row in rows:
        other = next(one for one in stated.results if (one.pool, one.local_pool) == (row.pool, row.local_pool))
        for key, value in _figures(row).items():
            if not _close(value, _figures(other)[key], ALIKE):
                shown = f"{_number(_figures(other)[key])} instead of {_number(value)}"
                raise CheckFailed(f"{key} of {row.pool} in compare.json is not that of the predictions ({shown})")
    return "compare.json follows from the predictions"


def recomputed(context: Context) -> tuple[list[VariantResult], list[str]]:
    """The rows of the table and the conclusions, from the runs themselves."""
    from poolzoo.compare import table, trial

    records = {}
    for one, run in zip(context.trials, context.by_trial.values(), strict=True):
        records[one.key] = replace(trial.finished(one, run.path), accuracy=float(run.correct.mean()))
    variants = [context.variant(name) for name in context.chosen]
    baseline = context.variant(context.protocol.baseline)
    return table.variant_results(variants, baseline, context.trials, records, context.protocol.alpha)


def _figures(row: VariantResult) -> dict[str, object]:
    """What is compared of a row: all that predictions decide."""
    found = row.to_json()
    seeds = [[one.seed, one.accuracy, one.f1] for one in row.per_seed]
    kept = ("status", "accuracy", "delta", "rank", "f1", "per_class")
    return {**{key: found[key] for key in kept}, "accuracies by seed": seeds}


def _close(wanted: object, found: object, tolerance: float) -> bool:
    """Whether two values of JSON are equal, numbers within a tolerance."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return wanted.keys() == found.keys() and all(_close(wanted[key], found[key], tolerance) for key in wanted)
    if isinstance(wanted, list | tuple) and isinstance(found, list | tuple):
        pairs = zip(wanted, found, strict=False)
        return len(wanted) == len(found) and all(_close(one, other, tolerance) for one, other in pairs)
    if isinstance(wanted, float) or isinstance(found, float):
        numbers = (json_reader.number(wanted), json_reader.number(found))
        return None not in numbers and math.isclose(*numbers, rel_tol=tolerance, abs_tol=tolerance)  # type: ignore[arg-type]
    return bool(wanted == found)


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


# --- All of them ---------------------------------------------------------------------------------------------------

# In the order in which they are shown. `plan` and `statistics` are of a comparison.
CHECKS: Final[Mapping[str, Callable[[Context], str]]] = {
    "plan": plan_check,
    "trials": trials_check,
    "settings": settings_check,
    "length": length_check,
    "data": data_check,
    "labels": labels_check,
    "metrics": metrics_check,
    "weights": weights_check,
    "plugins": plugins_check,
    "versions": versions_check,
    "statistics": statistics_check,
}
OF_COMPARISON: Final = ("plan", "statistics")


def attempt(name: str, function: Callable[[], str]) -> Check:
    """Runs one check; whatever it raises is a failure with its reason."""
    try:
        return Check(name, OK, function())
    except Exception as error:  # damaged files raise anything
        shown = explain(error)
        return Check(name, FAILED, shown.message)


def skipped(names: Sequence[str], why: str) -> list[Check]:
    """Checks that could not be made."""
    return [Check(name, SKIPPED, why) for name in names]


def require_one_reference(submission: Submission) -> str:
    """The protocol that all runs of a submission name.

    Raises:
        UsageError: They name none, or several.
    """
    if len(submission.references) != 1 or not submission.references[0]:
        named = ", ".join(one or "none" for one in submission.references) or "none"
        text = f"the runs follow no protocol: they name {named}"
        raise UsageError(text, "poolzoo compare --protocol NAME makes runs that can be checked")
    return submission.references[0]
