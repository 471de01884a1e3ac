"""Rewards: what scores a sample, by a kind that is open to other packages."""
