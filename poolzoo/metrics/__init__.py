"""What a prediction is worth: accuracy and its interval, figures of each class, robustness to corruptions."""
