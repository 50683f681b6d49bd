"""Runs a submission again: its weights on the test images, or one training. Plugins are those of the checker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from random import SystemRandom
from typing import TYPE_CHECKING, Final

import numpy as np

from poolzoo.artifacts.run import load_run
from poolzoo.common import output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.temporary import temporary_folder
from poolzoo.compare.board import pinning
from poolzoo.compare.board.checks.context import Context
from poolzoo.compare.board.checks.weights import state_of
from poolzoo.compare.board.submission import SubmittedRun, listed
from poolzoo.plugin import loader
from poolzoo.train import device as devices
from poolzoo.train import inference, run, splits
from poolzoo.train.settings_file import with_absolute_paths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

ROUNDING: Final = 2e-6  # of channel statistics, which have six decimals
CHANCE: Final = 0.01  # p of McNemar's test below which a repeated training disagrees beyond chance


@dataclass(frozen=True)
class Rerun:
    """A submission, and the checker's own copy of the data.

    Attributes:
        context: The submission under its protocol.
        data: As for `--data`.
    """

    context: Context
    data: str

    @cached_property
    def images(self) -> splits.DataSplits:
        """The images of the protocol, from the checker's copy.

        Raises:
            CheckFailed: The copy is not the data of the protocol.
        """
        protocol = self.context.protocol
        with output.quiet():
            found = splits.read_data(replace(protocol.base, data=self.data))
        if problems := pinning.differing_data(protocol.data, found.identity):
            raise CheckFailed(f"{self.data} is not the data of the protocol: {'; '.join(problems)}")
        return found

    @cached_property
    def normalization(self) -> np.ndarray | None:
        """Mean and standard deviation of the channels of the training images, `float[2, 3]`; None where pinned."""
        if self.context.protocol.base.pretrained:
            return None
        found = self.images.statistics()
        return np.array([found.mean, found.std])

    def data_check(self) -> str:
        """The checker's copy of the data is that of the protocol."""
        return f"{len(self.images.test.labels):,} test images of {self.data} are those of the protocol"

    def evaluation_check(self) -> str:
        """All weights, tested again, give the predictions of the submission."""
        allowed, counts = self.context.protocol.differing_images, []
        for one in self.context.by_trial.values():
            predicted = self._predicted(one)
            counts.append(int((predicted != one.predictions[0]).sum()))
            if counts[-1] > allowed:
                text = f"{one.name}: its weights decide {counts[-1]:,} of {len(predicted):,} images differently"
                raise CheckFailed(f"{text} than predictions.npz; {allowed} are allowed")
        if not any(counts):
            return f"the weights of {len(counts)} runs give exactly their predictions"
        return f"the weights of {len(counts)} runs give their predictions but for at most {max(counts)} images"

    def _predicted(self, one: SubmittedRun) -> np.ndarray:
        policy = self._policy()
        loaded = load_run(one.path)
        wanted = self.normalization
        if wanted is not None and not np.allclose(loaded.preprocess.statistics, wanted, rtol=0, atol=ROUNDING):
            raise CheckFailed(
                f"{one.name}: config.json normalizes by other statistics than those of the training images"
            )
        network, preprocess = policy.place(loaded.network), loaded.preprocess.to(policy.device)
        logits = inference.predict_logits(network, preprocess, self.images.test.images, policy)
        return np.asarray(loaded.uncalibrated().decision.decide(logits))

    def _policy(self) -> devices.DevicePolicy:
        base = self.context.protocol.base
        devices.set_threads(base.threads)
        return devices.policy(base.device, base.precision, base.compile, deterministic=base.deterministic)

    def training_check(self) -> str:
        """One trial, drawn at random, gives the same weights when it is trained again, or agrees within chance.

        It is one of a plugin's pooling where there is one: built-in poolings are known.
        """
        context = self.context
        trials = [key for key in context.by_trial if key[0] != context.protocol.baseline]
        foreign = [key for key in trials if context.by_trial[key].plugin(context.protocol.free)["tier"] != "built-in"]
        name, seed = SystemRandom().choice(foreign or trials)
        submitted = context.by_trial[name, seed]
        plugins = tuple(str(path.resolve()) for path in loader.settings.files)
        settings = replace(context.protocol.settings_of(name, seed), data=self.data, plugins=plugins)
        with temporary_folder() as folder, output.quiet():
            place = folder / "run"
            run.finetune(with_absolute_paths(settings), place)
            repeated = SubmittedRun(place)
            difference = largest_difference(state_of(submitted), state_of(repeated))
            before, now = submitted.correct, repeated.correct
        title = f"{name} from seed {seed}, trained again,"
        if difference == 0:
            return f"{title} has bitwise the same weights"
        if difference <= context.protocol.state_tolerance:
            return f"{title} has the same weights within {difference:.1e} of each tensor's largest value"
        p, points = mcnemar(before, now), 100 * float(now.mean() - before.mean())
        text = f"{title} is {points:+.2f} points from the submitted run (p = {p:.2g})"
        if p < CHANCE:
            raise CheckFailed(f"{text}, beyond chance")
        return f"{text}, within chance; its weights differ, as on another processor or version"


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference of two state dicts, as a share of the largest value of its tensor.

    Raises:
        CheckFailed: They have other tensors, or shapes.
    """
    if {key: value.shape for key, value in one.items()} != {key: value.shape for key, value in other.items()}:
        raise CheckFailed("a repeated training has other tensors than the submitted weights")
    found = 0.0
    for key, value in one.items():
        if not value.equal(other[key]):
            wide, wider = value.double(), other[key].double()
            scale = max(float(wide.abs().max()), float(wider.abs().max()))
            found = max(found, float((wide - wider).abs().max()) / scale)
    return found


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """The exact p that two classifiers are right equally often, two-sided, from `bool[N]` each.

    McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions, Psychometrika 12(2), 1947.
    """
    from scipy.stats import binomtest

    only = int((one & ~other).sum())
    discordant = int((one != other).sum())
    return float(binomtest(only, discordant).pvalue) if discordant else 1.0


def require_plugins(context: Context) -> None:
    """Makes sure that all poolings of a submission can be built here.

    Raises:
        UsageError: One comes from a plugin that is not loaded.
    """
    if unknown := [name for name in context.chosen if not context.is_known(name)]:
        text = f"--rerun needs the plugin of {listed(unknown)}, which is not loaded"
        raise UsageError(text, "read its file first: --plugin FILE runs it")
