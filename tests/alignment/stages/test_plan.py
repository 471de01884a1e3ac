"""Stage keys: a field moves the keys of the stages that read it and of all that follow, and of no other."""

import ast
import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, RewardPart, SourceConfig, build_config, flatten
from alignment.errors import ConfigError, DataError, ModelError
from alignment.kinds import Kinds, Origin
from alignment.stages import code, sources
from alignment.stages.code import closure, code_version, imports
from alignment.stages.plan import Pipeline, key_of, lineage
from alignment.stages.store import StageRef, Store
from tasks.pipeline import PIPELINE
from tests.alignment.chain import keys

ALONE = {"anchor", "drift"}  # asked for by `evaluation.anchor` alone
BESIDE = {"ranking", "gold", "realism", "regression"}  # of given pairs, second judges, real texts, tasks alone
WAY = set(PIPELINE) - ALONE - BESIDE
DOWNSTREAM = {
    "texts": WAY,
    "base": WAY - {"texts", "reward"},
    "reward": {"reward", "scores", "pairs", "validation", "reference", "policy", "before", "after", "report"},
    "prompts": WAY - {"texts", "base", "reward"},
    "samples": {"samples", "scores", "pairs", "validation", "reference", "policy", "after", "report"},
    "scores": {"scores", "pairs", "validation", "reference", "policy", "after", "report"},
    "pairs": {"pairs", "validation", "reference", "policy", "after", "report"},
    "validation": {"validation", "reference", "policy", "after", "report"},
    "reference": {"reference", "policy", "after", "report"},
    "policy": {"policy", "after", "report"},
    "evaluation": {"before", "after", "report"},
    "report": {"report"},
}


def moved(one: Any, two: Any) -> set[str]:
    """The stages whose key differs between two configurations, or that one of them does not ask for."""
    before, after = (keys(item if isinstance(item, AlignConfig) else build_config(item)) for item in (one, two))
    return {name for name in PIPELINE if before.get(name) != after.get(name)}


# The order


ANCHORED = build_config({"evaluation": {"anchor": "some/model"}})


def test_a_stage_needs_only_what_comes_before_it():
    before: set[str] = set()
    for name, stage in PIPELINE.items():
        assert stage.name == name
        assert set(stage.needs(ANCHORED)) <= before
        before.add(name)


def test_the_stages_are_in_the_order_in_which_data_passes_through_them():
    assert list(PIPELINE) == [
        "texts", "base", "reward", "prompts", "samples", "scores", "pairs", "validation", "reference", "policy",
        "before", "after", "anchor", "drift", "ranking", "gold", "realism", "regression", "report",
    ]  # fmt: skip


def test_each_stage_stands_in_a_file_of_its_own_and_says_what_it_does_and_makes():
    assert len({stage.module for stage in PIPELINE.values()}) == len(PIPELINE)
    assert len({stage.title for stage in PIPELINE.values()}) == len(PIPELINE)
    for stage in PIPELINE.values():
        assert stage.module.rpartition(".")[2] in {stage.name, "stage"}
        assert stage.body.__doc__
        assert stage.makes(ANCHORED)


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two stages of one name among texts, texts"):
        Pipeline(PIPELINE["texts"], PIPELINE["texts"])


def test_what_follows_a_stage_is_what_needs_it_directly_or_not():
    """The table above, derived a second time from `needs`."""
    follows = {name: {name} for name in PIPELINE}
    for name, stage in PIPELINE.items():
        for earlier in follows.values():
            if earlier & set(stage.needs(ANCHORED)):
                earlier.add(name)
    assert {name: follows[name] & WAY for name in DOWNSTREAM if name in PIPELINE} == {
        name: found for name, found in DOWNSTREAM.items() if name in PIPELINE
    }


def test_a_goal_asks_for_what_it_needs_alone():
    def wanted(goal: str, **values: Any) -> list[str]:
        return [stage.name for stage in PIPELINE.wanted(build_config(values), goal)]

    assert wanted("reward") == ["texts", "reward"]
    assert wanted("reward", reward={"model": "some/model"}) == ["reward"]
    assert wanted("scores") == ["texts", "base", "reward", "prompts", "samples", "scores"]
    assert set(wanted("report")) == WAY


