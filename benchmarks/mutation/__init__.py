"""Mutation tests: which faults in a function the tests notice."""
