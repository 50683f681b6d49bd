"""What a run looks like: pictures of its figures."""
