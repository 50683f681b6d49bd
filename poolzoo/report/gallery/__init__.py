"""A page on which every pooling strategy is seen at work on a photograph."""
