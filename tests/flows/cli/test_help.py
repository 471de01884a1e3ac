"""The help: commands by what they are for, the usual fields first, a group by its name, whole words at any width."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config, flatten
from alignment.errors import ConfigError
from flows.cli import commands
from flows.cli.commands import COMMANDS
from flows.cli.flags import flag, groups, named_by_flags, overrides, takes
from flows.cli.help import RUNS, USUAL, topics
from flows.cli.pipeline import AXES, axes
from tests.flows.cli.outcome import Outcome
from tests.flows.cli.screen import require_words

Help = Callable[..., str]
CONFIGURED = ("run", "retrain", "sweep", "frontier", "plan", "check")
FLAGS = re.compile(r"^  (--\S+)", re.MULTILINE)


@pytest.fixture
def helped(plumbline_alone: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Help:
    """What a command's help shows at a width."""

    def call(*words: str, width: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        outcome = plumbline_alone(*words)
        assert outcome.code == 0, outcome.err
        assert max(map(len, outcome.out.splitlines())) <= width
        return outcome.out

    return call


def test_commands_stand_in_groups_of_what_they_are_for(helped: Help) -> None:
    text = helped("--help")
    headings = re.findall(r"^(\S.*)$", text[text.index(next(iter(COMMANDS))) :], re.MULTILINE)
    assert headings == [*COMMANDS, "Options"]
    assert re.findall(r"^  ([a-z]\S*)", text, re.MULTILINE) == [name for group in COMMANDS.values() for name in group]


@pytest.mark.parametrize(
    ("command", "width"), [("run", 200), *((name, 80) for group in COMMANDS.values() for name in group)]
)
def test_every_help_fits_with_whole_words(command: str, width: int, helped: Help) -> None:
    text = helped(command, "--help", *(["all"] if command in CONFIGURED else []), width=width)
    require_words(text, commands.app[command].help)
    if command in CONFIGURED:
        for name, info in AlignConfig.model_fields["gates"].annotation.model_fields.items():  # type: ignore[union-attr]
            require_words(text, flag(f"gates.{name}"), str(info.description).replace("`", ""))


@pytest.mark.parametrize("command", CONFIGURED)
def test_the_short_help_has_the_usual_fields_and_names_the_groups(command: str, helped: Help) -> None:
    text = helped(command, "--help")
    usual = {flag(field) for field in USUAL.get(command, RUNS)}
    assert set(FLAGS.findall(text)) & {flag(field) for field in flatten(AlignConfig())} == usual
    assert len(text.splitlines()) < 100
    require_words(text, *(name for name in groups() if "." not in name))


def test_usual_fields_are_fields() -> None:
    fields = flatten(AlignConfig())
    assert set(RUNS) | {field for usual in USUAL.values() for field in usual} <= set(fields)


def test_a_named_group_is_shown_whole_and_alone(helped: Help) -> None:
    found = FLAGS.findall(helped("run", "--help", "dpo"))
    assert [name for name in found if "." in name] == [
        flag(field) for field in flatten(AlignConfig()) if field.startswith("dpo.")
    ]


def test_everything_is_in_the_order_of_the_stages(helped: Help) -> None:
    found = FLAGS.findall(helped("plan", "--help", "all"))
    wanted = [name for group in ("", *groups()) for name in flatten(AlignConfig()) if name.rpartition(".")[0] == group]
    assert [name for name in found if "." in name or name == "--seed"] == [flag(name) for name in wanted]
    within = {"reward": ["reward.judge"], "sampling": ["sampling.endpoint", "sampling.vllm"]}
    fields = list(AlignConfig.model_fields)[1:]
    assert list(groups()) == [name for field in fields for name in (field, *within.get(field, []))]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("run", "--help"), ()),
        (("run", "-h", "dpo", "gates"), ("dpo", "gates")),
        (("run", "--help", "all"), ("all",)),
        (("--help", "run"), ()),
        (("run", "--data.path", "data", "--help"), ()),
        (("run", "--help", "dpo.beta", "dpo.learning-rate", "reward.judge.model"), ("dpo", "reward.judge")),
        (("run", "--help", "seed"), ("",)),
        (("run", "--help", "--data.path", "mine"), ()),
    ],
)
def test_the_words_after_help_name_groups_or_fields_of_them(words: tuple[str, ...], found: tuple[str, ...]) -> None:
    assert topics(words) == (found, ())


def test_a_field_shows_its_group_and_a_group_within_a_group_is_shown_alone(helped: Help) -> None:
    assert helped("run", "--help", "dpo.beta") == helped("run", "--help", "dpo")
    found = FLAGS.findall(helped("run", "--help", "reward.judge"))
    assert {name.rpartition(".")[0] for name in found if "." in name} == {"--reward.judge"}


def test_what_names_nothing_is_said_to_and_the_groups_are_listed(helped: Help) -> None:
    text = helped("run", "--help", "dpo.betta")
    outer = (name for name in groups() if "." not in name)
    require_words(text, "The configuration has no group and no field 'dpo.betta'.", *outer)
    assert "above" not in text.partition("dpo.betta")[2]


