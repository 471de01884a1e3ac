"""Prefect flows, their configurations, and the command line."""
