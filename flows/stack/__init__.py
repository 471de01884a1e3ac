"""Servers: those of one machine started, watched and stopped, and any Prefect and MLflow set up for the flows."""