def test_a_source_of_pairs_that_are_not_sampled_asks_for_no_samples(monkeypatch):
    given: Kinds[Any] = Kinds("pairs", "pair_source", "")
    monkeypatch.setattr(given, "_origins", {"written": Origin("alignment.data.pairs", options={"sampled": False})})
    monkeypatch.setattr(sources, "PAIRS", given)
    config = AlignConfig().model_copy(update={"pairs": AlignConfig().pairs.model_copy(update={"source": "written"})})
    assert {stage.name for stage in PIPELINE.wanted(config)} == WAY - {"samples", "scores"}
    assert PIPELINE["pairs"].needs(config) == ("prompts",)


def test_slots_are_for_stages_that_run_a_model():
    def taking(**values: Any) -> set[str]:
        config = build_config(values)
        return {name for name, stage in PIPELINE.items() if stage.slots(config)}

    running = {
        "base", "reward", "samples", "scores", "policy", "before", "after", "drift", "ranking", "gold", "regression",
    }  # fmt: skip
    assert taking() == running
    assert taking(sampling={"precision": "bf16"}) == running | {"reference"}, "log-probs are computed again in fp32"


def test_a_stop_waits_for_a_training_and_for_nothing_else():
    """A download, or the copying of a model, has no step to wait for."""

    def training(values: dict[str, Any]) -> set[str]:
        config = build_config(values)
        return {name for name, stage in PIPELINE.items() if stage.trains(config)}

    assert training({}) == {"base", "reward", "policy"}
    assert training({"base": {"model": "some/model"}, "reward": {"model": "some/model"}}) == {"policy"}


# What moves which key

FIELD_MOVES: list[tuple[str, Any, str]] = [
    ("data.path", "some/reviews", "texts"),
    ("data.rows", 11, "texts"),
    ("data.positive_label", "pos", "texts"),
    ("seed", 1, "texts"),
    ("base.steps", 11, "base"),
    ("base.width", 64, "base"),
    ("base.learning_rate", 0.5, "base"),
    ("base.batch_size", 5, "base"),
    ("reward.steps", 11, "reward"),
    ("reward.min_opening", 3, "reward"),
    ("prompts.count", 11, "prompts"),
    ("prompts.eval_count", 11, "prompts"),
    ("prompts.min_eval", 11, "prompts"),
    ("prompts.tokens_min", 7, "prompts"),
    ("sampling.samples_per_prompt", 3, "samples"),
    ("pairs.strategy", "all_pairs", "pairs"),
    ("pairs.max_pairs", 9, "pairs"),
    ("validation.min_gap", 0.5, "validation"),
    ("validation.min_pairs", 1, "validation"),
    ("dpo.beta", 0.1, "policy"),
    ("dpo.divergence", "forward_kl", "policy"),
    ("dpo.steps", 11, "policy"),
    ("dpo.log_every", 1, "policy"),
    ("dpo.precision", "bf16", "reference"),  # whose log-probs are in the policy's precision
    ("evaluation.samples_per_prompt", 1, "evaluation"),
    ("evaluation.judge", "grammar", "evaluation"),
    ("evaluation.precision", "bf16", "evaluation"),
    ("evaluation.bootstrap", 100, "report"),
    ("evaluation.confidence", 0.9, "report"),
    ("evaluation.table_rows", 9, "report"),
]


@pytest.mark.parametrize(("field", "value", "stage"), FIELD_MOVES, ids=[field for field, _, _ in FIELD_MOVES])
def test_a_field_moves_the_keys_from_its_stage_on(field, value, stage):
    group, _, name = field.rpartition(".")
    assert moved({}, {group: {name: value}} if group else {name: value}) == DOWNSTREAM[stage]


@pytest.mark.parametrize(
    ("group", "fields"),
    [
        ("dpo", {"checkpoint_every": 7}),
        ("dpo", {"divergence_alpha": 0.3}),  # of another divergence
        ("dpo", {"processes": 2, "sharding": "fsdp", "batch_size": 2, "global_batch": 8}),  # how 8 pairs are dealt out
        ("dpo", {"batch_size": 4, "accumulation": 2}),
        ("sampling", {"shard_prompts": 3}),
        ("sampling", {"batch_tokens": 64}),
        ("gates", {"min_win_rate": 0.9}),
        ("registry", {"model_name": "another", "experiment": "another", "alias": "another"}),
    ],
)
def test_what_does_not_change_a_result_moves_no_key(group, fields):
    assert moved({}, {group: fields}) == set()


