"""Every pooling in backbones of every kind, and every architecture of timm as a backbone."""
