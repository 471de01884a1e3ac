"""The page of a run: whole, within its size, without a network, and with every text of a model as a text."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config, flatten
from alignment.errors import InputError
from alignment.judging import sections
from alignment.judging.beside import incomparable
from alignment.judging.differences import Difference, differences
from alignment.judging.gates import judge
from alignment.judging.page import MAX_BYTES, compare_page, report_page
from alignment.judging.report import EvalReport, Preferences, SampleRow
from alignment.judging.sections import Run
from alignment.stages.store import StageRef
from tests.reports import make_report

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'&<b>"
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """The elements with their attributes, and the text outside of scripts and style sheets; tags have to match."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """Everything that is read, on one line."""
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of one kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def row(number: int, **changes: Any) -> SampleRow:
    text = f"film {number}"
    return SampleRow(
        **{
            "prompt": text,
            "base": f"{text} was bad",
            "base_reward": -1.0,
            "aligned": f"{text} was a joy",
            "aligned_reward": number / 10,
            "prompt_ids": (number, 7),
        }
        | changes
    )


def ref(stage: str, **counts: int) -> StageRef:
    return StageRef(stage=stage, key="k", path=Path(), digest=f"{stage}0123456789ab", counts=counts, seconds=1.5)


def make_run(found: EvalReport | None = None, **changes: Any) -> Run:
    found = found or make_report()
    config = build_config({"dpo": {"beta": 0.25}})
    run = Run(
        id="0123456789abcdef0123456789abcdef",
        name="hinge, beta 0.25",
        report=found,
        judgement=judge(found, config.gates),
        started=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        seconds=3_725.0,
        samples=[row(number) for number in range(12)],
        curves={"loss": [(1, 0.7), (2, 0.5)], "rewards/margin": [(1, 0.0), (2, 1.0)]},
        stages={
            "pairs": ref("pairs", built=40, candidates=44, ties=4),
            "validation": ref("validation", pairs=40, accepted=37, quarantined=3),
        },
        settings=flatten(config),
        defaults=flatten(AlignConfig()),
        checks=[
            {
                "name": "score_gap",
                "scope": "row",
                "severity": "warning",
                "observed": 3.0,
                "bound": "at least 1",
                "passed": False,
                "failed_rows": 3,
                "not_applied": "",
            }
        ],
        drawn={
            "gaps": {"edges": [0.0, 1.0, 2.0], "counts": {"pairs": [30, 7]}, "means": {"pairs": 0.7}},
            "broken": {"score gap": 2, "score gap, not blank": 1},
            "libraries": {"torch": "2.13.0"},
        },
        links=[("The run in MLflow", "http://127.0.0.1:5000/#/runs/1")],
    )
    return replace(run, **changes)


def test_a_page_says_what_became_of_the_run() -> None:
    run = make_run()
    page = Page(report_page(run))
    assert run.judgement.sentence in page.text
    assert "Passed" in page.text
    assert "+1.50 +1.40 to +1.60" in page.text, "the gain with its interval"
    assert "1 h 2 min" in page.text
    assert all(gate.why in page.text for gate in run.judgement.gates)
    assert "1 of 148 fields differs from the defaults. Field This run Default dpo.beta 0.25 0.5" in re.sub(
        r"1 of \d+ fields", "1 of 148 fields", page.text
    )


def test_a_refused_run_shows_the_gates_that_refused_it_first() -> None:
    page = Page(report_page(make_run(make_report(delta={"kl_per_token": 0.9, "perplexity_ratio": 3.0}))))
    assert "Refused Not registered: perplexity ratio 3.00" in page.text
    gates = [each["class"] for each in page.all("tr") if each.get("class") in {"refused", "passed"}]
    assert gates == sorted(gates, reverse=True)
    assert gates.count("refused") == 2


def test_counts_of_pairs_sum() -> None:
    page = Page(report_page(make_run()))
    assert "40 built = 37 accepted + 3 quarantined" in page.text
    assert "How they were made: 40 built, 44 candidates, 4 ties." in page.text
    assert "score gap 2 score gap, not blank 1" in page.text, "which are three"


def test_nothing_is_loaded_and_only_its_own_script_and_style_may_run() -> None:
    source = report_page(make_run())
    page = Page(source)
    for tag, attributes in page.elements:
        assert not attributes.keys() & {"src", "style", "onclick", "onload", "action"}, tag
        assert attributes.get("href", "data:").startswith(("#", "data:")) or tag == "a"
    assert "url(" not in source
    assert "@import" not in source
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for part in ("style", "script"):
        assert source.count(f"<{part}>") == 1
        inside = source.split(f"<{part}>")[1].split(f"</{part}>")[0]
        assert f"{part}-src 'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" in policy


def test_what_a_model_or_a_person_wrote_is_a_text() -> None:
    calm = report_page(make_run())
    checks = [{**make_run().checks[0], "name": EVIL, "bound": EVIL, "not_applied": EVIL}]
    run = make_run(
        name=EVIL,
        model=EVIL,
        samples=[row(0, prompt=EVIL, base=EVIL + EVIL, aligned=f"{EVIL} {EVIL}"), *map(row, range(1, 12))],
        settings={EVIL: EVIL},
        checks=checks,
        drawn={"broken": {EVIL: 3}, "libraries": {EVIL: EVIL}, "gaps": make_run().drawn["gaps"]},
        links=[(EVIL, EVIL), ("a link", "javascript:alert(1)"), ("another", f"http://host/{EVIL}")],
        stages={EVIL: ref("pairs", **{EVIL: 3})},
    )
    page = Page(report_page(run))
    assert len(page.all("script")) == len(Page(calm).all("script")) == 1
    assert not page.all("img")
    assert " ".join(EVIL.split()) in page.text
    assert [each["href"] for each in page.all("a") if not each["href"].startswith("#")] == []
    chat = row(1, messages=json.dumps([{"role": EVIL, "content": EVIL}, {"role": "user", "content": EVIL}]))
    assert len(Page(report_page(make_run(samples=[chat]))).all("script")) == 1


def test_an_old_record_is_shown_as_far_as_it_goes() -> None:
    page = Page(
        report_page(
            make_run(
                samples=(), curves={}, stages={}, settings={}, checks=(), drawn={}, links=(), started=None, seconds=None
            )
        )
    )
    for missing in (
        "no training curves",
        "does not say how many pairs",
        "no distributions of scores",
        "no checks of the pairs",
        "no sample texts",
        "no lineage",
        "no settings",
    ):
        assert missing in page.text, missing


def test_without_the_counts_of_broken_checks_a_page_says_that_they_may_overlap() -> None:
    page = Page(report_page(make_run(drawn={})))
    assert "A pair may break several checks" in page.text
    assert "score gap 3" in page.text


def test_texts_that_a_page_has_no_room_for_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counted(before: str, after: str) -> Difference:
        compared.append(after)
        return differences(before, after)

    monkeypatch.setattr(sections, "differences", counted)
    rows = [row(number, base="dull " * 600, aligned="joy " * 750) for number in range(700)]
    shown = Page(report_page(make_run(samples=rows))).all("article")
    assert len([each for each in shown if each["class"] == "sample"]) <= len(compared) <= MAX_BYTES // 6_000


def test_a_page_has_room_for_the_first_samples_alone_and_says_so() -> None:
    rows = [row(number, base=f"film {number} " + "dull " * 700, aligned="joy " * 900) for number in range(700)]
    source = report_page(make_run(samples=rows))
    page = Page(source)
    shown = len([each for each in page.all("article") if each["class"] == "sample"])
    assert MAX_BYTES / 2 < len(source.encode()) <= MAX_BYTES
    assert 10 < shown < 700
    assert f"; the first {shown} of these are shown, as many as keep this file below 2 MB" in page.text


def test_a_very_long_text_is_cut_and_says_by_how_much() -> None:
    page = Page(report_page(make_run(samples=[row(0, aligned="x" * 4_321)])))
    assert "… 321 characters more" in page.text


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), None])
def test_a_score_that_is_none_orders_nothing(reward: float | None) -> None:
    page = Page(report_page(make_run(samples=[row(0, aligned_reward=reward), row(1)])))
    assert [each["data-gain"] for each in page.all("article")] == ["", "1.1"]


def test_without_a_reward_the_page_tells_of_pairs() -> None:
    preferences = Preferences(
        pairs=80, left_out=0, accuracy=0.8, accuracy_ci=(0.7, 0.9), margin=1.2, margin_ci=(0.5, 1.9)
    )
    names = ("reward_gain", "reward_gain_ci", "win_rate", "win_rate_ci", "reward_sd_ratio", "reward_gain_in_sd")
    found = make_report(
        compared=0,
        winners_mean=None,
        preferences=preferences,
        base={"reward_mean": None, "reward_sd": None},
        aligned={"reward_mean": None, "reward_sd": None},
        delta=dict.fromkeys(names),
    )
    page = Page(report_page(make_run(found)))
    assert "accuracy on held-out pairs 80.0%" in page.text
    assert "not applied" in page.text


def test_two_runs_stand_beside_each_other() -> None:
    other = make_run(
        make_report(delta={"reward_gain": 2.0, "kl_per_token": 0.9}),
        id="f" * 32,
        name="sigmoid",
        samples=[row(number) for number in range(6, 20)],
        settings=flatten(build_config({"dpo": {"beta": 0.1}})),
    )
    page = Page(compare_page(make_run(), other))
    assert "Settings that differ Field A B dpo.beta 0.25 0.1" in page.text
    assert "6 samples are in both records" in page.text
    assert len(page.all("article")) == 6
    assert [each["class"] for each in page.all("polyline")] == ["one", "two"] * 2
    assert "KL per token 0.05 ≤ 0.2 passed 0.9 ≤ 0.2 refused" in page.text
    assert "Read with care" not in page.text


def test_a_run_is_not_compared_with_itself() -> None:
    with pytest.raises(InputError, match="name two different"):
        compare_page(make_run(), make_run())


def test_what_does_not_compare_is_said() -> None:
    one = make_run(stages={name: ref(name) for name in ("reward", "base", "prompts")})
    assert incomparable(one, one) == []
    for stage, word in (
        ("reward", "different rewards"),
        ("base", "base models differ"),
        ("prompts", "They may have been judged on different held-out prompts"),
    ):
        two = replace(one, stages={**one.stages, stage: ref("another")})
        (told,) = incomparable(one, two)
        assert word in told
        assert told in Page(compare_page(one, replace(two, id="f" * 32))).text
    (told,) = incomparable(one, replace(one, settings={**one.settings, "sampling.temperature": 0.5}))
    assert "sampling.temperature" in told


def test_held_out_prompts_are_compared_and_not_those_of_the_training() -> None:
    """Runs that differ in how many prompts they train on are judged on the same ones."""
    rows = [row(number) for number in range(3)]
    one = make_run(make_report(prompts=3), samples=rows, stages={"prompts": ref("prompts")})
    trained_on_more = replace(one, stages={"prompts": ref("others")})
    assert incomparable(one, trained_on_more) == []
    different = "They were judged on different held-out prompts"
    (told,) = incomparable(one, replace(trained_on_more, samples=[*rows[:2], row(7)]))
    assert told.startswith(different)
    (told,) = incomparable(one, replace(trained_on_more, report=make_report(prompts=4)))
    assert told.startswith(different)


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), None])
def test_beside_each_other_a_score_that_is_none_orders_nothing(reward: float | None) -> None:
    other = make_run(id="f" * 32, samples=[row(0, aligned_reward=reward), row(1)])
    page = Page(compare_page(make_run(), other))
    assert [each["data-gain"] for each in page.all("article")] == ["", "0.0"]
    assert "nan" not in page.text


def test_without_lineage_the_settings_say_what_does_not_compare() -> None:
    one = make_run(stages={})
    (told,) = incomparable(one, replace(one, settings={**one.settings, "reward.kind": "function"}))
    assert "different rewards" in told
