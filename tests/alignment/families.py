"""What Plumbline does with a tiny random model of one architecture: deviations, training, registering, serving."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from alignment import adapters
from alignment.config import build_config
from alignment.errors import SelfCheckError
from alignment.logprobs import score_completions
from alignment.models import Loaded, load_base, save
from alignment.sampling import local
from alignment.sampling.engine import request
from alignment.sampling.plain import UNSPLIT
from alignment.training.adapter import attach
from alignment.training.dpo import train_policy
from tasks.registry import serving
from tests.alignment.architectures import EOS, TURN, Spelling, build, tokenizer
from tests.alignment.training.small import make_pairs

SPELLINGS = [
    Spelling(begins=True),
    Spelling(begins=True, ends=True, side="left"),
    Spelling(bos=False, pad=False),
    Spelling(begins=True, pad=False, side="left"),
]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

ATTENTION, WINDOW, HYBRID, STATE = "attention", "sliding window", "hybrid", "state-space"
EXPERTS = ", mixture of experts"

FAMILIES: dict[str, tuple[str, str]] = {
    "gpt2": ("GPT-2", ATTENTION),
    "gpt_neox": ("GPT-NeoX, Pythia", ATTENTION),
    "opt": ("OPT", ATTENTION),
    "bloom": ("BLOOM", ATTENTION),
    "falcon": ("Falcon", ATTENTION),
    "llama": ("Llama, SmolLM2", ATTENTION),
    "qwen2": ("Qwen2, Qwen2.5", ATTENTION),
    "qwen3": ("Qwen3", ATTENTION),
    "olmo2": ("OLMo 2", ATTENTION),
    "smollm3": ("SmolLM3", ATTENTION),
    "granite": ("Granite", ATTENTION),
    "glm4": ("GLM-4", ATTENTION),
    "mistral": ("Mistral", WINDOW),
    "phi3": ("Phi-3, Phi-4", WINDOW),
    "starcoder2": ("StarCoder2", WINDOW),
    "gemma2": ("Gemma 2", WINDOW),
    "gemma3_text": ("Gemma 3", WINDOW),
    "cohere2": ("Command R7B", WINDOW),
    "mixtral": ("Mixtral", ATTENTION + EXPERTS),
    "qwen3_moe": ("Qwen3 MoE", ATTENTION + EXPERTS),
    "olmoe": ("OLMoE", ATTENTION + EXPERTS),
    "deepseek_v3": ("DeepSeek-V3, R1", ATTENTION + EXPERTS),
    "gpt_oss": ("gpt-oss", WINDOW + EXPERTS),
    "jamba": ("Jamba", HYBRID + EXPERTS),
    "qwen3_next": ("Qwen3-Next", HYBRID + EXPERTS),
    "granitemoehybrid": ("Granite 4", HYBRID + EXPERTS),
    "minimax": ("MiniMax", HYBRID + EXPERTS),
    "lfm2": ("LFM2", HYBRID),
    "falcon_h1": ("Falcon-H1", HYBRID),
    "bamba": ("Bamba", HYBRID),
    "olmo_hybrid": ("OLMo Hybrid", HYBRID),
    "recurrent_gemma": ("RecurrentGemma", HYBRID),
    "zamba2": ("Zamba2", HYBRID),
    "nemotron_h": ("Nemotron-H", HYBRID),
    "mamba": ("Mamba", STATE),
    "mamba2": ("Mamba-2", STATE),
    "falcon_mamba": ("Falcon Mamba", STATE),
    "rwkv": ("RWKV-4", STATE),
}
"""`model_type` in a model's config: what people call it, and of which kind its layers are."""


CACHED, WHOLE, OFF = "yes", "falls back", "`false`"


@dataclass(frozen=True)
class Found:
    """One row of the table: how it is sampled, two deviations in nats a completion, and what works."""

    cache: str
    samples: float
    logprobs: float
    trains: bool
    lora: bool
    registers: bool
    serves: bool


PAGE = Path(__file__).parents[2] / "docs" / "models.md"
TITLES = ("model", "`model_type`", "layers", "cache", "samples", "log-probs", "trains", "LoRA", "registers", "serves")
YES = {True: "yes", False: "no"}


def table(found: Mapping[str, Found]) -> str:
    """The rows as the page has them."""
    lines = ["| " + " | ".join(TITLES) + " |", "|---|---|---|---|--:|--:|---|---|---|---|"]
    for kind, row in found.items():
        name, layers = FAMILIES[kind]
        figures = [f"{value:.0e}".replace("e-0", "e-") for value in (row.samples, row.logprobs)]
        works = [YES[each] for each in (row.trains, row.lora, row.registers, row.serves)]
        lines.append("| " + " | ".join([name, f"`{kind}`", layers, row.cache, *figures, *works]) + " |")
    return "\n".join(lines) + "\n"


