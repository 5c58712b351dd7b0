"""What a module does while it is trained: optimizers, gradients, compiled steps, the moving average, checkpoints."""
