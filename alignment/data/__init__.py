"""Texts, prompts and pairs: what is read, cut and paired, before any model is asked."""
