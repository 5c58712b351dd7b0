"""Training components of `ConditionalGAN`: optimizers, gradients, compiled steps, moving average, checkpoints."""
