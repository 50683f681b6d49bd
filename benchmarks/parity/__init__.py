"""Whether the parity check detects faults."""
