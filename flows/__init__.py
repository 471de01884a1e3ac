"""Prefect flows, their configurations, and the command line."""

from tasks.home import set_defaults

set_defaults()  # before any of them imports Prefect
