"""Sampling, log-probs and rewards of many architectures agree with a plain forward pass of one text at a time."""

import random
from typing import Any

import pytest
import torch

from alignment.config import build_config
from alignment.errors import SelfCheckError
from alignment.logprobs import score_completions
from alignment.models import Loaded
from alignment.rewards.classifier import score_texts
from alignment.sampling.engine import request
from alignment.sampling.local import generate
from tests.alignment.architectures import EOS, TURN, Spelling, build, tokenizer

SPELLINGS = [
    Spelling(begins=True),
    Spelling(begins=True, ends=True, side="left"),
    Spelling(bos=False, pad=False),
    Spelling(begins=True, pad=False, side="left"),
]
CAUSAL = [
    *("gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "gpt_oss", "openai-gpt", "codegen", "opt", "bloom", "mpt"),
    *("falcon", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "gemma", "gemma2", "gemma3_text", "phi"),
    *(
        "phi3",
        "olmo2",
        "olmoe",
        "stablelm",
        "starcoder2",
        "cohere2",
        "deepseek_v2",
        "deepseek_v3",
        "granite",
        "smollm3",
    ),
    *("xglm", "biogpt", "ctrl", "bert", "roberta", "electra"),
    *("mamba", "mamba2", "falcon_mamba", "jamba", "lfm2", "qwen3_next", "falcon_h1", "bamba", "granitemoehybrid"),
    *("recurrent_gemma", "rwkv", "olmo_hybrid", "qwen3_5_text"),
]
CLASSIFIERS = [
    "distilbert",
    "bert",
    "roberta",
    "electra",
    "deberta-v2",
    "mpnet",
    "gpt2",
    "llama",
    "qwen3",
    "gemma2",
    "jamba",
]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def texts(lengths: tuple[int, ...]) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choice(LETTERS) for _ in range(length)) for length in lengths]


def sampling(**changes: Any) -> Any:
    return build_config({"sampling": {"total_tokens": 24, "batch_size": 8} | changes}).sampling


def load(kind: str, number: int) -> Loaded:
    """The architecture with one of the tokenizers, and a second end token that the generation config alone names."""
    model = build(kind, eos_token_id=EOS)
    if model.generation_config is not None:
        model.generation_config.eos_token_id = [EOS, TURN]
    return Loaded(model, tokenizer(SPELLINGS[number % len(SPELLINGS)]), kind)


def plain(model: Any, prompt: list[int], completion: list[int]) -> float:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].float().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(completion))


def deviations(loaded: Loaded) -> tuple[float, float]:
    """The largest difference of a sample's log-prob, and of a score's, from a plain forward pass."""
    config = sampling()
    prompts = [ids for ids in loaded.encode(texts((3, 3, 7, 11, 5))) for _ in range(2)]
    requests = [
        request(ids, config, seed=0, purpose="test", prompt_id=str(number), index=number % 2)
        for number, ids in enumerate(prompts)
    ]
    drawn = generate(loaded.model, requests, config, loaded.conventions)
    for completion in drawn:
        assert not {EOS, TURN} & set(completion.ids[:-1])
        assert completion.finished == (completion.ids[-1] in {EOS, TURN})
    completions = [completion.ids for completion in drawn]
    alone = [plain(loaded.model, prompt, ids) for prompt, ids in zip(prompts, completions, strict=True)]
    scored = score_completions(loaded.model, prompts, completions, pad_id=loaded.pad_id, batch_size=4)
    return (
        max(abs(one - two.logprob) for one, two in zip(alone, drawn, strict=True)),
        max(abs(one - float(two)) for one, two in zip(alone, scored, strict=True)),
    )


def reward_deviation(loaded: Loaded) -> float:
    some = texts((3, 9, 4, 17, 12, 4, 6))
    found = score_texts(loaded, some, column=0, batch_size=4)
    with torch.inference_mode():
        alone = [float(loaded.model(**loaded.tokenizer(text, return_tensors="pt")).logits[0, 0]) for text in some]
    return max(abs(one - float(two)) for one, two in zip(alone, found, strict=True))


@pytest.mark.parametrize(("number", "kind"), list(enumerate(CAUSAL)), ids=CAUSAL)
def test_samples_and_scores_are_those_of_a_plain_forward(number, kind):
    loaded = load(kind, number)
    assert loaded.conventions.ends == (EOS, TURN)
    assert max(deviations(loaded)) < 5e-5


@pytest.mark.parametrize(("number", "kind"), list(enumerate(CLASSIFIERS)), ids=CLASSIFIERS)
def test_rewards_are_those_of_a_plain_forward(number, kind):
    model = build(kind, task="SequenceClassification", num_labels=1)
    assert reward_deviation(Loaded(model, tokenizer(SPELLINGS[number % len(SPELLINGS)]), kind)) < 1e-5


@pytest.mark.parametrize("kind", ["zamba2", "nemotron_h"])
def test_a_model_whose_cached_step_computes_something_else_is_refused_and_goes_without_a_cache(kind):
    """transformers clamps the time step of a whole sequence, and not that of a single token."""
    loaded = load(kind, 0)
    with pytest.raises(SelfCheckError, match=r"sampling in a batch is off by .* sampling\.cache"):
        deviations(loaded)
    config = sampling(cache=False)
    prompts = loaded.encode(texts((3, 7)))
    requests = [request(ids, config, seed=0, purpose="test", prompt_id=str(ids), index=0) for ids in prompts]
    for ids, completion in zip(prompts, generate(loaded.model, requests, config, loaded.conventions), strict=True):
        assert completion.logprob == pytest.approx(plain(loaded.model, ids, completion.ids), abs=5e-5)


def test_a_model_that_looks_ahead_is_refused():
    """A bidirectional model gives one text the same numbers in every batch, and none of them are log-probs."""
    loaded = Loaded(build("bert", is_decoder=False), tokenizer(Spelling()), "base.model bert")
    config = sampling()
    requests = [
        request(ids, config, seed=0, purpose="test", prompt_id=str(ids), index=0)
        for ids in loaded.encode(texts((3, 7)))
    ]
    with pytest.raises(SelfCheckError, match=r"^base\.model bert: sampling in a batch is off by "):
        generate(loaded.model, requests, config, loaded.conventions, name=loaded.name)