def rows() -> list[list[str]]:
    """The cells of the page's table, its title first."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in block(PAGE.read_text("utf-8")).splitlines()
        if not line.startswith("|---")
    ]


def block(text: str) -> str:
    """The table within the page."""
    start = text.index("| " + " | ".join(TITLES))
    return text[start:].partition("\n\n")[0] + "\n"


@cache
def written() -> dict[str, Found]:
    """What the page says of each family."""
    return {
        kind.strip("`"): Found(kept, float(samples), float(logprobs), *(each == "yes" for each in works))
        for _, kind, _, kept, samples, logprobs, *works in rows()[1:]
    }


def alike(one: float, two: float) -> bool:
    """Whether two deviations are of one order of magnitude: rounding differs between processors."""
    return abs(math.log10(max(one, 1e-6) / max(two, 1e-6))) <= 1


def find(kind: str, work: Path) -> Found:
    """Everything that a row says, in an empty folder."""
    cache, samples, logprobs = sampled(load(kind, list(FAMILIES).index(kind)))
    registers, serves = registered(kind, work, cached=cache != OFF)
    return Found(
        cache, samples, logprobs, trains(kind, work / "full"), trains(kind, work / "lora", "lora"), registers, serves
    )


# Sampling and log-probs


def texts(lengths: tuple[int, ...]) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choice(LETTERS) for _ in range(length)) for length in lengths]


def sampling(**changes: Any) -> Any:
    return build_config({"sampling": {"total_tokens": 24, "batch_tokens": 192} | changes}).sampling


def load(kind: str, number: int) -> Loaded:
    """The architecture with one of the tokenizers, and a second end token that the generation config alone names."""
    model = build(kind, eos_token_id=EOS)
    if model.generation_config is not None:
        model.generation_config.eos_token_id = [EOS, TURN]
    return Loaded(model, tokenizer(SPELLINGS[number % len(SPELLINGS)]), kind)


def plain(model: Any, prompt: list[int], completion: list[int]) -> float:
    """The log-prob of a completion in nats, by one forward pass of one text."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].float().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(completion))


def deviations(loaded: Loaded, **changes: Any) -> tuple[float, float]:
    """The largest difference of a sample's log-prob, and of a score's, from a plain forward pass."""
    config = sampling(**changes)
    prompts = [ids for ids in loaded.encode(texts((3, 3, 7, 11, 5))) for _ in range(2)]
    requests = [
        request(ids, config, seed=0, purpose="test", prompt_id=str(number), index=number % 2)
        for number, ids in enumerate(prompts)
    ]
    drawn = local.generate(loaded.model, requests, config, loaded.conventions)
    for completion in drawn:
        assert not {EOS, TURN} & set(completion.ids[:-1])
        assert completion.finished == (completion.ids[-1] in {EOS, TURN})
    completions = [completion.ids for completion in drawn]
    alone = [plain(loaded.model, prompt, ids) for prompt, ids in zip(prompts, completions, strict=True)]
    scored = score_completions(loaded.model, prompts, completions, pad_id=loaded.pad_id)
    return (
        max(abs(one - two.logprob) for one, two in zip(alone, drawn, strict=True)),
        max(abs(one - float(two)) for one, two in zip(alone, scored, strict=True)),
    )


def sampled(loaded: Loaded) -> tuple[str, float, float]:
    """How a model is sampled, and the two deviations: without a cache where the self-check refuses it with one."""
    try:
        found = deviations(loaded)
    except SelfCheckError:
        return (OFF, *deviations(loaded, cache=False))
    return (WHOLE if loaded.model in UNSPLIT else CACHED, *found)


# Training


def trains(kind: str, work: Path, adapter: str = "none") -> bool:
    """Whether DPO begins at ln 2, has a lower loss after a step, moves the weights and leaves them finite."""
    model = build(kind, eos_token_id=EOS)
    dpo = {"loss": "sigmoid", "steps": 2, "batch_size": 4, "warmup_steps": 0, "log_every": 1, "stop_chosen_drop": 0.0}
    config = build_config({"dpo": dpo | {"adapter": adapter, "learning_rate": 1e-3}})
    pairs = make_pairs(model, 4)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    loaded = Loaded(model, tokenizer(Spelling(begins=True)), kind)
    if adapter == "lora":
        loaded = attach(loaded, config.dpo, config.seed)
    losses = [row["loss"] for row in train_policy(loaded, pairs, config, work=work).history]
    if adapter == "lora":
        loaded = adapters.merge(loaded)
    after = dict(loaded.model.named_parameters())
    return (
        math.isclose(losses[0], math.log(2), abs_tol=1e-4)
        and losses[1] < losses[0]
        and any(not torch.equal(weight, before[name]) for name, weight in after.items())
        and all(bool(weight.isfinite().all()) for weight in after.values())
    )


# Registering and serving


def registered(kind: str, work: Path, *, cached: bool) -> tuple[bool, bool]:
    """Whether the saved model is the same model, loaded as a base and as it is registered, and whether that writes.

    What the library's own pipeline writes greedily has to be what plain forward passes make of it.
    """
    from transformers import AutoModelForCausalLM, pipeline

    loaded = Loaded(build(kind, eos_token_id=EOS), tokenizer(Spelling(begins=True)), kind)
    save(loaded, work / "saved")
    config = build_config({"sampling": {"total_tokens": 24, "cache": cached}})
    _, words = serving.prepare(work / "saved", config, work / "prepared")
    model = AutoModelForCausalLM.from_pretrained(work / "prepared")
    ids = torch.tensor([[1, *loaded.encode(texts((9,)))[0]]])
    with torch.inference_mode():
        expected, *others = (each(ids).logits for each in (loaded.model, model, load_base(work / "saved").model))
    model.save_pretrained(work / "registered")
    words.save_pretrained(work / "registered")
    writer = pipeline("text-generation", model=str(work / "registered"))
    (prompt,) = texts((5,))
    (answer,) = writer(prompt, do_sample=False, max_new_tokens=6, return_tensors=True)
    return (
        all(torch.equal(expected, other) for other in others),
        answer["generated_token_ids"] == greedy(loaded, loaded.encode([prompt])[0], 6),
    )


def greedy(loaded: Loaded, ids: list[int], tokens: int) -> list[int]:
    """A prompt and the likeliest tokens after it, each by a plain forward pass, up to the first that ends a text."""
    for _ in range(tokens):
        with torch.inference_mode():
            ids = [*ids, int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        if ids[-1] in loaded.conventions.ends:
            break
    return ids
