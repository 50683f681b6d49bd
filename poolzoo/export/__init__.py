"""From a network to a bundle: graph, precision, stand-alone script, card."""
