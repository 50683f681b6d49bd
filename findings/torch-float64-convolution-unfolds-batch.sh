#!/usr/bin/env bash
# On the CPU, a float64 convolution unfolds its whole batch: larger batches take 9 times their memory, and more time.
#
# One would guess: a larger batch is at least as fast per image, and memory goes with inputs and outputs, as in float32.
# What happens: oneDNN has no float64, so torch copies every window of every image of the batch into one buffer. For a
#   3x3 convolution that is 9 times the input, for a 7x7 one 49 times. Above 32 MB glibc gives such a buffer back
#   after each call, and the system clears its pages anew: the time per image rises by half or more from one batch
#   size to the next. The results are bitwise the same.
# Seen: 2026-11-29, x86-64 Linux (glibc 2.36), CPython 3.11, torch 2.14.1, one thread.
# Output: 48 images 64x56x56, convolution 3x3: 2 a call 29,009 page faults, 0.49 s; 4 a call 174,060, 0.86 s;
#   all at once 206,979, 0.83 s and 660 MB more at the peak; float32 at once 0 MB more
# Hurt: references in float64, which checks of gradients and of exported graphs compute: in larger batches, to be quick.
# Way out: batches whose unfolded input stays below 32 MB, or MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 torch==2.14.1
env -u MALLOC_MMAP_THRESHOLD_ -u MALLOC_TRIM_THRESHOLD_ -u LD_PRELOAD OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import resource
import time

import torch

torch.set_num_threads(1)
images = torch.randn(48, 64, 56, 56, dtype=torch.float64)
weight = torch.randn(64, 64, 3, 3, dtype=torch.float64)


def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt, usage.ru_maxrss / 1024


def run(inputs, size):
    kernel = weight.to(inputs.dtype)
    return torch.cat([torch.nn.functional.conv2d(part, kernel, padding=1) for part in inputs.split(size)])


outputs, faults = {}, {}
for size in (2, 4):  # 29 and 58 MB unfolded
    run(images, size)  # the heap grows once
    before, started = used()[0], time.process_time()
    outputs[size] = run(images, size)
    faults[size] = used()[0] - before
    print(f"{size} a call: {faults[size]:,} page faults, {time.process_time() - started:.2f} s")
single = images.float()
run(single, 2)
before = used()[1]
run(single, len(single))
float32 = used()[1] - before
before = used()[1]
started = time.process_time()
outputs[48] = run(images, len(images))
float64 = used()[1] - before
unfolded = images.numel() * 9 * 8 / 2**20
print(f"at once: {time.process_time() - started:.2f} s, peak +{float64:.0f} MB, float32 +{float32:.0f} MB")
assert torch.equal(outputs[2], outputs[4]) and torch.equal(outputs[2], outputs[48]), "changed: other results"
same = faults[4] > 3 * faults[2] and float64 > 0.8 * unfolded and float32 < 0.2 * unfolded
raise SystemExit(None if same else "changed: the batch is not unfolded at once")
PY
