"""Self-supervised learning for hyperspectral and multispectral images."""
