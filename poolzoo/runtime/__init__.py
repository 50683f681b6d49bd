"""A bundle at work without torch: sessions, predictions, verification, speed."""
