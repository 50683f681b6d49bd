"""Trainings that somebody stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from poolzoo.train.training_module import TrainingModule


@contextmanager
def stopped_in(epoch: int) -> Iterator[None]:
    """Within it a training is interrupted before the first step of an epoch."""
    real = TrainingModule.begin

    def begin(learner: TrainingModule, number: int) -> None:
        if number == epoch:
            raise KeyboardInterrupt
        real(learner, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "begin", begin)
        yield
