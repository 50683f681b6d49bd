"""Comparisons that are published."""
