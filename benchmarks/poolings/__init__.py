"""Pooling layers beside other implementations."""
