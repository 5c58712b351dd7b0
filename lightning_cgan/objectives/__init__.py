"""Training objectives in plain PyTorch: losses, penalties, augmentations, and the inputs of one update."""
