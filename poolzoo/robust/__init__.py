"""Robustness: corrupted and shifted images, and what becomes of the predictions on them."""
