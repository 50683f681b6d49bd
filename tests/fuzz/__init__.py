"""Hostile input for everything that poolzoo reads: `python -m tests.fuzz --inputs 200000 --seed 0`."""
