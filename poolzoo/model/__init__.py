"""Backbone + pooling + classifier = network: assembly, weights and the account of them, cost of a layer."""
