"""The pipeline's stages: one file each, and the store that keeps what they made."""
