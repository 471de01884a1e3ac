"""Rewards: what scores a text."""
