"""Judges: what else is measured of a text, beside its reward; one file each."""
