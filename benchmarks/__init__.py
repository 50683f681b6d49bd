"""Benchmarks by subject, like the rooms of the package. Each prints its numbers: `python -m benchmarks.SUBJECT.NAME`."""
