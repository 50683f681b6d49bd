"""One machine with a CUDA GPU in ten minutes: `benchmarks/gpu.sh` prepares it, `python -m benchmarks.gpu` measures."""
