"""Prompts: how rows become prompts, by a source that is open to other packages, and which of them are held out."""
