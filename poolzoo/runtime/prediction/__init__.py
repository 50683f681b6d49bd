"""Predicts the classes of image files with a bundle: a few at once, or a long list in parts that can be resumed."""
