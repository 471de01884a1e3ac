"""The reward `function`: called as TRL's trainer calls it, and refused in one line where it does not keep to that."""

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from alignment.config import build_config
from alignment.errors import ConfigError, ScoreError
from alignment.kinds import REWARD_MODELS, REWARDS
from alignment.rewards.checking import score
from alignment.rewards.function import arguments
from alignment.rewards.protocol import Scoring
from alignment.stages.job import Job

PLAIN: list[dict[str, Any]] = [
    {"prompt": "a", "text": "ab", "completion": "b", "ids": [5], "messages": [], "columns": {"solution": "b"}},
    {"prompt": "c", "text": "cde", "completion": "de", "ids": [6, 7], "messages": [], "columns": {"solution": "x"}},
    {"prompt": "f", "text": "f", "completion": "", "ids": [], "messages": [], "columns": {"solution": None}},
]
TURN = [{"role": "user", "content": "hello"}]
CHATS: list[dict[str, Any]] = [sample | {"messages": TURN} for sample in PLAIN]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`run(source)`: the scores by the function of a file of this source."""
    monkeypatch.chdir(tmp_path)

    def scored(source: str, samples: Any = PLAIN, name: str = "rule.py", **reward: Any) -> list[float | None]:
        (tmp_path / "rule.py").write_text(source, encoding="utf-8")
        config = build_config({"reward": {"kind": "function", "function": name} | reward})
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        REWARD_MODELS.get("function")(Job(config, {}, out, out, out))
        return list(score(REWARDS.get("function")(config), samples, Scoring(out, out)).values)

    return scored


def as_trl_calls(function: Callable[..., Any], inputs: list[dict[str, Any]], chats: bool) -> dict[str, Any]:
    """What TRL's own GRPOTrainer passes the function for these rows and completions."""
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from trl import GRPOTrainer

    seen: dict[str, Any] = {}

    @functools.wraps(function)
    def spy(**given: Any) -> list[float]:
        seen.update(given)
        return [0.0] * len(inputs)

    trainer = object.__new__(GRPOTrainer)
    trainer.accelerator = Accelerator(cpu=True)
    trainer.model = torch.nn.Linear(1, 1)
    trainer.reward_funcs, trainer.reward_processing_classes, trainer.reward_func_names = [spy], [None], ["spy"]
    trainer.state, trainer.environments = SimpleNamespace(global_step=0), None
    trainer.args = SimpleNamespace(report_to=[])
    prompts = [TURN if chats else row["prompt"] for row in inputs]
    completions = [
        [{"role": "assistant", "content": row["completion"]}] if chats else row["completion"] for row in inputs
    ]
    rows = [{"prompt": prompt, **row["columns"]} for prompt, row in zip(prompts, inputs, strict=True)]
    trainer._calculate_rewards(rows, prompts, completions, [row["ids"] for row in inputs])
    return seen


# TRL's calling convention


@pytest.mark.parametrize("chats", [False, True], ids=["plain", "chats"])
def test_the_arguments_are_those_that_trl_passes(chats: bool) -> None:
    def takes_all(**given: Any) -> list[float]:
        return []

    expected = as_trl_calls(takes_all, PLAIN, chats)
    found = arguments(takes_all, CHATS if chats else PLAIN)
    assert found.keys() == expected.keys() - {"trainer_state"}
    assert all(found[name] == expected[name] for name in ("prompts", "completions", "completion_ids", "solution"))


def test_a_function_that_takes_all_or_some_of_them_works_unchanged(run: Any) -> None:
    whole = "def reward(prompts, completions, completion_ids, **kwargs):\n    return [len(c) for c in completion_ids]\n"
    some = "def reward(completions, solution):\n    return [float(c == s) for c, s in zip(completions, solution)]\n"
    state = (
        "def reward(completions, trainer_state):\n    return [trainer_state.global_step + 1.0 for _ in completions]\n"
    )
    logs = (
        "def reward(completions, log_extra, log_metric, **kwargs):\n"
        "    log_extra('length', [1]); log_metric('mean', 0.5)\n    return [0.0 for _ in completions]\n"
    )
    assert run(whole) == [1.0, 2.0, 0.0]
    assert run(some) == [1.0, 0.0, 0.0]
    assert run(state) == [1.0, 1.0, 1.0]
    assert run(logs) == [0.0, 0.0, 0.0]


def test_of_a_chat_the_prompt_is_its_messages_and_the_completion_an_assistants_message(run: Any) -> None:
    source = (
        "def reward(prompts, completions, **kwargs):\n"
        "    assert prompts[0][-1]['content'] == 'hello' and completions[0][0]['role'] == 'assistant'\n"
        "    return [len(c[0]['content']) for c in completions]\n"
    )
    assert run(source, CHATS) == [1.0, 2.0, 0.0]


