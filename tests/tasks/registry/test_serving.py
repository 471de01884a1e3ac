"""A registered model in use, without arguments: every prompt that fits is continued, and any other refused in words."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config
from tasks.registry import connection, models, runs, serving
from tests.registered import register

WINDOW = 24
NAME = "a#b 100% é"
CONFIG = build_config(
    {
        "prompts": {"tokens_min": 2, "tokens_max": 4},
        "sampling": {"total_tokens": 20, "temperature": 0.7, "top_k": 5, "top_p": 0.9},
    }
)
PROMPTS = {length: "a" * length for length in (1, 3, 8, 16, WINDOW - 1)}  # a token each
TOO_LONG = [WINDOW, WINDOW + 1, 3 * WINDOW]
Texts = Callable[..., list[str]]


@dataclass(frozen=True)
class Served:
    """A registered model by each of the ways in which people use it; each takes prompts and gives whole texts."""

    folder: Path
    ways: dict[str, Texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_gpt2(vocab_size=len(tiny_tokenizer), context=WINDOW).save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    import transformers

    home = tmp_path_factory.mktemp("mlflow")
    before = connection._place
    runs.configure(f"sqlite:///{home}/mlflow.db", home / "artifacts")
    run = runs.start_run(CONFIG, "a run")
    register(run, models.log_model(run, folder, CONFIG, ""), NAME, "challenger")
    with connection.fluent(), connection.without_advice():
        import mlflow
        from fastapi.testclient import TestClient
        from mlflow.pyfunc.scoring_server import init

        pipeline = mlflow.transformers.load_model(f"models:/{NAME}@challenger")
        pyfunc = mlflow.pyfunc.load_model(f"models:/{NAME}@challenger")
        root = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1"))
    connection._place = before
    plain = transformers.pipeline("text-generation", model=str(root / "model"))

    def write(pipe: Any) -> Texts:
        return lambda prompts: [found["generated_text"] for [found] in pipe(prompts)]

    def post(prompts: list[str], **more: Any) -> list[str]:
        answer = client.post("/invocations", json={"inputs": prompts} | more)
        if answer.status_code != 200:
            raise ValueError(json.dumps(answer.json()))
        return list(answer.json()["predictions"])

    ways = {"load_model": write(pipeline), "transformers": write(plain), "pyfunc": pyfunc.predict, "http": post}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # as the app sets it for good
        client = TestClient(init(pyfunc))
        yield Served(root / "model", ways)


@pytest.fixture(params=["load_model", "transformers", "pyfunc", "http"])
def texts(served: Served, request: pytest.FixtureRequest) -> Texts:
    return served.ways[request.param]


def tokens(served: Served, text: str) -> int:
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(served.folder)(text)["input_ids"])


@pytest.mark.parametrize("length", PROMPTS)
def test_every_prompt_that_leaves_room_is_continued_within_the_window(texts: Texts, length: int) -> None:
    for _ in range(5):
        [text] = texts([PROMPTS[length]])
        assert text.startswith(PROMPTS[length])


def test_prompts_of_all_lengths_may_come_in_one_request(texts: Texts) -> None:
    prompts = [*PROMPTS.values(), "", "a film"]
    found = texts(prompts)
    assert len(found) == len(prompts)
    assert all(text.startswith(prompt) for text, prompt in zip(found, prompts, strict=True))


@pytest.mark.parametrize("length", TOO_LONG)
def test_a_prompt_that_fills_the_window_is_refused_with_both_figures(texts: Texts, length: int) -> None:
    with pytest.raises(ValueError, match=f"is {length}, but `max_length` is set to {WINDOW}"):
        texts(["a" * length])


def test_it_writes_as_long_as_the_window_allows_and_no_longer(served: Served) -> None:
    """Many draws from one short prompt: the longest texts fill the window to its last token."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(served.folder)
    ids = torch.tensor([[5, 6, 7]]).repeat(64, 1)
    found = model.generate(ids, attention_mask=torch.ones_like(ids))
    assert found.shape[1] == WINDOW


def test_a_request_may_still_ask_for_less(served: Served) -> None:
    [text] = served.ways["http"](["a"], params={"max_new_tokens": 2, "do_sample": False})
    assert 1 <= tokens(served, text) <= 3


def test_several_prompts_in_a_batch_are_padded_at_their_left_and_come_out_as_alone(served: Served) -> None:
    from transformers import pipeline

    write = pipeline("text-generation", model=str(served.folder), do_sample=False)
    prompts = ["a", "a film", "the plot was"]
    alone = [found["generated_text"] for [found] in write(prompts, max_new_tokens=6)]
    assert [found["generated_text"] for [found] in write(prompts, batch_size=3, max_new_tokens=6)] == alone


# What decides how it writes


