"""Checks that a graph computes what its network computes, and finds where it does not."""
