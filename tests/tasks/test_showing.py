"""What a run found, on its page: nothing wider than the page, the verdict first, and a picture that needs no server."""

from pathlib import Path
from typing import Any

from alignment.judging.report import Judgement, SampleRow
from tasks.showing import checks_markdown, data_uri, linked, result_markdown
from tests.registered import report

JUDGED = Judgement(verdict="fail", sentence="Refused: win rate 0.40 is below 0.55", gates=())
ROW = SampleRow(
    prompt="we saw", base="we saw it | twice", base_reward=0.1, aligned="we saw it, gladly", aligned_reward=1
)


def result(**given: Any) -> str:
    wanted: dict[str, Any] = {
        "registered": "",
        "links": {"Full report": "http://127.0.0.1:5000/#/report"},
        "pictures": [],
        "samples": [ROW],
    }
    return result_markdown(report(), JUDGED, **(wanted | given))


def test_the_verdict_its_sentence_and_the_few_figures_come_first() -> None:
    lines = [line for line in result().splitlines() if line]
    assert lines[:2] == ["# Refused", "Refused: win rate 0.40 is below 0.55"]
    assert lines[2].startswith("- reward gain: **")
    assert "[Full report](http://127.0.0.1:5000/#/report)" in lines


def test_no_table_runs_over_the_edge_and_both_texts_stand_below_their_prompt() -> None:
    text = result()
    assert "| ---" not in text
    assert "- we saw\n  - +0.10 before: we saw it \\| twice\n  - +1.00 after: we saw it, gladly" in text


def test_a_picture_is_in_the_artifact_itself(tmp_path: Path) -> None:
    picture = tmp_path / "rewards.png"
    picture.write_bytes(b"\x89PNG")
    assert data_uri(picture) == "data:image/png;base64,iVBORw=="
    assert "![rewards before and after](data:image/png;base64,iVBORw==)" in result(pictures=[picture])


def test_a_page_that_no_server_shows_is_a_command() -> None:
    assert linked("Run", "https://mlflow.example/#/run") == "[Run](https://mlflow.example/#/run)"
    assert linked("Run", "mlflow ui, then http://127.0.0.1:5000") == "Run: `mlflow ui, then http://127.0.0.1:5000`"


def check(name: str, scope: str, **given: Any) -> dict[str, Any]:
    bound = "at most validation.max_quarantined = 0.3"
    return {"name": name, "scope": scope, "bound": bound, "observed": 0.0039, "passed": True, "not_applied": ""} | given


def test_checks_that_failed_come_first_and_those_of_the_whole_set_before_those_of_pairs() -> None:
    found = {
        "problem": "accepted pairs 3, must be at least 9",
        "checks": [
            check("finite_scores", "row", not_applied="no scores"),
            check("length_ratio", "row", passed=False, observed=2.0, bound="at least a = 1 and at most b = 4"),
            check("quarantined_fraction", "set"),
            check("accepted_pairs", "set", passed=False, observed=3.0, bound="at least validation.min_pairs = 9"),
        ],
    }
    lines = [line for line in checks_markdown(found, "3 pairs accepted, 1 quarantined").splitlines() if line]
    assert lines == [
        "# The pairs are not fit to train on",
        "**accepted pairs 3, must be at least 9**",
        "3 pairs accepted, 1 quarantined.",
        "## The whole set",
        "| Check |  | Observed | Bound |",
        "| --- | --- | --- | --- |",
        "| accepted pairs | FAILED | 3 | ≥ min_pairs = 9 |",
        "| quarantined fraction | passed | 0.0039 | ≤ max_quarantined = 0.3 |",
        "## Single pairs",
        "| Check |  | Pairs set apart | Bound |",
        "| --- | --- | --- | --- |",
        "| length ratio | FAILED | 2 | ≥ a = 1, ≤ b = 4 |",
        "| finite scores | not applied |   | no scores |",
    ]
