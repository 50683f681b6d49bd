"""`poolzoo choose`: which pooling to use on some data, from a few minutes of comparisons."""
