"""Benchmarks by topic, like the rooms of the package. `python -m benchmarks.TOPIC.NAME` prints its numbers."""
