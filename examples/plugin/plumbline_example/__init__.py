"""One of most kinds that Plumbline leaves open: copy the file that you need, and name it in `pyproject.toml`."""
