"""What the two networks minimise: losses, penalties, augmentations, and the inputs of one update."""
