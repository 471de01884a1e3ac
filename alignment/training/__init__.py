"""Training: one harness, the losses, and what is trained with it."""
