"""Controlled comparisons of poolings: the same seeds, the same images, statistics that separate effects from chance."""
