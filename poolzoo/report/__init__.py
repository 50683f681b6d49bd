"""Pages, cards and plots of what was measured."""
