"""`plumbline generate`: the answers alone on standard output, to prompts of the command line, of a pipe, or typed."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
GREEDY = ("--temperature", "0", "--max-new-tokens", "5")
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

pytestmark = pytest.mark.usefixtures("at_home")


@pytest.fixture
def model(tmp_path: Path, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Path:
    folder = tmp_path / "model"
    tiny_gpt2(vocab_size=len(tiny_tokenizer)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def chat(model: Path) -> Path:
    """The same model with a chat template."""
    (model / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return model


def answers(folder: Path, *prompts: Any, **options: Any) -> list[str]:
    from flows.library import generate

    return generate(str(folder), list(prompts), temperature=0, max_new_tokens=5, **options)


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """A terminal in which these lines are typed, then Ctrl-D."""
    left = list(lines)

    def ask(_: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})())


def test_the_prompts_of_the_command_line(plumbline: Call, model: Path) -> None:
    found = plumbline("generate", model, "a film", "the plot", *GREEDY)
    assert (found.code, found.err) == (0, "")
    assert found.out == "".join(f"{text}\n" for text in answers(model, "a film", "the plot"))


def test_the_lines_of_a_pipe_as_json(plumbline: Call, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a film\n\nthe plot\n"))
    found = plumbline("generate", model, *GREEDY, "--json")
    expected = dict(zip(("a film", "the plot"), answers(model, "a film", "the plot"), strict=True))
    rows = [json.loads(line) for line in found.out.splitlines()]
    assert {row["prompt"]: row["completion"] for row in rows} == expected


def test_a_chat_goes_on_until_an_empty_line(plumbline: Call, chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = answers(chat, "a film")
    turns = [{"role": "user", "content": "a film"}, {"role": "assistant", "content": first}]
    (second,) = answers(chat, [*turns, {"role": "user", "content": "the plot"}])
    typed(monkeypatch, "a film", "the plot", "", "a film")
    assert plumbline("generate", chat, *GREEDY).out == f"{first}\n{second}\n{first}\n\n"


def test_what_is_typed_into_a_model_without_a_template_is_gone_on_with(
    plumbline: Call, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "a film", "a film")
    assert plumbline("generate", model, *GREEDY).out == f"{answers(model, 'a film')[0]}\n" * 2 + "\n"


def test_a_turn_that_does_not_fit_is_told_and_the_terminal_stays(
    plumbline: Call, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "a film " * 60, "a film")
    found = plumbline("generate", model, *GREEDY)
    assert found.code == 0
    assert "no room for an answer" in found.err
    assert found.out == f"{answers(model, 'a film')[0]}\n\n"


def test_raw_and_system(plumbline: Call, chat: Path) -> None:
    assert plumbline("generate", chat, "a film", "--raw", *GREEDY).out == f"{answers(chat, 'a film', raw=True)[0]}\n"
    told = plumbline("generate", chat, "a film", "--system", "be", *GREEDY).out
    assert told == f"{answers(chat, 'a film', system='be')[0]}\n"


def test_a_seed_draws_the_same_again(plumbline: Call, model: Path) -> None:
    drawn = [plumbline("generate", model, "a", "a", "--temperature", 1, "--seed", seed).out for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("./nothing", "hi"), "./nothing: no such folder"),
        (("nothing@champion", "hi"), "no model is registered as 'nothing'"),
        (("models:/nothing", "hi"), "not a model's address"),
        (("x", "hi", "--temperature", "-1"), "temperature = -1"),
        (("x", "hi", "--max-new-tokens", "0"), "max_new_tokens = 0"),
    ],
)
def test_what_cannot_be_asked_is_one_line(plumbline: Call, arguments: tuple[str, ...], told: str) -> None:
    found = plumbline("generate", *arguments)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert told in found.err
