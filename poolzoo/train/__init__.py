"""Fine-tuning: the settings, the optimiser, the loop, and the run that ties them together."""
