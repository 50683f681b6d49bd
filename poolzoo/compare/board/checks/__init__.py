"""Checks of a submission, one function each: what it found in words, or `CheckFailed` with the reason.

The files of a submission are data. Code runs only where the checker has loaded a plugin.
"""