@dataclass
class Case:
    """A model and its tokenizer as they come, before they are kept."""

    model: Any
    tokenizer: Any

    def kept(self, folder: Path, config: AlignConfig = CONFIG) -> tuple[Any, Any]:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return prepared(folder, config)


def prepared(folder: Path, config: AlignConfig) -> tuple[Any, Any]:
    """What is registered, as transformers loads it."""
    from transformers import AutoModelForCausalLM

    out = folder.with_name(f"{folder.name}-prepared")
    _, tokenizer = serving.prepare(folder, config, out)
    return AutoModelForCausalLM.from_pretrained(out), tokenizer


@pytest.fixture
def case(tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Case:
    from copy import deepcopy

    return Case(tiny_gpt2(vocab_size=len(tiny_tokenizer), context=WINDOW), deepcopy(tiny_tokenizer))


def test_what_is_registered_shares_its_weights_with_the_policy(case: Case, tmp_path: Path) -> None:
    """The test's disk may know references, which share blocks and no name."""
    case.kept(tmp_path / "in")
    one, two = (tmp_path / name / "model.safetensors" for name in ("in", "in-prepared"))
    assert one.read_bytes() == two.read_bytes()


def test_the_sampling_is_the_training_s_and_nothing_of_the_base_s(case: Case, tmp_path: Path) -> None:
    case.model.generation_config.update(do_sample=True, repetition_penalty=1.3, max_new_tokens=7, temperature=0.1)
    writing = case.kept(tmp_path)[0].generation_config
    assert (writing.do_sample, writing.temperature, writing.top_k, writing.top_p) == (True, 0.7, 5, 0.9)
    assert (writing.repetition_penalty, writing.max_new_tokens, writing.max_length) == (None, None, WINDOW)


def test_settings_that_are_the_library_s_own_are_written_down_too(case: Case, tmp_path: Path) -> None:
    """A pipeline lays its own temperature of 0.7 over what a model does not say."""
    from transformers import pipeline

    config = build_config({"sampling": {"temperature": 1.0, "top_k": 50, "top_p": 1.0}})
    model, tokenizer = case.kept(tmp_path / "in", config)
    model.save_pretrained(tmp_path / "out")
    tokenizer.save_pretrained(tmp_path / "out")
    write = pipeline("text-generation", model=str(tmp_path / "out"))
    used = write._prepare_generate_kwargs({})
    assert not {"temperature", "top_k", "top_p", "max_new_tokens"} & used.keys()
    assert write.model.generation_config.temperature == 1.0


def test_any_token_that_ends_a_text_ends_it_in_use(case: Case, tmp_path: Path) -> None:
    case.model.config.eos_token_id = 7
    case.model.generation_config.eos_token_id = [9, 10_000]
    assert set(case.kept(tmp_path)[0].generation_config.eos_token_id) == {0, 7, 9}


def test_a_padding_token_without_an_embedding_gives_way_to_the_one_that_ends_texts(case: Case, tmp_path: Path) -> None:
    case.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    model, tokenizer = case.kept(tmp_path)
    assert tokenizer.pad_token_id == model.generation_config.pad_token_id == 0


@pytest.mark.parametrize("by", ["template", "flag"])
def test_a_tokenizer_that_closes_texts_leaves_prompts_open(case: Case, tmp_path: Path, by: str) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    if by == "flag":
        case.tokenizer.add_bos_token = case.tokenizer.add_eos_token = True
    else:
        case.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
        )
    assert case.tokenizer("aa")["input_ids"][-1] == 0
    case.kept(tmp_path / "in")[1].save_pretrained(tmp_path / "out")
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("aa")["input_ids"]
    assert ids[0] == 0
    assert len(ids) == 3
    assert ids[-1] != 0


def test_without_a_window_new_tokens_are_counted_as_in_training(case: Case, tmp_path: Path) -> None:
    """At most 20 tokens a text, of which the longest prompt took 4; `sampling.new_tokens_max` says it outright."""
    from transformers import BloomConfig, BloomForCausalLM

    size = {"vocab_size": len(case.tokenizer), "hidden_size": 16, "n_layer": 1, "n_head": 2}
    case.model = BloomForCausalLM(BloomConfig(**size, bos_token_id=0, eos_token_id=0, pad_token_id=0))
    model, tokenizer = case.kept(tmp_path)
    assert (model.generation_config.max_length, model.generation_config.max_new_tokens) == (None, 16)
    schema = models.signature(model.generation_config).params.to_dict()
    assert {item["name"]: item["default"] for item in schema}["max_new_tokens"] == 16
    ids = tokenizer("a" * 100, return_tensors="pt")
    assert model.generate(**ids).shape[1] <= 116
    drawn = build_config({"sampling": {"new_tokens_min": 3, "new_tokens_max": 9}})
    assert serving.new_tokens(drawn) == 9
