"""From a trained network to a file that runs elsewhere, with the evidence that it computes the same."""
