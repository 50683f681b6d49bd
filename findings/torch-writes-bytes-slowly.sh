#!/usr/bin/env bash
# torch takes longer to write rows of bytes into a tensor than rows of float32, which are four times as many bytes.
#
# One would guess: index_copy_ and tensor[rows] = … copy memory, so their time goes with the bytes, as numpy's does.
# What happens: on the CPU both go element by element: a row of uint8 takes as long per element as one of float32, or
#   longer, and 5 to 10 times as long as numpy for the same memory. The same tensors seen as int64 are as quick as
#   numpy's, so the memory is not what limits.
# Seen: 2026-11-28, x86-64 Linux (AVX-512), CPython 3.11, torch 2.14.1, numpy 2.4.6, one thread.
# Output: 64 of 256 images of 224x224x3: uint8 index_copy_ 7.7 ms, numpy 0.95 ms, as int64 1.2 ms; float32 index_copy_
#   3.6 ms
# Hurt: batches of images in bytes that are put together or augmented in part; replay buffers.
# Way out: tensor.numpy()[rows] = other.numpy(), or .view(torch.int64) of both where the row's size is a multiple of 8.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 torch==2.14.1
OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import statistics
import time

import torch

torch.set_num_threads(1)
rows = torch.randperm(256, generator=torch.Generator().manual_seed(0))[:64]
size = 3 * 224 * 224
bytes_to, bytes_from = torch.zeros(256, size, dtype=torch.uint8), torch.ones(64, size, dtype=torch.uint8)
float_to, float_from = bytes_to.float(), bytes_from.float()
wide_to, wide_from = bytes_to.view(torch.int64), bytes_from.view(torch.int64)


def numpy_copy():
    bytes_to.numpy()[rows.numpy()] = bytes_from.numpy()


def assign():
    bytes_to[rows] = bytes_from


ways = {
    "uint8 index_copy_": lambda: bytes_to.index_copy_(0, rows, bytes_from),
    "uint8 tensor[rows] =": assign,
    "uint8 numpy": numpy_copy,
    "uint8 seen as int64": lambda: wide_to.index_copy_(0, rows, wide_from),
    "float32 index_copy_": lambda: float_to.index_copy_(0, rows, float_from),
}
times = {name: [] for name in ways}
for turn in range(16):
    for name, way in ways.items():
        start = time.process_time()
        way()
        if turn:  # the first turn warms up
            times[name].append(time.process_time() - start)
    assert int(bytes_to.sum()) == bytes_from.numel()
took = {name: statistics.median(one) * 1e3 for name, one in times.items()}
for name, milliseconds in took.items():
    print(f"{name}: {milliseconds:.2f} ms")
slow = min(took["uint8 index_copy_"], took["uint8 tensor[rows] ="])
same = slow > 2 * max(took["uint8 numpy"], took["uint8 seen as int64"]) and slow > took["float32 index_copy_"] / 1.5
raise SystemExit(None if same else "changed: torch copies rows of bytes as quickly as numpy")
PY
