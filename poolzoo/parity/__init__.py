"""Whether a graph computes what its network computes, and where it does not."""
