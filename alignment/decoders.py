"""What a base model has to be: a language model of transformers that reads a text from its beginning to its end."""

from pathlib import Path
from typing import Any

import torch

from alignment import hub
from alignment.conventions import Conventions, text_config
from alignment.device import is_exact
from alignment.errors import ModelError

WAY_OUT = "give a decoder-only language model"

PROBE = 16  # tokens of the text on which a model is asked whether it looks ahead
ALLOWED, ALLOWED_ROUNDED = 1e-2, 0.5  # nats between predictions that should be equal, in fp32 and in shorter floats


def require_language_model(source: str | Path, revision: str, where: str) -> None:
    """Raise ModelError, which begins with `where`, for a type of model that cannot continue a text by itself.

    Only the config is read; one that cannot be read is left to what loads the model.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    folder = Path(source).is_dir()
    try:
        with hub.cache_without_network(source):
            config = AutoConfig.from_pretrained(
                str(source), trust_remote_code=False, **({} if folder else {"revision": revision})
            )
    except Exception:  # noqa: BLE001 - a broken file makes its reader raise anything, and its loader names it
        return
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{where}: is a model of the type {config.model_type}, of which transformers has no causal language model; "
            f"{WAY_OUT}"
        )
    if config.is_encoder_decoder:
        raise ModelError(
            f"{where}: is an encoder-decoder ({config.model_type}), and its encoder would be left out; {WAY_OUT}"
        )


@torch.inference_mode()
def require_causal(model: Any, conventions: Conventions, name: str) -> None:
    """Raise ModelError, which begins with `name`, where a model's prediction of a token changes with what follows it.

    One forward pass of two short texts that differ in their last token.
    """
    length = min(PROBE, conventions.longest or PROBE)
    known = [token for token in range(min(conventions.embeddings or 0, 1_000)) if token != conventions.pad_id]
    if length < 2 or len(known) < 2:
        return
    picked = torch.tensor(known)[torch.randint(len(known), (length,), generator=torch.Generator().manual_seed(0))]
    other = picked.clone()
    other[-1] = next(token for token in known if token != picked[-1])
    ids = torch.stack([picked, other]).to(next(model.parameters()).device)
    logprobs = model(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
    off = float((logprobs[0] - logprobs[1]).abs().nan_to_num(0.0).max())
    if off > (ALLOWED if is_exact(model) else ALLOWED_ROUNDED):
        config = text_config(model.config)
        cause = "; its config sets is_decoder to false" if getattr(config, "is_decoder", True) is False else ""
        raise ModelError(
            f"{name}: looks ahead: what it predicts changes by {off:.2g} nats with the tokens that follow, as an "
            f"encoder's does ({config.model_type}{cause}); {WAY_OUT}"
        )
