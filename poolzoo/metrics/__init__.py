"""What predictions are worth: accuracy and its interval, metrics of each class, robustness to image changes."""
