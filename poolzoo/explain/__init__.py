"""Where a network looked: saliency over the positions of the feature map."""
