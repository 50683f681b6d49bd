"""Reduces a graph that does not compute what it should to the smallest graph and input that still show it."""
