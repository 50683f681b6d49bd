"""Pooling layers and whole bundles in every runtime that is installed: the page docs/results/runtimes.md."""
