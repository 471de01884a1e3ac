"""What a run's description in MLflow says: how it stands or ended, why, what to do, and where to look."""

import pytest

from alignment.errors import ValidationError
from tasks.registry import notes
from tests.reports import make_report
from tests.tasks.registry.judged import JUDGEMENT

LINKS = {"Prefect": "http://127.0.0.1:4200/runs/flow-run/1", "report": ""}
HEAD = " · [Prefect](http://127.0.0.1:4200/runs/flow-run/1)\n\n"


def test_the_first_line_has_the_state_and_every_link_that_there_is() -> None:
    """MLflow shows five lines of a description and folds the rest away."""
    assert notes.running(LINKS) == f"**Running**{HEAD}Its result will stand here."
    assert notes.running({}) == "**Running**\n\nIts result will stand here."


def test_a_refused_run_says_why_its_figures_and_what_the_failed_gates_mean() -> None:
    told = notes.result(make_report(delta={"kl_per_token": 0.31}), JUDGEMENT)
    text = notes.concluded("refused", JUDGEMENT.sentence, told, LINKS)
    assert text.startswith(f"**Refused**{HEAD}Refused: KL per token 0.31 exceeds 0.2.\n\n- reward gain: ")
    assert "- KL from the base, nats per token: 0.310" in text
    assert text.endswith("What the failed gates mean:\n\n- kl per token: y")


def test_an_error_of_ours_is_quoted_whole_and_says_the_way_out() -> None:
    message = f"validation: 25 pairs are too few, validation.min_pairs = 400\nlook at <{'x' * 300} {'y' * 300}>"
    text = notes.failed(ValidationError(message), LINKS)
    first = "> validation: 25 pairs are too few, validation.min_pairs = 400\n> look at &lt;"
    assert text.startswith(f"**Failed**{HEAD}{first}")
    assert "y" * 300 in text
    assert text.endswith("then start the same run again: the stages that were finished are not computed again.")
    assert "the log" not in text


@pytest.mark.parametrize(
    ("error", "quoted"), [(RuntimeError("CUDA error"), "> CUDA error"), (MemoryError(), "> MemoryError")]
)
def test_another_error_names_its_kind_and_the_log(error: BaseException, quoted: str) -> None:
    text = notes.failed(error, LINKS)
    assert f"It ended with {type(error).__name__}, and the log says where:\n\n{quoted}\n\nMend the cause" in text


def test_a_password_in_an_address_is_not_shown() -> None:
    text = notes.failed(RuntimeError("http://ann:secret@example.org refused"), {})
    assert "secret" not in text
    assert "http://example.org refused" in text


def test_a_stopped_a_skipped_and_a_lost_run_say_that() -> None:
    assert notes.cancelled(LINKS).startswith(f"**Cancelled**{HEAD}Somebody stopped it.")
    assert notes.skipped("nothing new to learn from", LINKS) == f"**Skipped**{HEAD}nothing new to learn from"
    assert notes.lost("Its process 7 died", {}).startswith("**Failed**\n\nIts process 7 died. The stages")
