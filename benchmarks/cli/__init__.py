"""Start-up time, memory and CPU time of whole commands."""
