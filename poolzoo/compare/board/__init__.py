"""A board of strangers: protocols that pin a comparison, checks of what others submit, and the board that takes it."""