def test_chats_and_plain_prompts_come_in_calls_of_their_own(run: Any) -> None:
    source = "def reward(prompts, **kwargs):\n    return [2.0 if isinstance(p, list) else 1.0 for p in prompts]\n"
    assert run(source, [CHATS[0], PLAIN[1], CHATS[2]]) == [2.0, 1.0, 2.0]


def test_none_is_no_score_and_numbers_of_every_kind_are_numbers(run: Any) -> None:
    assert run("def reward(**_):\n    return [None, True, 2]\n") == [None, 1.0, 2.0]
    for made in (np.array([1, 2, 3]), torch.tensor([1.0, 2.0, 3.0])):
        module = type(made).__module__.partition(".")[0]
        assert run(f"import {module}\ndef reward(**_):\n    return {module}.arange(1, 4)\n") == [1.0, 2.0, 3.0]


def test_async_functions_share_one_event_loop(run: Any) -> None:
    source = (
        "import asyncio\nLOOPS = set()\n"
        "async def reward(completions, **kwargs):\n    await asyncio.sleep(0)\n"
        "    LOOPS.add(asyncio.get_running_loop())\n    assert len(LOOPS) == 1\n"
        "    return [float(len(c)) for c in completions]\n"
    )
    assert run(source, batch_size=1) == [1.0, 2.0, 0.0]


def test_an_async_function_runs_where_another_event_loop_does(run: Any) -> None:
    source = "async def reward(completions, **kwargs):\n    return [float(len(c)) for c in completions]\n"

    async def in_a_notebook() -> Any:  # whose own loop is running
        return run(source)

    assert asyncio.run(in_a_notebook()) == [1.0, 2.0, 0.0]


def test_an_object_with_an_async_call_is_awaited(run: Any) -> None:
    source = "class Rule:\n    async def __call__(self, completions, **_):\n        return [1.0] * len(completions)\n"
    assert run(source + "reward = Rule()\n") == [1.0, 1.0, 1.0]


def test_it_is_called_with_at_most_a_batch(run: Any) -> None:
    assert run("def reward(completions, **_):\n    return [len(completions)] * len(completions)\n", batch_size=2) == [
        2.0,
        2.0,
        1.0,
    ]


# What is refused


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "raise KeyError('x')",
            r"raised KeyError: 'x'; it was called with samples 1 to 3, the first of them 'b'; --debug",
        ),
        ("return [1.0]", r"gave 1 scores for 3 samples; it has to return a list with one for each, in their order"),
        ("return [1.0] * 4", r"gave 4 scores for 3 samples"),
        ("return 1.0", r"raised TypeError: 'float' object is not iterable"),
        ("return None", r"raised TypeError: 'NoneType' object is not iterable"),
        ("return [0.0, 'high', 1.0]", r"gave 'high' for 'de'; it has to give a number, or None for a sample that it"),
        ("return [0.0, '1.5', 1.0]", r"gave '1.5' for 'de'"),
        ("return [0.0, [1], 1.0]", r"gave \[1\] for 'de'"),
    ],
)
def test_a_function_that_does_not_keep_to_it_is_named(run: Any, body: str, message: str) -> None:
    with pytest.raises(ScoreError, match=rf"^reward\.function rule\.py: {message}"):
        run(f"def reward(**_):\n    {body}\n")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_score_that_is_not_finite_is_refused_with_its_text(run: Any, value: str) -> None:
    with pytest.raises(ScoreError, match=r"1 of 3 scores are not finite, the first for 'cde'"):
        run(f"def reward(**_):\n    return [0.0, float('{value}'), 0.0]\n")


def test_a_column_that_no_row_has_is_refused_with_the_field_that_names_it(run: Any) -> None:
    message = (
        r"^reward\.function rule\.py: takes `answer`, which no row has; name that column in data\.columns, or give"
    )
    with pytest.raises(ConfigError, match=message):
        run("def reward(completions, answer):\n    return answer\n")
    assert run("def reward(completions, answer=None):\n    return [0.0] * len(completions)\n") == [0.0] * 3


def test_a_file_that_was_changed_since_the_run_began_is_refused(run: Any, tmp_path: Path) -> None:
    run("def reward(**_):\n    return [0.0] * 3\n")
    (tmp_path / "rule.py").write_text("def reward(**_):\n    return [1.0] * 3\n", encoding="utf-8")
    config = build_config({"reward": {"kind": "function", "function": "rule.py"}})
    with pytest.raises(ScoreError, match=r"rule\.py: the file, or a module that it imports, was changed since the run"):
        REWARDS.get("function")(config).score(PLAIN, Scoring(tmp_path / "out", tmp_path))
