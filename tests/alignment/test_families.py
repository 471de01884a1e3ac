"""The table in docs/models.md is what tiny random models of each family do; `make tables` writes it."""

import os
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import pytest
import torch

from tests.alignment.architectures import EOS, build
from tests.alignment.families import (
    EXPERTS,
    FAMILIES,
    HYBRID,
    PAGE,
    STATE,
    TITLES,
    WINDOW,
    Found,
    alike,
    block,
    find,
    rows,
    table,
    written,
)
from tests.alignment.training.small import make_config, make_pairs, train

TABLES = os.environ.get("PLUMBLINE_TABLES", "")
"""A folder with the page, to write what was found into."""
QUICK = {"gemma2", "lfm2", "mamba2"}
"""One of each kind, for the ordinary run."""


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Found]]:
    """What the tests find, by family; written into the page where that was asked for and every family was looked at."""
    found: dict[str, Found] = {}
    yield found
    if TABLES and set(found) == set(FAMILIES):
        page = Path(TABLES) / PAGE.name
        text = page.read_text("utf-8")
        page.write_text(text.replace(block(text), table({kind: found[kind] for kind in FAMILIES})), "utf-8")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.full) for kind in FAMILIES]
)
def test_a_family_does_what_the_page_says(kind: str, found: dict[str, Found], tmp_path: Path) -> None:
    found[kind] = row = find(kind, tmp_path)
    if TABLES:
        return
    cache, samples, logprobs, *works = astuple(row)
    page = written()[kind]
    assert (cache, *works) == (page.cache, page.trains, page.lora, page.registers, page.serves)
    assert alike(samples, page.samples)
    assert alike(logprobs, page.logprobs)


def test_the_page_has_a_row_for_each_family_and_tells_its_kind() -> None:
    title, *others = rows()
    assert title == list(TITLES)
    assert {row[1].strip("`"): (row[0], row[2]) for row in others} == FAMILIES
    assert [row[1].strip("`") for row in others] == list(FAMILIES)


def test_the_families_are_of_every_kind() -> None:
    assert len(FAMILIES) >= 16
    kinds = [layers for _, layers in FAMILIES.values()]
    for kind in (WINDOW, HYBRID, STATE):
        assert sum(layers.startswith(kind) for layers in kinds) >= 3
    assert sum(layers.endswith(EXPERTS) for layers in kinds) >= 3


def test_the_router_s_loss_is_no_part_of_the_objective(tmp_path: Path) -> None:
    """Whatever the model's config asks for, the weights come out the same."""
    asked, unasked = (build("mixtral", eos_token_id=EOS, output_router_logits=each) for each in (True, False))
    pairs = make_pairs(unasked, 4)
    config = make_config(steps=2, warmup_steps=0)
    outcomes = [train(model, pairs, config, tmp_path / name) for name, model in (("a", asked), ("b", unasked))]
    assert outcomes[0] == outcomes[1]
    for one, two in zip(asked.parameters(), unasked.parameters(), strict=True):
        assert torch.equal(one, two)
