"""The engine `endpoint`: samples of a server as the model itself would give them, and nothing of another model's."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment import endpoints
from alignment.config import SamplingConfig, build_config
from alignment.errors import ConfigError, EndpointError, Interrupted, ModelError, PlumblineError
from alignment.logprobs import score_completions
from alignment.models import Loaded
from alignment.sampling import endpoint as engine
from alignment.sampling import endpoint_client, outside
from alignment.sampling.engine import Completion, Request, request
from alignment.sampling.local import local
from tests.alignment.sampling.served import CUT, SLOW, Fault, Server, serving

KEY = "sk-this-is-a-secret"
BUSY: Fault = (429, {"retry-after": "0.02"}, '{"error": {"message": "slow down"}}')
DIED: Fault = (500, {}, '{"error": {"message": "the engine died"}}')
SERVERS = ("vllm", "sglang")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(endpoints, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(engine, "GRACE", 0.2)
    monkeypatch.setattr(outside, "KNOWN_FOR", 0.0)
    monkeypatch.delenv("SAMPLING_API_KEY", raising=False)


@pytest.fixture(scope="module")
def loaded(tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Loaded:
    return Loaded(tiny_gpt2(vocab_size=len(tiny_tokenizer), context=40), tiny_tokenizer, "base.model tiny")


@pytest.fixture(scope="module")
def other(tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Loaded:
    return Loaded(tiny_gpt2(1, vocab_size=len(tiny_tokenizer), context=40), tiny_tokenizer)


@pytest.fixture
def server(loaded: Loaded) -> Iterator[Server]:
    with serving(Server(loaded)) as served:
        yield served


def config(server: Server, kind: str = "vllm", sampling: dict[str, Any] | None = None, **fields: Any) -> SamplingConfig:
    endpoint = {"base_url": server.url, "server": kind, "timeout": 10.0, "retries": 2, "concurrency": 4} | fields
    return SamplingConfig(**{"engine": "endpoint", "total_tokens": 16, "endpoint": endpoint, **(sampling or {})})


def asked(config: SamplingConfig, count: int = 6) -> list[Request]:
    """Requests of prompts of unlike lengths, several samples each."""
    prompts = ([5, 9, 11], [7], [0, 4, 6, 8, 13])
    return [
        request(prompts[n % 3], config, seed=0, purpose="train", prompt_id=str(n % 3), index=n) for n in range(count)
    ]


def draw(loaded: Loaded, config: SamplingConfig, count: int = 6, **further: Any) -> list[Completion]:
    return engine.endpoint(loaded, asked(config, count), config, **further)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_sample_has_the_server_s_tokens_and_the_log_prob_that_the_model_here_gives_them(
    loaded: Loaded, server: Server, kind: str
) -> None:
    settings = config(server, kind)
    drawn = draw(loaded, settings)
    requests = asked(settings)
    expected = score_completions(
        loaded.model, [each.prompt for each in requests], [each.ids for each in drawn], pad_id=0
    )
    assert [each.logprob for each in drawn] == pytest.approx(expected.tolist(), abs=1e-4)
    assert {each.exact for each in drawn} == {False}  # what a server says is computed again where it is needed
    for wanted, found in zip(requests, drawn, strict=True):
        assert found.finished == (found.ids[-1] == 0)
        assert found.finished or len(found.ids) == len(wanted.uniforms)
        assert 0 not in found.ids[:-1]
    assert len({tuple(each.ids) for each in drawn}) > 4  # each sample has a seed of its own
    assert draw(loaded, settings) == drawn


@pytest.mark.parametrize("kind", SERVERS)
def test_at_a_temperature_near_0_the_samples_are_those_that_are_drawn_here(
    loaded: Loaded, server: Server, kind: str
) -> None:
    settings = config(server, kind, {"temperature": 1e-3})
    here = local(loaded, asked(settings), settings)
    there = draw(loaded, settings)
    assert [(each.ids, each.finished) for each in there] == [(each.ids, each.finished) for each in here]


@pytest.mark.parametrize("kind", SERVERS)
def test_settings_reach_the_server_and_its_own_defaults_do_not_count(loaded: Loaded, server: Server, kind: str) -> None:
    draw(loaded, config(server, kind, {"temperature": 0.5, "top_k": 7, "top_p": 0.75, "stop": ("zz",)}))
    body = server.requests[-1]
    sent = body if kind == "vllm" else body["sampling_params"]
    expected = {"temperature": 0.5, "top_k": 7, "top_p": 0.75, "min_p": 0.0, "repetition_penalty": 1.0}
    assert expected.items() <= sent.items()
    assert (sent["stop"], sent["stop_token_ids"]) == (["zz"], [0])
    draw(loaded, config(server, kind))
    last = server.requests[-1]
    assert (last if kind == "vllm" else last["sampling_params"])["top_k"] == (0 if kind == "vllm" else -1)  # all tokens


@pytest.mark.parametrize("kind", SERVERS)
def test_a_completion_ends_before_a_stop_text(loaded: Loaded, server: Server, kind: str) -> None:
    settings = config(server, kind)
    first = next(each for each in draw(loaded, settings) if len(loaded.texts([each.ids])[0]) > 6)
    stop = loaded.texts([first.ids])[0][3:5]
    stopped = draw(loaded, config(server, kind, {"stop": (stop,)}))
    assert any(each.finished and each.ids[-1:] != [0] for each in stopped)
    assert not any(stop in text for text in loaded.texts([each.ids for each in stopped]))
    expected = score_completions(
        loaded.model, [each.prompt for each in asked(settings)], [each.ids for each in stopped], pad_id=0
    )
    assert [each.logprob for each in stopped] == pytest.approx(expected.tolist(), abs=1e-4)


def test_each_sample_s_length_is_its_own(loaded: Loaded, server: Server) -> None:
    settings = config(server, sampling={"new_tokens_min": 2, "new_tokens_max": 6})
    rooms = [len(each.uniforms) for each in asked(settings)]
    assert len(set(rooms)) > 2
    assert all(len(found.ids) <= room for found, room in zip(draw(loaded, settings), rooms, strict=True))


def test_a_prompt_without_room_is_not_asked_about(loaded: Loaded, server: Server) -> None:
    settings = config(server)
    (found,) = engine.endpoint(loaded, [Request([3, 4], [])], settings)
    assert found == Completion([], finished=False, logprob=0.0, exact=False)
    assert server.samples == 0


@pytest.mark.parametrize("kind", SERVERS)
def test_other_weights_are_refused_before_anything_is_drawn(other: Loaded, server: Server, kind: str) -> None:
    with pytest.raises(
        ModelError, match=r"its log-probs of 16 texts differ from those of the model by [\d.]+ nats a "
    ) as e:
        draw(other, config(server, kind))
    assert "sampling.endpoint.max_difference = 0.05" in str(e.value)
    assert len(server.requests) == 16
    assert server.samples == 0


def test_weights_that_are_rounded_pass_where_the_bound_allows_it(loaded: Loaded, tiny_tokenizer: Any) -> None:
    import copy

    rounded = Loaded(copy.deepcopy(loaded.model).bfloat16(), tiny_tokenizer)
    with serving(Server(rounded)) as server:
        assert len(draw(loaded, config(server, max_difference=0.3))) == 6
        with pytest.raises(ModelError, match="or rounded ones"):
            draw(loaded, config(server, max_difference=1e-5))


def test_a_failure_that_may_pass_is_tried_again(loaded: Loaded, server: Server) -> None:
    expected = draw(loaded, config(server))
    faults = [BUSY, DIED, CUT, (200, {}, "<html>")]
    server.fault = lambda call: faults[call // 7 % 4] if call % 7 == 3 else None
    assert draw(loaded, config(server)) == expected


@pytest.mark.parametrize(
    ("fault", "fields", "says"),
    [
        (DIED, {}, r"answers 500 \(the engine died\), 3 times; check sampling.endpoint.base_url"),
        (BUSY, {"retries": 0}, r"answers 429 \(slow down\), once"),
        (CUT, {"retries": 0}, r"could not be reached \([^)]+\), once"),
        (SLOW, {"retries": 1, "timeout": 0.2}, r"gave no answer in 0.2 s, 2 times"),
        ((200, {}, "<html>"), {"retries": 0}, r"answers with what is no JSON \(<html>\), once"),
        ((302, {"location": "http://127.0.0.1:1/"}, ""), {}, r"answers 302 \(no message\); check"),
        ((401, {}, '{"error": "who are you"}'), {}, r"wants a key \(401 who are you\); set the environment variable"),
        ((402, {}, "{}"), {}, r"the account's quota is used up"),
        ((500, {}, "\x1b[2Jgone"), {"retries": 0}, r"answers 500 \(\?\[2Jgone\), once"),
        ((200, {}, "[" * 100_000), {"retries": 0}, r"answers with what is no JSON \(\[+\), once"),
        ((200, {}, f'{{"choices": 1{"0" * 400}}}'), {"retries": 0}, r"answers without what was asked for"),
        ((200, {"content-encoding": "gzip"}, "no gzip"), {"retries": 0}, r"could not be reached \(.+\), once"),
        ((400, {}, '{"error": {"message": "bad seed"}}'), {}, r"answers 400 \(bad seed\); check sampling.endpoint"),
    ],
)
def test_a_failure_that_stays_is_one_line_with_the_way_out(
    loaded: Loaded, server: Server, fault: Fault, fields: dict[str, Any], says: str
) -> None:
    server.fault = lambda call: fault
    with pytest.raises((EndpointError, ConfigError), match=says) as raised:
        draw(loaded, config(server, **fields))
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"sampling.endpoint at {server.url}: ")


def first_choice(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """An answer to a sample's request with a choice that differs; those of the comparison stay."""
    return lambda answer: (
        answer if "prompt_logprobs" in answer["choices"][0] else {"choices": [answer["choices"][0] | changes]}
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda answer: [], "answers without what was asked for"),
        (lambda answer: {"choices": []}, "answers without what was asked for"),
        (lambda answer: {"choices": answer["choices"] * 2}, "answers without what was asked for"),
        (first_choice(token_ids=None), "answers without what was asked for"),
        (first_choice(token_ids=["5"]), "what stands for token ids is none"),
        (first_choice(token_ids=[True]), "what stands for token ids is none"),
        (first_choice(token_ids=[-1]), "what stands for token ids is none"),
        (first_choice(token_ids=[5], logprobs={"token_logprobs": [-(10**400)]}), "answers without what was asked for"),
        (first_choice(logprobs=None), "answers without what was asked for"),
        (first_choice(logprobs={"token_logprobs": [None]}), "answers without what was asked for"),
        (first_choice(logprobs={"token_logprobs": []}), "tokens with 0 log-probs where 1 to 1[0-9] were asked for"),
        (first_choice(token_ids=[], logprobs={"token_logprobs": []}), "gave 0 tokens"),
        (first_choice(token_ids=[5] * 30, logprobs={"token_logprobs": [-1.0] * 30}), "gave 30 tokens"),
        (first_choice(token_ids=[5], logprobs={"token_logprobs": [float("nan")]}), "gave log-probs that are none"),
        (first_choice(token_ids=[5], logprobs={"token_logprobs": [0.5]}), "gave log-probs that are none, such as 0.5"),
        (first_choice(token_ids=[10**6], logprobs={"token_logprobs": [-1.0]}), "a text holds the token id 1000000"),
        (
            first_choice(token_ids=[5], logprobs={"token_logprobs": [-1.0]}, finish_reason="abort"),
            r"ended a text after 1 of 1\d tokens \(abort\), without an end token or a stop text",
        ),
    ],
)
def test_an_answer_that_is_none_is_not_taken(
    loaded: Loaded, server: Server, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    server.change = change
    with pytest.raises((EndpointError, ModelError), match=says) as raised:
        draw(loaded, config(server))
    assert "\n" not in str(raised.value)


def test_a_server_that_cannot_score_given_texts_is_refused(loaded: Loaded, server: Server) -> None:
    server.change = lambda answer: {"choices": [answer["choices"][0] | {"prompt_logprobs": None}]}
    with pytest.raises(EndpointError, match="answers without what was asked for"):
        draw(loaded, config(server))
    server.change = lambda answer: {"choices": [answer["choices"][0] | {"prompt_logprobs": [None] * 25}]}
    with pytest.raises(EndpointError, match="gave 0 log-probs of 384 tokens of given texts"):
        draw(loaded, config(server))


def test_a_context_that_is_too_short_is_told(loaded: Loaded, server: Server) -> None:
    server.context = 10
    with pytest.raises(ConfigError, match="maximum context length is 10 tokens"):
        draw(loaded, config(server))


def test_what_was_drawn_before_a_failure_is_not_asked_for_again(loaded: Loaded, server: Server, tmp_path: Path) -> None:
    server.fault = lambda call: DIED if call >= 16 + 3 else None
    settings = config(server, retries=0, concurrency=1)
    with pytest.raises(EndpointError, match="what it drew is kept"):
        draw(loaded, settings, kept=tmp_path)
    assert server.samples == 3
    with (tmp_path / "drawn.jsonl").open("a") as file:
        file.write('\n{"request": "cut o')  # as a crash leaves it
    server.fault = lambda call: None
    told: list[tuple[int, int]] = []
    found = draw(loaded, settings, kept=tmp_path, progress=lambda done, total: told.append((done, total)))
    assert server.samples == 6
    assert told[0] == (3, 6)
    assert told[-1] == (6, 6)
    assert found == draw(loaded, settings)
    draw(loaded, config(server, version="another"), kept=tmp_path)  # another engine's are not these
    assert server.samples == 18


def test_an_answer_that_was_not_taken_is_asked_for_again(loaded: Loaded, server: Server, tmp_path: Path) -> None:
    server.change = first_choice(token_ids=[5], logprobs={"token_logprobs": [-1.0]}, finish_reason="abort")
    with pytest.raises(EndpointError, match=r"\(abort\)") as raised:
        draw(loaded, config(server), kept=tmp_path)
    assert raised.value.transient
    server.change = lambda answer: answer
    assert draw(loaded, config(server), kept=tmp_path) == draw(loaded, config(server))


def test_it_stops_soon_when_it_is_asked_to(loaded: Loaded, server: Server, tmp_path: Path) -> None:
    server.hold_after = 3

    def progress(done: int, total: int) -> None:
        if done >= 3:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        draw(loaded, config(server), kept=tmp_path, progress=progress)
    assert sum(bool(line.strip()) for line in (tmp_path / "drawn.jsonl").read_text().splitlines()) == 3


def test_an_answer_without_an_end_is_given_up(loaded: Loaded, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_client, "MOST_BYTES", 1_000)
    server.fault = lambda call: (200, {}, "[" + "1," * 1_000)
    with pytest.raises(EndpointError, match="answers with more than 1,000 bytes, once"):
        draw(loaded, config(server, retries=0))


def test_no_more_requests_are_under_way_than_allowed(loaded: Loaded, server: Server) -> None:
    draw(loaded, config(server, concurrency=3))
    assert 1 < server.most_at_once <= 3


def test_the_key_is_sent_and_stands_nowhere(
    loaded: Loaded, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    draw(loaded, config(server))
    assert server.keys == {None}
    monkeypatch.setenv("SAMPLING_API_KEY", KEY)
    draw(loaded, config(server), kept=tmp_path)
    assert server.keys == {None, f"Bearer {KEY}"}
    server.fault = lambda call: (403, {}, '{"error": {"message": "{key} is not known"}}')
    with pytest.raises(
        ConfigError, match=r"does not take the key in SAMPLING_API_KEY \(403 Bearer \*\*\* is not known"
    ):
        draw(loaded, config(server))
    monkeypatch.setenv("SAMPLING_API_KEY", f"{KEY}\nx: y")
    with pytest.raises(ConfigError, match="holds signs that no key has") as raised:
        draw(loaded, config(server))
    said = [str(raised.value), caplog.text, *(file.read_text() for file in tmp_path.iterdir())]
    assert not any(KEY in text for text in said)


class TestIdentity:
    def test_the_server_says_its_model_and_version(self, server: Server) -> None:
        assert engine.version(config(server)) == {"server": "vllm", "model": "tiny", "version": "0.33.0"}
        assert engine.version(config(server, "sglang")) == {"server": "sglang", "model": "tiny", "version": "0.5.23"}

    def test_what_is_configured_is_not_asked_for(self, server: Server) -> None:
        fields: dict[str, Any] = {"model": "tiny", "version": "0.33.0"}
        assert engine.version(config(server, **fields)) == {"server": "vllm", **fields}
        assert server.looks == 0

    def test_it_is_asked_once_a_minute(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outside, "KNOWN_FOR", 60.0)
        assert engine.version(config(server)) == engine.version(config(server))
        assert server.looks == 2  # for the model and the version

    def test_one_that_is_down_is_one_line_with_the_ways_out(self, server: Server) -> None:
        settings = config(server)
        settings = settings.model_copy(
            update={"endpoint": settings.endpoint.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})}
        )
        with pytest.raises(
            EndpointError, match=r"could not be reached .*; start it, or check .*sampling.endpoint.version"
        ):
            engine.version(settings)

    @pytest.mark.parametrize(
        ("about", "says"),
        [
            ({"/v1/models": {"data": [{"id": "a"}, {"id": "b"}]}}, "serves 2 models, such as a, b; name the one"),
            ({"/v1/models": {"data": []}}, "does not say which model it serves"),
            ({"/v1/models": {"data": [{"id": "\x1b[2J"}]}}, r"serves 1 models, such as \?\[2J; name the one"),
            ({"/v1/models": {"data": [{"id": "x" * 501}]}}, "serves 1 models, such as x+; name the one"),
            ({"/version": {"version": "0\n1"}}, "does not say which version it is"),
            ({"/v1/models": None}, "does not say which model it serves"),
            (
                {"/version": None},
                r"does not say which version it is \(/version\); check sampling.endpoint.server = vllm",
            ),
            ({"/version": {"version": 3}}, "does not say which version it is"),
        ],
    )
    def test_one_that_does_not_say_is_told_where_to_write_it(
        self, server: Server, about: dict[str, Any], says: str
    ) -> None:
        server.about |= about
        with pytest.raises(ConfigError, match=says):
            engine.version(config(server))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "sampling.endpoint.base_url: is empty; give the address of the server"),
        ({"base_url": "127.0.0.1:8000"}, "is not an address like http"),
        ({"base_url": "http://me:secret@there/v1"}, "an address with a password"),
        ({"base_url": "file:///etc/passwd"}, "is not an address like http"),
        ({"base_url": "http://there/v1", "api_key_env": "HOME"}, "sampling.endpoint.api_key_env"),
        ({"base_url": "http://there/v1", "api_key_env": "PREFECT_API_KEY"}, "that key is for a server of the run"),
        ({"base_url": "http://there/v1", "server": "other"}, "sampling.endpoint.server"),
        ({"base_url": "http://there/v1", "max_difference": 0}, "sampling.endpoint.max_difference"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_the_configuration(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(PlumblineError, match=says) as raised:
        build_config({"sampling": {"engine": "endpoint", "endpoint": fields}})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "verified", "by_proxy"),
    [
        ("http://127.0.0.1:8000/v1", False, False),  # there is nothing to verify
        ("https://127.0.0.1:8000/v1", True, False),
        ("HTTPS://localhost:8000/v1", True, False),
        ("http://there.example/v1", True, True),  # by a proxy that may be asked over TLS
        ("HTTPS://there.example/v1", True, True),
    ],
)
def test_a_certificate_is_verified_wherever_there_can_be_one(
    url: str, verified: bool, by_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    made: dict[str, Any] = {}
    monkeypatch.setattr(httpx, "AsyncClient", lambda **settings: made.update(settings))
    endpoint_client.Client(SamplingConfig(endpoint={"base_url": url}).endpoint)
    assert (made["verify"], made["trust_env"]) == (verified, by_proxy)


def test_a_body_is_json() -> None:
    """So that what is kept can be found again by it."""
    from alignment.sampling.dialects import DIALECTS

    for dialect in DIALECTS.values():
        body = dialect("tiny").sample([1], 2, 3, (0,), SamplingConfig(stop=("x",)))
        assert json.loads(json.dumps(body)) == body
