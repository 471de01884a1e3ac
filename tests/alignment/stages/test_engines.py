"""Engines other than `local`: which stages they draw for, what of them is in a key, and what is computed again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment.config import build_config, merge
from alignment.config.policy import common_random_numbers, for_any_model, has_exact_logprobs
from alignment.errors import EndpointError, ModelError
from alignment.judging.report import Engines, EvalReport
from alignment.models import load_base
from alignment.rows import EVALUATED, MODEL, REFERENCED, REPORT, SAMPLES, SCORES
from alignment.sampling import outside
from alignment.stages.report import engines_of
from tasks.pipeline import STAGES
from tests.alignment.chain import Chain, config, keys
from tests.alignment.sampling.served import Server, serving

NAMED = {"base_url": "http://127.0.0.1:9/v1", "model": "tiny", "version": "0.33.0"}
"""A server that need not run to be in a key."""


def by_endpoint(**changes: Any) -> Any:
    return config(sampling={"engine": "endpoint", "endpoint": NAMED | changes})


@pytest.fixture
def server(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that has the chain's base model."""
    monkeypatch.setattr(outside, "KNOWN_FOR", 0.0)
    with serving(Server(load_base(chain.folders["base"] / MODEL), context=64)) as served:
        yield served


def test_an_engine_that_serves_one_model_leaves_an_evaluation_to_local() -> None:
    sampling = by_endpoint().sampling
    assert for_any_model(sampling).engine == "local"
    assert for_any_model(sampling) == sampling.model_copy(update={"engine": "local"})
    assert common_random_numbers(sampling)  # of the two models that are compared
    offline = config(sampling={"engine": "vllm"}).sampling
    assert for_any_model(offline) is offline
    assert not common_random_numbers(offline)
    assert [has_exact_logprobs(each) for each in (sampling, offline, config().sampling)] == [False, False, True]


def read(**changes: Any) -> Any:
    """What the key of the training samples has of the configuration."""
    return STAGES["samples"].reads(by_endpoint(**changes))


def test_the_key_has_what_decides_the_samples_and_neither_where_nor_how_fast_they_are_drawn() -> None:
    before = STAGES["before"]
    assert before.reads(config()) == before.reads(by_endpoint())  # so that these are not drawn again
    assert list(before.uses(config())) == list(before.uses(by_endpoint()))
    assert read()["sampling"]["engine_version"] == {"server": "vllm", "model": "tiny", "version": "0.33.0"}
    for same in ({"base_url": "http://elsewhere/v1"}, {"concurrency": 3}, {"timeout": 1}, {"max_difference": 1}):
        assert read(**same) == read()
    for other in ({"version": "0.34.0"}, {"model": "tiny-fp8"}, {"server": "sglang"}):
        assert read(**other) != read()


def test_fields_of_an_engine_that_was_not_chosen_are_in_no_key() -> None:
    assert STAGES["samples"].reads(config(sampling={"endpoint": NAMED})) == STAGES["samples"].reads(config())


def test_a_server_s_own_version_is_in_the_key(server: Server) -> None:
    asked = {"base_url": server.url, "model": "", "version": ""}
    assert read(**asked) == read()
    server.about["/version"] = {"version": "0.34.0"}
    assert read(**asked) == read(version="0.34.0")


def test_without_its_version_a_server_that_is_down_leaves_no_key() -> None:
    with pytest.raises(EndpointError, match=r"could not be reached .*; start it, or .* sampling.endpoint.version say"):
        keys(by_endpoint(version=""))


def test_a_plan_says_who_draws() -> None:
    assert STAGES["samples"].makes(by_endpoint()).endswith("samples, drawn by endpoint")
    assert STAGES["before"].makes(by_endpoint()) == STAGES["before"].makes(config())
    assert STAGES["before"].makes(config(sampling={"engine": "vllm"})).endswith("scored, drawn by vllm")


def test_a_server_draws_the_training_samples_and_their_log_probs_are_computed_again(
    chain: Chain, server: Server, tmp_path: Path
) -> None:
    served = chain.other(tmp_path, sampling={"engine": "endpoint", "endpoint": {"base_url": server.url}})
    for name in ("samples", "scores", "pairs", "validation", "reference"):
        served.folders[name] = served.run(name)
    rows = SAMPLES.read(served.folders["samples"])
    own = SAMPLES.read(chain.folders["samples"])
    assert [(row["prompt_id"], row["index"]) for row in rows] == [(row["prompt_id"], row["index"]) for row in own]
    assert [row["ids"] for row in rows] != [row["ids"] for row in own]
    assert {row["exact_logprob"] for row in rows} == {False}
    assert served.counts["reference"]["scored"] == len(REFERENCED.read(served.folders["reference"])) > 0
    said = {row["text"]: row["logprob"] for row in SCORES.read(served.folders["scores"])}
    for pair in REFERENCED.read(served.folders["reference"]):
        assert pair["reference_chosen"] == pytest.approx(said[pair["chosen"]], abs=1e-4)

    drawn = server.samples
    again = served.run("before", "again")
    assert server.samples == drawn
    assert EVALUATED.read(again) == EVALUATED.read(chain.folders["before"])


def test_a_server_with_another_model_stops_the_stage(chain: Chain, server: Server, tmp_path: Path) -> None:
    policy = load_base(chain.folders["policy"] / MODEL)
    server.loaded = policy
    bound = {"base_url": server.url, "max_difference": 1e-4}  # three steps of training have moved it by little
    served = chain.other(tmp_path, sampling={"engine": "endpoint", "endpoint": bound})
    with pytest.raises(ModelError, match="it has other weights, or rounded ones"):
        served.run("samples")
    assert server.samples == 0


def test_the_report_says_which_engines_drew(chain: Chain, tmp_path: Path) -> None:
    found = EvalReport.model_validate_json((chain.folders["report"] / REPORT).read_text())
    assert found.engines is None
    served = chain.other(tmp_path, sampling={"engine": "endpoint", "endpoint": NAMED})
    found = EvalReport.model_validate_json((served.run("report") / REPORT).read_text())
    assert found.engines == Engines(training="endpoint", evaluation="local", common_random_numbers=True)
    assert engines_of(config(sampling={"engine": "vllm"})) == {
        "training": "vllm",
        "evaluation": "vllm",
        "common_random_numbers": False,
    }
    pairs = {"data": {"path": "my.jsonl"}, "prompts": {"source": "pairs"}, "pairs": {"source": "given"}}
    given = build_config(
        merge(pairs, {"base": {"model": "m"}, "reward": {"kind": "none"}, "sampling": {"engine": "vllm"}})
    )
    assert engines_of(given)["training"] == ""
    assert "engines" not in STAGES["report"].reads(config())
