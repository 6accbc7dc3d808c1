"""What a training step is made of: networks, weights, losses, optimizers. The loop around it belongs to training."""