@pytest.mark.parametrize(
    ("fields"),
    [{"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.5}, {"total_tokens": 32}, {"precision": "bf16"}],
    ids=str,
)
def test_how_the_policy_writes_moves_the_pairs_and_the_evaluation(fields):
    assert moved({}, {"sampling": fields}) == DOWNSTREAM["samples"] | DOWNSTREAM["evaluation"]


def test_the_class_to_reward_moves_the_scores_and_not_the_reward_model():
    assert moved({}, {"reward": {"positive_class": "0"}}) == DOWNSTREAM["scores"] | DOWNSTREAM["evaluation"]
    assert moved({}, {"reward": {"precision": "bf16"}}) == DOWNSTREAM["scores"] | DOWNSTREAM["evaluation"]


def test_the_vocabulary_is_that_of_both_models_that_are_trained_here():
    assert moved({}, {"base": {"vocab_size": 512}}) == DOWNSTREAM["base"] | DOWNSTREAM["reward"]


SERVER = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "version": "1"}
"""A server that a key need not ask."""

APPLY: dict[str, dict[str, Any]] = {
    "reward.judge.pair_rubric": {"pairs": {"source": "judged"}, "reward": {"judge": {"model": "m"}}},
    "reward.judge": {"reward": {"kind": "judge", "judge": {"model": "m"}}},
    "reward.function": {"reward": {"kind": "function", "function": __file__}},
    "data.split": {"data": {"path": "some/reviews"}},
    "reward.parts": {"reward": {"kind": "sum", "parts": [{"name": "a"}, {"name": "b"}]}},
    "dpo.adapter_": {"dpo": {"adapter": "lora"}},
    "dpo.divergence_": {"dpo": {"divergence": "alpha"}},
    "evaluation.gold_fraction": {"evaluation": {"gold": [{"name": "words", "kind": "tfidf"}]}},
    "evaluation.real_": {"evaluation": {"real_texts": "data"}},
    "evaluation.task_rows": {"evaluation": {"tasks": ["some_task"]}},
    "sampling.engine": {"sampling": {"endpoint": SERVER}},
    "sampling.endpoint": {"sampling": {"engine": "endpoint", "endpoint": SERVER}},
}
"""What has to be configured for a field to apply, by how the field's name begins."""

OTHER: dict[str, Any] = {
    "data.mixture": (SourceConfig(path="grammar", weight=2.0),),
    "data.columns": ("answer",),
    "prompts.chat_template": __file__,  # its content counts
    "prompts.chat_template_kwargs": {"enable_thinking": False},
    "prompts.eval_path": "grammar",
    "prompts.exclude": __file__,
    "sampling.stop": ("END",),
    "sampling.engine": "endpoint",
    "sampling.endpoint.server": "sglang",
    "reward.kind": "none",
    "reward.function": f"{__file__}:another",
    "reward.judge.pattern": "(x)",
    "reward.judge.extra": {"top_p": 1},
    "reward.parts": (RewardPart(name="a", weight=2.0),),
    "evaluation.gold": (RewardPart(name="a"),),
    "evaluation.tasks": ("some_task",),
    "dpo.adapter_targets": ("q_proj",),
}
"""Another value for fields whose content counts, and for lists and mappings."""

UNSEEN = {
    "base.revision", "reward.revision",  # of a model from the hub
    "dpo.checkpoint_every", "sampling.shard_prompts", "sampling.batch_tokens", "reward.batch_tokens",
    "dpo.gradient_checkpointing", "dpo.processes", "dpo.sharding",
    *(f"reward.judge.{name}" for name in (
        "url", "api_key_env", "concurrency", "timeout", "retries", "max_calls", "max_tokens_total"
    )),
    *(f"sampling.endpoint.{name}" for name in (
        "base_url", "api_key_env", "max_difference", "concurrency", "timeout", "retries"
    )),
    "sampling.vllm.max_difference", "sampling.vllm.gpu_memory",
}  # fmt: skip


def with_field(group: Any, name: str, value: Any) -> Any:
    """A copy of a group, or of the whole configuration, with another value for a field by its dotted name."""
    head, _, rest = name.partition(".")
    return group.model_copy(update={head: with_field(getattr(group, head), rest, value) if rest else value})


def kinds_of(name: str) -> Kinds[Any] | None:
    """The kinds among which a field chooses, if it does."""
    group: Any = AlignConfig
    *path, last = name.split(".")
    for part in path:
        group = group.model_fields[part].annotation
    return next((found for found in group.model_fields[last].metadata if isinstance(found, Kinds)), None)


@pytest.mark.parametrize(
    "name", [name for name in flatten(AlignConfig()) if not name.startswith(("gates.", "registry."))]
)
def test_every_field_moves_a_key_unless_it_is_known_not_to(name, tmp_path):
    """A new field that no key sees would give old results for new settings."""
    (tmp_path / "rubric.txt").write_text("{first} {second}" if "pair" in name else "{completion}")
    config = build_config(next((values for start, values in APPLY.items() if name.startswith(start)), {}))
    value = flatten(config)[name]
    other: Any
    if name.endswith("rubric"):
        other = str(tmp_path / "rubric.txt")
    elif name in OTHER:
        other = OTHER[name]
    elif kinds := kinds_of(name):
        other = next((kind for kind in kinds.names() if kind != value), value)
        if other == value:  # the only one of its kind
            return
    else:
        other = not value if isinstance(value, bool) else f"{value}!" if isinstance(value, str) else value + 1
    assert bool(moved(config, with_field(config, name, other))) == (name not in UNSEEN)


# Models that are given


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    return tmp_path / "model"


def test_a_given_base_does_not_depend_on_the_texts(folder):
    one = {"base": {"model": str(folder)}}
    two = one | {"data": {"rows": 11}}
    assert moved(one, two) == DOWNSTREAM["texts"] - {"base"}


def test_with_both_models_given_the_texts_still_lead_to_the_prompts(folder):
    one = {"base": {"model": str(folder)}, "reward": {"model": str(folder)}}
    assert moved(one, one | {"data": {"rows": 11}}) == DOWNSTREAM["texts"] - {"base", "reward"}


def test_the_recipe_of_a_model_that_is_given_does_not_count(folder):
    one = {"base": {"model": str(folder)}}
    two = {"base": {"model": str(folder), "steps": 9, "width": 64, "revision": "v2"}}
    assert moved(one, two) == set()


def test_the_content_of_a_local_model_counts_and_its_place_does_not(folder, tmp_path):
    copied = tmp_path / "elsewhere"
    shutil.copytree(folder, copied)
    here, there = ({"base": {"model": str(place)}} for place in (folder, copied))
    assert moved(here, there) == set()
    before = keys(build_config(here))
    (folder / "model.safetensors").write_text("other weights")
    after = keys(build_config(here))
    assert {name for name in before if before[name] != after[name]} == DOWNSTREAM["base"]


def test_what_tools_note_beside_a_model_does_not_count(folder):
    """As `hf download --local-dir`, git and file managers do; what is loaded counts at any depth."""
    config = build_config({"base": {"model": str(folder)}})
    before = keys(config)
    for name in (".cache/huggingface/download/model.metadata", ".git/HEAD", ".DS_Store"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("12:34")
    assert keys(config) == before
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("x")
    assert keys(config) != before


def test_the_revision_of_a_model_from_the_hub_counts():
    one, two = ({"reward": {"model": "some/model", "revision": revision}} for revision in ("main", "v2"))
    assert moved(one, two) == DOWNSTREAM["reward"]


def test_the_content_of_a_data_file_counts(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,1\n")
    config = build_config({"data": {"path": str(path)}})
    before = keys(config)
    path.write_text("text,label\nb,1\n")
    after = keys(config)
    assert {name for name in before if before[name] != after[name]} == DOWNSTREAM["texts"]


def test_the_place_of_a_data_file_does_not_count_and_how_it_is_read_does(tmp_path):
    (tmp_path / "moved").mkdir()
    for name in ("a.jsonl", "moved/b.JSON", "a.csv"):
        (tmp_path / name).write_text('{"text": "a"}\n')
    one, same, other = ({"data": {"path": str(tmp_path / name)}} for name in ("a.jsonl", "moved/b.JSON", "a.csv"))
    assert moved(one, same) == set()
    assert moved(one, {"data": one["data"] | {"split": "test"}}) == set()
    assert moved(one, other) == DOWNSTREAM["texts"]
    assert moved(one, {"data": one["data"] | {"positive_label": "pos"}}) == DOWNSTREAM["texts"]


@pytest.mark.parametrize("name", ["path", "split"])
def test_a_dataset_from_the_hub_is_known_by_its_name_and_split(name):
    one = {"path": "some/reviews", "split": "train"}
    assert moved({"data": one}, {"data": one | {name: "other/one"}}) == DOWNSTREAM["texts"]


def test_no_path_is_in_a_key(tmp_path, folder):
    """Nor anything else of the place: a copy has other times."""
    (tmp_path / "a.csv").write_text("text,label\na,1\n")
    config = build_config(
        {
            "data": {"path": str(tmp_path / "a.csv")},
            "base": {"model": str(folder)},
            "reward": {"model": str(folder)},
            "evaluation": {"anchor": str(folder), "real_texts": str(tmp_path / "a.csv")},
        }
    )
    ref = StageRef(stage="any", key="k", path=tmp_path, digest="content", counts={}, seconds=0.0)
    found = [lineage(stage, config, dict.fromkeys(PIPELINE, ref)) for stage in PIPELINE.values()]
    assert str(tmp_path) not in str(found)


# Prompts of earlier rounds


def excluding(path: Path) -> AlignConfig:
    return build_config({"prompts": {"exclude": str(path)}})


def test_the_content_of_the_list_of_used_prompts_counts_and_its_place_does_not(tmp_path):
    used, same, more = (tmp_path / name for name in ("used.txt", "same.txt", "more.txt"))
    used.write_text("a\nb\n")
    same.write_text("a\nb\n")
    more.write_text("a\nb\nc\n")
    assert moved(excluding(used), excluding(same)) == set()
    assert moved(excluding(used), excluding(more)) == DOWNSTREAM["prompts"]
    assert moved({}, excluding(used)) == DOWNSTREAM["prompts"]


@pytest.mark.parametrize("name", ["none.txt", "."], ids=["missing", "a folder"])
def test_a_list_that_cannot_be_read_is_refused_in_one_line(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(DataError) as raised:
        keys(excluding(path))
    reason = "No such file or directory" if name != "." else "Is a directory"
    assert str(raised.value) == (
        f"prompts.exclude {path}: cannot be read ({reason}); give a text file of prompt ids, or leave it empty"
    )


# The anchor


def test_without_an_anchor_there_is_no_stage_for_it(tmp_path):
    assert set(keys(AlignConfig())) == WAY
    assert [item.stage.name for item in PIPELINE.plan(AlignConfig(), Store(tmp_path))] == [
        n for n in PIPELINE if n in WAY
    ]


def test_an_anchor_adds_its_stages_and_changes_the_report_alone(folder):
    anchored = {"evaluation": {"anchor": str(folder)}}
    assert set(keys(build_config(anchored))) == WAY | ALONE
    assert moved({}, anchored) == ALONE | {"report"}


def test_the_content_of_the_anchor_counts_and_its_place_does_not(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    here, there = ({"evaluation": {"anchor": str(place)}} for place in (folder, tmp_path / "elsewhere"))
    assert moved(here, there) == set()
    before = keys(build_config(here))
    (folder / "model.safetensors").write_text("other weights")
    after = keys(build_config(here))
    assert {name for name in before if before[name] != after[name]} == ALONE | {"report"}


def test_what_the_anchor_is_compared_with_moves_the_drift_and_not_the_anchor(folder):
    anchored = {"evaluation": {"anchor": str(folder)}}
    assert moved(anchored, anchored | {"dpo": {"beta": 0.1}}) == DOWNSTREAM["policy"] | {"drift"}
    assert moved(anchored, anchored | {"seed": 1}) == (WAY | ALONE) - {"anchor"}


@pytest.mark.parametrize("path", ["none.csv", "./none", "~/none", "/none"])
def test_data_that_is_missing_is_refused_and_not_looked_for_on_the_hub(path):
    with pytest.raises(DataError, match=r"no such file; give a \.parquet, \.csv or \.jsonl file, or a hub name"):
        keys(build_config({"data": {"path": path}}))


MODELS = [("base", "model"), ("reward", "model"), ("evaluation", "anchor")]


@pytest.mark.parametrize(("group", "name"), MODELS)
@pytest.mark.parametrize("path", ["./none", "~/none", "/none"])
def test_a_model_that_is_missing_is_refused_and_not_looked_for_on_the_hub(group, name, path):
    with pytest.raises(ModelError) as raised:
        keys(build_config({group: {name: path}}))
    assert str(raised.value) == f"{group}.{name} {path}: no such folder; give a folder that `save_pretrained` wrote"


def refuse(_: Path) -> str:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(("group", "name"), MODELS)
def test_a_model_that_may_not_be_read_is_named_in_one_line(group, name, folder, monkeypatch):
    monkeypatch.setattr(sources, "digest_file", refuse)
    with pytest.raises(ModelError) as raised:
        keys(build_config({group: {name: str(folder)}}))
    assert str(raised.value) == (
        f"{group}.{name} {folder}: cannot be read (Permission denied); give a folder that you may read"
    )


def test_data_that_may_not_be_read_is_named_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,1\n")
    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(DataError) as refused:
        sources.data_source(build_config({"data": {"path": str(path)}}))
    assert str(refused.value) == f"data.path {path}: cannot be read (Permission denied); give a file that you may read"


# Code


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of four modules: `lab.a` imports `lab.b`, which imports `lab.c` inside a function; nobody `lab.d`."""
    sources = {
        "a": "import json\nfrom lab import b\n",
        "b": "def late():\n    from lab.c import VALUE\n",
        "c": "VALUE = 1\n",
        "d": "VALUE = 2\n",
    }
    (tmp_path / "lab").mkdir()
    for name, source in {"__init__": "", **sources}.items():
        (tmp_path / "lab" / f"{name}.py").write_text(source)
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    monkeypatch.setattr(code, "ROOMS", ("lab",))
    code_version.cache_clear()
    yield tmp_path / "lab"
    code_version.cache_clear()


@pytest.mark.parametrize(("module", "counts"), [("a", True), ("b", True), ("c", True), ("d", False)])
def test_the_version_of_a_module_is_that_of_all_it_imports(rooms, module, counts):
    before = code_version("lab.a")
    code_version.cache_clear()
    (rooms / f"{module}.py").write_text((rooms / f"{module}.py").read_text() + "# changed\n")
    assert (code_version("lab.a") != before) == counts


def test_the_versions_of_the_libraries_count(monkeypatch):
    found = dict.fromkeys(("torch", "numpy", "great_expectations"), "1")
    version = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: found.get(name) or version(name))
    for library, stages in (
        ("torch", {"base", "reward", "prompts", "samples", "scores", "reference", "policy", "before", "after"}),
        ("numpy", {"texts", "samples", "validation", "before", "after", "report"}),
        ("great_expectations", {"validation"}),
    ):
        before = own_keys()
        found[library] = "2"
        after = own_keys()
        assert {name for name in before if before[name] != after[name]} == stages, library


def own_keys() -> dict[str, str]:
    """Every stage's key where the results that it needs stay as they are."""
    refs = {name: StageRef(stage=name, key="k", path=Path(), digest="d", counts={}, seconds=0.0) for name in PIPELINE}
    return {stage.name: key_of(stage, AlignConfig(), refs) for stage in PIPELINE.wanted(AlignConfig())}


def test_a_source_is_read_again_where_another_thread_that_parses_gets_in_the_way(monkeypatch):
    """As Python 3.11 may say: github.com/python/cpython/issues/106905."""
    refusals = [SystemError("AST constructor recursion depth mismatch (before=48, after=76)")]
    parse = ast.parse

    def parse_at_second(text):
        if refusals:
            raise refusals.pop()
        return parse(text)

    monkeypatch.setattr(ast, "parse", parse_at_second)
    assert imports("import json  # nothing else has this text") == {"json"}


def test_imports_are_found_wherever_they_stand():
    source = "import os\nimport a.b as c\n\nclass D:\n    def e(self):\n        from f.g import h, i\n"
    assert imports(source) == {"os", "a.b", "f.g", "f.g.h", "f.g.i"}


def test_imports_within_a_package_are_found_by_their_dots():
    source = "from . import a\nfrom .b import c\nfrom .. import d\nfrom ..e import f\n"
    assert imports(source, "lab.inner") == {
        "lab.inner", "lab.inner.a", "lab.inner.b", "lab.inner.b.c", "lab", "lab.d", "lab.e", "lab.e.f",
    }  # fmt: skip


def test_a_package_s_own_code_counts_for_its_modules(rooms):
    """It runs before them; a docstring alone does nothing."""
    (rooms / "inner").mkdir()
    (rooms / "inner" / "__init__.py").write_text('"""Inside."""\n')
    (rooms / "inner" / "e.py").write_text("from ..d import VALUE\n")
    assert closure("lab.inner.e") == {"lab.inner.e", "lab.d"}
    (rooms / "__init__.py").write_text("VALUE = 3\n")
    assert closure("lab.inner.e") == {"lab", "lab.inner.e", "lab.d"}


def test_a_module_without_a_source_is_refused(rooms):
    with pytest.raises(ConfigError, match=r"lab\.nowhere: has no source file"):
        closure("lab.nowhere")


# Plan and lineage


def test_what_cannot_be_used_is_refused_before_anything_is_computed(tmp_path):
    """A key is made only once the stages before it are finished: the anchor's after the policy was trained."""
    for group, field in (("evaluation", "anchor"), ("reward", "model"), ("prompts", "exclude")):
        with pytest.raises((ModelError, DataError), match=rf"^{group}\.{field} /nowhere: "):
            PIPELINE.require_usable(build_config({group: {field: "/nowhere"}}))
    PIPELINE.require_usable(AlignConfig())


def written(store: Store, name: str, key: str, content: str) -> StageRef:
    def fill(folder: Path) -> dict[str, int]:
        (folder / "content.txt").write_text(content)
        return {"kept": 3}

    return store.write(name, key, fill)


def test_a_plan_finds_what_the_store_has_and_knows_no_key_behind_what_it_lacks(tmp_path):
    store, config = Store(tmp_path), AlignConfig()
    texts = written(store, "texts", key_of(PIPELINE["texts"], config, {}), "texts")
    written(store, "base", "another key", "base")
    planned = {item.stage.name: item for item in PIPELINE.plan(config, store)}
    assert list(planned) == [name for name in PIPELINE if name in WAY]
    assert {name for name, item in planned.items() if item.found is not None} == {"texts"}
    assert planned["texts"].found is not None
    assert planned["texts"].found.counts == {"kept": 3}
    assert planned["base"].key == key_of(PIPELINE["base"], config, {"texts": texts})
    assert {name for name, item in planned.items() if item.key is not None} == {"texts", "base", "reward"}


def test_a_stage_whose_result_comes_out_the_same_makes_nothing_after_it_new(tmp_path):
    """The key is made of what the parents hold, not of how they were made."""
    store, config = Store(tmp_path), AlignConfig()
    one, same, other = (written(store, "texts", key, content) for key, content in (("1", "a"), ("2", "a"), ("3", "b")))
    found = [key_of(PIPELINE["base"], config, {"texts": texts}) for texts in (one, same, other)]
    assert found[0] == found[1] != found[2]


def test_keys_are_short_hexadecimal_and_all_different():
    found = keys(AlignConfig())
    assert len(set(found.values())) == len(found) == len(WAY)
    assert all(len(key) == 20 and int(key, 16) >= 0 for key in found.values())


def test_the_lineage_names_config_parents_code_kinds_and_libraries():
    ref = StageRef(stage="any", key="k", path=Path(), digest="content", counts={}, seconds=0.0)
    found = lineage(PIPELINE["pairs"], AlignConfig(), {"prompts": ref, "scores": ref, "policy": ref})
    assert found == {
        "stage": "pairs",
        "config": {"pairs": {"source": "samples", "strategy": "best_vs_worst", "max_pairs": 0}, "seed": 0},
        "parents": {"prompts": "content", "scores": "content"},
        "code": code_version("alignment.stages.pairs"),
        "kinds": {
            "pairs.samples": {"code": code_version("alignment.data.pairs.samples")},
            "strategies.best_vs_worst": {"code": code_version("alignment.data.pairs.strategies")},
        },
        "libraries": {},
    }
