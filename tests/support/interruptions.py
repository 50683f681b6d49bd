"""Trainings that somebody stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from poolzoo.train.training_module import TrainingModule


@contextmanager
def stopped_in(epoch: int) -> Iterator[None]:
    """Within it a training is interrupted before the first step of an epoch."""
    real = TrainingModule.start_epoch

    def start_epoch(module: TrainingModule, number: int) -> None:
        if number == epoch:
            raise KeyboardInterrupt
        real(module, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "start_epoch", start_epoch)
        yield
