"""Fine-tuning: settings, optimizer, the loop, and the run directory that it fills."""
