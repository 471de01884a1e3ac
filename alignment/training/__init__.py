"""Training of the base model, the reward model and the policy, all by one harness."""
