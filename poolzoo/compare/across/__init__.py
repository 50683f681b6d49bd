"""Several comparisons together: reading them, aggregated gains, ranks over test sets, and what both say."""
