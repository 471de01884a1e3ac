"""The `plumbline` command line."""
