"""Sampling, log-probs and rewards of many architectures agree with a plain forward pass of one text at a time."""

import pytest
import torch

from alignment.errors import SelfCheckError
from alignment.models import Loaded
from alignment.rewards.classifier import score_texts
from alignment.sampling.engine import request
from alignment.sampling.local import generate
from tests.alignment.architectures import EOS, TURN, Spelling, build, tokenizer
from tests.alignment.families import (
    CACHED,
    FAMILIES,
    PAGE,
    SPELLINGS,
    alike,
    deviations,
    load,
    plain,
    sampled,
    sampling,
    texts,
    written,
)

FURTHER = [
    *("gpt_neo", "gptj", "gpt_bigcode", "openai-gpt", "codegen", "mpt", "gemma", "phi", "stablelm", "qwen2_moe"),
    *("deepseek_v2", "xglm", "biogpt", "ctrl", "bert", "roberta", "electra", "qwen3_5_text", "olmo", "olmo3", "cohere"),
    *("apertus", "arcee", "ernie4_5", "exaone4", "seed_oss", "nemotron", "ministral3", "phimoe", "granitemoe"),
    *("glm4_moe", "minimax_m2"),
]
"""Beside those in the table of docs/models.md."""
CAUSAL = [*FAMILIES, *FURTHER]
CLASSIFIERS = [
    *("distilbert", "bert", "roberta", "electra", "deberta-v2", "mpnet", "gpt2", "llama", "qwen3", "gemma2", "jamba"),
]


def reward_deviation(loaded: Loaded) -> float:
    some = texts((3, 9, 4, 17, 12, 4, 6))
    found = score_texts(loaded, some, column=0, batch_tokens=40)
    with torch.inference_mode():
        alone = [float(loaded.model(**loaded.tokenizer(text, return_tensors="pt")).logits[0, 0]) for text in some]
    return max(abs(one - float(two)) for one, two in zip(alone, found, strict=True))


@pytest.mark.parametrize(("number", "kind"), list(enumerate(CAUSAL)), ids=CAUSAL)
def test_samples_and_scores_are_those_of_a_plain_forward(number, kind):
    """As far as docs/models.md says, and whatever it says of the cache."""
    loaded = load(kind, number)
    assert loaded.conventions.ends == (EOS, TURN)
    cache, *found = sampled(loaded)
    assert max(found) < 5e-5
    if kind not in FAMILIES:
        assert cache == CACHED
        return
    row = written()[kind]
    assert row.cache == cache
    assert all(alike(one, two) for one, two in zip(found, (row.samples, row.logprobs), strict=True))


@pytest.mark.parametrize(("number", "kind"), list(enumerate(CLASSIFIERS)), ids=CLASSIFIERS)
def test_rewards_are_those_of_a_plain_forward(number, kind):
    model = build(kind, task="SequenceClassification", num_labels=1)
    assert reward_deviation(Loaded(model, tokenizer(SPELLINGS[number % len(SPELLINGS)]), kind)) < 1e-5


def test_the_page_says_how_many_more_there_are():
    assert not set(FURTHER) & set(FAMILIES)
    assert f"{len(FURTHER)} more are compared" in " ".join(PAGE.read_text("utf-8").split())


@pytest.mark.parametrize("kind", ["zamba2", "nemotron_h", "moshi"])
def test_a_model_whose_cached_step_computes_something_else_is_refused_and_goes_without_a_cache(kind):
    """For one, transformers clamps the time step of a whole sequence, and not that of a single token."""
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
