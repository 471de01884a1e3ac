"""Names of runs: what Prefect made up gives way to what the run does, and what a person typed is kept."""

import pytest
from prefect.utilities.names import generate_slug

from tasks.run_names import fill, form_words, is_of_form, is_of_server, name_run


def test_a_name_of_prefect_s_server_is_made_up() -> None:
    assert all(is_of_server(generate_slug(2)) for _ in range(200))


@pytest.mark.parametrize("name", ["alpha-orionis", "beta2-canis-majoris-void", "omega937-newton-b", "pi-sirius"])
def test_a_name_that_prefect_s_form_fills_in_is_made_up(name: str) -> None:
    assert is_of_form(name)


@pytest.mark.parametrize(
    "name", ["beta-sweep", "happy-dataset", "my run", "orionis", "alpha", "", "small: hinge, beta 0.5, lr 0.0003"]
)
def test_a_name_that_a_person_typed_is_not(name: str) -> None:
    assert not is_of_server(name)
    assert not is_of_form(name)


def test_the_installed_prefect_lists_the_words_of_its_form() -> None:
    stars, endings = form_words()
    assert {"orionis", "canis-majoris"} <= stars
    assert "nebula" in endings


def test_outside_of_a_run_nothing_is_named() -> None:
    assert name_run("small") == ""


def test_a_template_is_filled_with_parameters() -> None:
    assert fill("promote {model_name}", {"model_name": "small", "version": 3}) == "promote small"
