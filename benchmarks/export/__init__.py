"""Exported graphs beside those of other exporters."""
