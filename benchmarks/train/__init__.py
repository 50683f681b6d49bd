"""Training beside timm, torchvision and Lightning."""
