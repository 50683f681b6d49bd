"""Memory of large batches goes to the next batch, and only when nobody refers to it."""

from __future__ import annotations

import gc

import numpy as np
import torch

from poolzoo.data import recycled

LARGE = (2, recycled.SMALLEST)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_nobody_refers_to_is_taken_over():
    first = recycled.empty(LARGE)
    place = address(first)
    del first
    gc.collect()
    assert address(recycled.empty(LARGE)) == place


def test_memory_of_views_and_tensors_is_left_alone():
    tensor = torch.from_numpy(recycled.empty(LARGE)).view(torch.float32)[1:].fill_(7)
    row = recycled.empty(LARGE)[1]
    row[:] = 3
    others = [recycled.empty(LARGE) for _ in range(3)]
    for other in others:
        other[:] = 0
    assert (tensor == 7).all()
    assert (row == 3).all()
    assert len({address(array) for array in others}) == 3


def test_smaller_memory_is_not_taken_for_a_larger_array():
    first = recycled.empty(LARGE)
    del first
    gc.collect()
    recycled.empty((8, recycled.SMALLEST))[:] = 5


def test_small_and_empty_arrays_have_their_shape():
    assert recycled.empty((0, 4, 4, 3)).shape == (0, 4, 4, 3)
    assert recycled.empty((2, 3)).shape == (2, 3)
