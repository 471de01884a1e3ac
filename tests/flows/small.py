"""A configuration that runs the whole flow in seconds, and gates that let anything through."""

from typing import Any

SMALL: dict[str, Any] = {
    "data": {"rows": 1_200},
    "base": {"steps": 120, "layers": 1, "width": 64, "vocab_size": 600, "batch_size": 16},
    "reward": {"steps": 40, "layers": 1, "width": 32},
    "prompts": {"count": 48, "eval_count": 24},
    "sampling": {"shard_prompts": 24, "total_tokens": 40},
    "validation": {
        "min_gap": 0.0,
        "min_pairs": 2,
        "min_distinct_prompts": 2,
        "max_quarantined": 0.95,
        "max_length_correlation": 1.0,
        "chosen_longer_min": 0.0,
        "chosen_longer_max": 1.0,
    },
    "dpo": {"steps": 8, "warmup_steps": 2, "log_every": 2, "checkpoint_every": 2, "batch_size": 4},
    "evaluation": {"table_rows": 5, "bootstrap": 200},
    "registry": {"model_name": "small", "experiment": "small"},
}

OPEN_GATES: dict[str, Any] = {
    "min_gain": -100,
    "min_win_rate": 0,
    "min_perplexity_ratio": 0,
    "max_perplexity_ratio": 1_000,
    "max_kl_per_token": 100,
    "min_reward_sd_ratio": 0,
    "max_entropy_change": 10,
}