def test_a_command_s_own_name_is_no_group_and_its_flags_are_pointed_at(helped: Help) -> None:
    require_words(helped("frontier", "--help", "frontier"), "The flags of `frontier` itself are under Parameters")


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("seed", "int in 0..2,147,483,647"),
        ("dpo.beta", "float above 0, at most 10"),
        ("dpo.label_smoothing", "float at least 0, below 0.5"),
        ("evaluation.confidence", "float above 0.5, below 1"),
        ("gates.min_win_rate", "float in 0..1"),
        ("dpo.optimizer", "one of adamw, rmsprop, adamw_8bit"),
        ("dpo.loss", "one of sigmoid, hinge, ipo, robust, distill"),
        ("sampling.cache", "true or false"),
        ("data.columns", "list"),
        ("reward.judge.extra", "mapping"),
        ("data.path", "text"),
    ],
)
def test_what_a_field_takes_in_words(field: str, told: str) -> None:
    group: Any = AlignConfig
    *path, name = field.split(".")
    for part in path:
        group = group.model_fields[part].annotation
    assert takes(group.model_fields[name]) == told


# Faults


def told(given: dict[str, Any], values: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as raised, named_by_flags(given):
        build_config(values or {}, source="mine.yaml", overrides=given)
    return str(raised.value)


def test_a_value_of_a_flag_is_named_by_the_flag() -> None:
    assert told({"dpo": {"beta": "99"}}).startswith("--dpo.beta 99: input should be less than or equal to 10")
    assert told({"dpo": {"learning_rate": "fast"}}).startswith(
        "--dpo.learning-rate fast: input should be a valid number"
    )


def test_a_value_of_the_file_is_named_by_the_file() -> None:
    found = told({"dpo": {"beta": "99"}}, {"base": {"layers": "0"}})
    assert found.startswith("--dpo.beta 99: ")
    assert "; mine.yaml: base.layers = '0': input should be greater than or equal to 1" in found


def test_of_a_contradiction_the_flag_is_named_by_its_flag_and_the_field_as_in_the_file() -> None:
    found = told({"sampling": {"total_tokens": "500"}}, {"base": {"context": "64"}})
    assert found.startswith("--sampling.total-tokens 500 exceeds base.context = 64: raise base.context")
    assert "mine.yaml" not in found


def test_each_fault_is_kept_by_itself() -> None:
    given = {"dpo": {"beta": "99", "steps": "0"}}
    with pytest.raises(ConfigError) as raised, named_by_flags(given):
        build_config({}, overrides=given)
    assert [fault.message.split(":")[0] for fault in raised.value.faults] == ["--dpo.beta 99", "--dpo.steps 0"]


def test_without_flags_nothing_is_overridden() -> None:
    assert overrides(None) == {}


def test_in_a_terminal_each_fault_has_a_line_and_in_a_pipe_all_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    for terminal, lines in ((True, 3), (False, 1)):
        console = Console(width=60, file=io.StringIO(), force_terminal=terminal, emoji=False, highlight=False)
        monkeypatch.setattr(commands, "make_console", lambda console=console, **_: console)
        commands._complain("first; second", 2, debug=False, faults=["first", "second"])
        assert len(console.file.getvalue().splitlines()) == lines  # type: ignore[attr-defined]


def test_a_sweep_takes_several_values_behind_one_flag_and_varies_no_field_that_a_flag_sets(plumbline: Any) -> None:
    """Both end before anything is computed: the one for its value, the other for the contradiction."""
    out_of_bounds = plumbline("sweep", "--config", "tiny", "--betas", "0.3", "99")
    assert (out_of_bounds.code, "betas.1 = 99.0" in out_of_bounds.err) == (2, True)
    both = plumbline("sweep", "--config", "tiny", "--dpo.beta", "0.1", "--betas", "0.3")
    assert (both.code, "--dpo.beta 0.1 and --betas both say what to try" in both.err) == (2, True)
    assert axes({"dpo": {"beta": "0.1"}}, AXES, losses=None, betas=None, learning_rates=None) == {
        "losses": None,
        "betas": ["0.1"],
        "learning_rates": None,
    }


def test_a_frontier_refuses_before_it_begins_what_it_could_not_measure(plumbline: Any) -> None:
    out_of_bounds = plumbline("frontier", "--config", "tiny", "--betas", "0.3", "99")
    assert (out_of_bounds.code, "betas.1 = 99.0" in out_of_bounds.err) == (2, True)
    cool = plumbline("frontier", "--config", "tiny", "--sampling.temperature", "0.7")
    assert (cool.code, "sampling.temperature = 0.7: the KL of a policy is measured on" in cool.err) == (2, True)
    both = plumbline("frontier", "--config", "tiny", "--dpo.loss", "ipo", "--losses", "hinge")
    assert (both.code, "--dpo.loss ipo and --losses both say what to try" in both.err) == (2, True)


def test_a_word_too_many_is_named(plumbline: Any) -> None:
    found = plumbline("run", "--config", "tiny", "extra")
    assert (found.code, found.err) == (2, "plumbline: extra: not expected there; --help says what the command takes\n")
