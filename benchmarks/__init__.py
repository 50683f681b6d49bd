"""Benchmarks by subject, like the rooms of the package. `python -m benchmarks.SUBJECT.NAME` prints its numbers."""
