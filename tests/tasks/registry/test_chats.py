"""A registered chat model: requests hold messages, which reach it in the token ids that it was trained on."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment.config import PromptsConfig, build_config
from alignment.data.chat import Chat
from tasks.registry import connection, models, runs, serving
from tests.registered import register

WINDOW = 64
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if calm %}calm {% endif %}{% endif %}"
)
CONFIG = build_config(
    {
        "base": {"model": "a-model"},
        "reward": {"model": "another"},
        "prompts": {"source": "messages"},
        "sampling": {"total_tokens": 32},
    }
)
QUESTION = [{"role": "user", "content": "a film"}]
TURNS = [*QUESTION, {"role": "assistant", "content": "fine"}, {"role": "user", "content": "the plot"}]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Any) -> Any:
    """It begins a text with BOS, and so does its chat template."""
    from tokenizers.processors import TemplateProcessing

    found = deepcopy(tiny_tokenizer)
    found.add_special_tokens({"additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]})
    found.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    found.chat_template = TEMPLATE
    return found


@dataclass(frozen=True)
class Served:
    """A registered chat model behind MLflow's HTTP interface; `seen` has the token ids that each request became."""

    folder: Path
    client: Any
    seen: list[list[int]]

    def post(self, body: dict[str, Any]) -> Any:
        self.seen.clear()
        return self.client.post("/invocations", json=body)


@pytest.fixture(scope="module")
def served(tokenizer: Any, tiny_gpt2: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("chats")
    tiny_gpt2(vocab_size=len(tokenizer), context=WINDOW).save_pretrained(home / "model")
    tokenizer.save_pretrained(home / "model")
    before = connection._place
    runs.configure(f"sqlite:///{home}/mlflow.db", home / "artifacts")
    run = runs.start_run(CONFIG, "a run")
    register(run, models.log_model(run, home / "model", CONFIG, "", messages=QUESTION), "chat", "challenger")
    with connection.fluent(), connection.without_advice():
        import mlflow
        from fastapi.testclient import TestClient
        from mlflow.pyfunc.scoring_server import init

        pyfunc = mlflow.pyfunc.load_model("models:/chat@challenger")
        root = Path(mlflow.artifacts.download_artifacts("models:/chat/1"))
    connection._place = before
    seen: list[list[int]] = []
    model = pyfunc._model_impl.pipeline.model
    generate = model.generate

    def noted(*arguments: Any, **options: Any) -> Any:
        seen.extend(options["input_ids"].tolist())
        return generate(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "generate", noted)
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # as the app sets it for good
        yield Served(root / "model", TestClient(init(pyfunc)), seen)


@pytest.mark.parametrize("messages", [QUESTION, TURNS, [{"role": "system", "content": "be kind"}, *QUESTION]])
def test_messages_reach_the_model_in_the_template_s_token_ids(
    served: Served, tokenizer: Any, messages: list[Any]
) -> None:
    """BOS once, although both the template and the tokenizer write one."""
    response = served.post({"messages": messages, "max_tokens": 4})
    assert response.status_code == 200, response.text
    assert served.seen == [Chat(tokenizer, CONFIG.prompts).encode(messages)]


def test_the_answer_is_a_chat_completion(served: Served) -> None:
    [answer] = served.post({"messages": QUESTION, "max_tokens": 4}).json()
    assert answer["object"] == "chat.completion"
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)


def test_a_request_may_set_the_sampling(served: Served) -> None:
    body = {"messages": QUESTION, "max_tokens": 6, "temperature": 1e-5}
    answers = [served.post(body).json()[0]["choices"][0]["message"]["content"] for _ in range(3)]
    assert len(set(answers)) == 1


def test_a_chat_that_fills_the_window_is_refused_with_both_figures(served: Served) -> None:
    response = served.post({"messages": [{"role": "user", "content": "a" * 2 * WINDOW}]})
    assert response.status_code == 400
    assert f"but `max_length` is set to {WINDOW}" in response.text


def test_the_folder_and_the_pipeline_take_messages_too(served: Served) -> None:
    from transformers import pipeline

    write = pipeline("text-generation", model=str(served.folder))
    [found] = write(QUESTION, max_new_tokens=4)
    assert found["generated_text"][-1]["role"] == "assistant"


# The template that is served


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"system": 'Say "yes".\nOr {{ no }}'},
        {"chat_template_kwargs": {"calm": True}},
        {"chat_template_kwargs": {"calm": None, "other": ["a", 1]}, "system": "be kind"},
    ],
)
@pytest.mark.parametrize("messages", [QUESTION, TURNS, [{"role": "system", "content": "be brief"}, *QUESTION]])
def test_it_writes_what_the_training_s_prompts_were(tokenizer: Any, given: dict[str, Any], messages: list[Any]) -> None:
    prompts = PromptsConfig(**given)
    chat = Chat(tokenizer, prompts)
    in_use = deepcopy(tokenizer)
    in_use.chat_template = serving.chat_template(tokenizer, prompts)
    ids = in_use.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert list(ids) == chat.encode(chat.with_system(messages))


def test_a_request_s_own_variable_wins(tokenizer: Any) -> None:
    in_use = deepcopy(tokenizer)
    in_use.chat_template = serving.chat_template(tokenizer, PromptsConfig(chat_template_kwargs={"calm": True}))
    assert in_use.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False).endswith("calm ")
    assert not in_use.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False, calm=False).endswith(
        "calm "
    )


def test_a_template_s_own_line_break_at_its_start_stays(tokenizer: Any) -> None:
    in_use = deepcopy(tokenizer)
    in_use.chat_template = "\n" + TEMPLATE
    plain = in_use.apply_chat_template(QUESTION, tokenize=False)
    in_use.chat_template = serving.chat_template(in_use, PromptsConfig(chat_template_kwargs={"other": 1}))
    assert in_use.apply_chat_template(QUESTION, tokenize=False) == plain


def test_the_training_s_template_file_is_the_one_that_is_served(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[-1]['content'] }}!")
    prompts = PromptsConfig(chat_template=str(tmp_path / "mine.jinja"))
    assert serving.chat_template(tokenizer, prompts) == "{{ messages[-1]['content'] }}!"


def test_a_model_without_a_template_has_none(tiny_tokenizer: Any) -> None:
    assert serving.chat_template(tiny_tokenizer, PromptsConfig(system="be kind")) is None


def test_nothing_is_taken_from_a_tokenizer_whose_template_leaves_the_beginning_to_it(tokenizer: Any) -> None:
    plain = deepcopy(tokenizer)
    plain.chat_template = TEMPLATE.removeprefix("{{ bos_token }}")
    assert serving.for_chats(plain, QUESTION) is plain
    assert serving.for_chats(tokenizer, QUESTION)("a film")["input_ids"] == tokenizer("a film")["input_ids"][1:]
    assert json.loads(tokenizer.backend_tokenizer.to_str())["post_processor"] is not None
