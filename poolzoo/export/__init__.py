"""Exports a network to a bundle: graph, precision, standalone script, model card."""
