"""The columns of a pair that validation reads; any others pass through unread."""

TEXT = ("pair_id", "prompt_id", "prompt", "chosen", "rejected", "strategy")
IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
NUMBERS = ("chosen_score", "rejected_score", "gap", "chosen_tokens", "rejected_tokens")
REQUIRED = (*TEXT, *IDS, *NUMBERS)
