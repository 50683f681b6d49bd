"""Runs a bundle without torch: sessions, prediction, verification, speed."""
