"""Saliency: how much each spatial location of the feature map contributes to a class's logit."""
