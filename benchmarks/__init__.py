"""Side-by-side measurements, each a command that prints its ratio: `python -m benchmarks.NAME`."""
