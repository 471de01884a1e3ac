"""The configuration: what the shipped files hold, what is refused and in which words, and its shape."""

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError

from alignment.config import (
    AlignConfig,
    GridConfig,
    Group,
    build_config,
    build_grid,
    flatten,
    load_config,
    merge,
)
from alignment.errors import ConfigError, InputError
from alignment.kinds import Kinds
from flows.cli.flags import Flags, overrides

SHIPPED = Path(__file__).parents[2] / "flows" / "configs"
CONFIGS = sorted(path for path in SHIPPED.glob("*.yaml") if path.stem != "promotion")  # that one configures no run
GROUPS: dict[str, Any] = {name: info.annotation for name, info in AlignConfig.model_fields.items() if name != "seed"}


def nested(groups: dict[str, Any]) -> dict[str, Any]:
    """The groups of these groups by their dotted names, and so on."""
    below = {
        f"{group}.{name}": info.annotation
        for group, model in groups.items()
        for name, info in model.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, Group)
    }
    return below and below | nested(below)


NESTED_GROUPS = nested(GROUPS)
EVERY_GROUP = GROUPS | NESTED_GROUPS
FIELDS = [
    *(
        (f"{group}.{name}", info)
        for group, model in EVERY_GROUP.items()
        for name, info in model.model_fields.items()
        if f"{group}.{name}" not in NESTED_GROUPS
    ),
    ("seed", AlignConfig.model_fields["seed"]),
]
SCHEMAS = [
    (f"{group}.{name}", schema)
    for group, model in EVERY_GROUP.items()
    for name, schema in model.model_json_schema()["properties"].items()
    if f"{group}.{name}" not in NESTED_GROUPS
]


def refusal(values: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        build_config(values)
    return str(raised.value)


# What is shipped


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_file_parses(path):
    assert load_config(path).registry.model_name.startswith("plumbline")


def test_the_shipped_files_are_the_ones_the_project_names():
    assert [path.stem for path in CONFIGS] == [
        "chat",
        "distill",
        "function_reward",
        "imdb",
        "imdb_scratch",
        "judge",
        "notebook_hinge",
        "notebook_no_prompts",
        "notebook_sigmoid",
        "own_pairs",
        "quickstart",
        "quickstart_retrain",
        "tiny",
    ]


def test_a_round_differs_from_the_quickstart_by_smaller_steps_alone():
    first, later = (flatten(load_config(SHIPPED / f"{name}.yaml")) for name in ("quickstart", "quickstart_retrain"))
    assert {name for name in first if first[name] != later[name]} == {"dpo.learning_rate", "dpo.steps"}
    assert later["dpo.learning_rate"] < first["dpo.learning_rate"]


def test_the_preset_that_learns_the_scores_shares_models_and_held_out_prompts_with_the_quickstart():
    quickstart, distill = (flatten(load_config(SHIPPED / f"{name}.yaml")) for name in ("quickstart", "distill"))
    differ = {name for name in quickstart if quickstart[name] != distill[name]}
    assert {name.partition(".")[0] for name in differ} == {"prompts", "pairs", "dpo", "registry"}
    assert quickstart["prompts.eval_count"] == distill["prompts.eval_count"]


def test_the_notebooks_two_files_differ_in_the_loss_and_the_name_alone():
    hinge, sigmoid = (
        flatten(load_config(path)) for path in CONFIGS if path.stem in {"notebook_hinge", "notebook_sigmoid"}
    )
    assert {name for name in hinge if hinge[name] != sigmoid[name]} == {"dpo.loss", "registry.model_name"}


def test_an_empty_file_gives_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == AlignConfig()


# What is refused, and in which words

REFUSED: dict[str, tuple[dict[Any, Any], str]] = {
    "unknown field": ({"dpo": {"betta": 1}}, "config: unknown field `dpo.betta`, did you mean `dpo.beta`?"),
    "unknown group": ({"dop": {}}, "config: unknown field `dop`, did you mean `dpo`?"),
    "unknown and unlike any": ({"dpo": {"zzz": 1}}, "config: unknown field `dpo.zzz`"),
    "below": ({"dpo": {"beta": 0}}, "config: dpo.beta = 0: input should be greater than 0"),
    "above": ({"seed": 2**31}, "config: seed = 2147483648: input should be less than or equal to 2147483647"),
    "nan": ({"dpo": {"beta": float("nan")}}, "config: dpo.beta = nan: input should be less than or equal to 10"),
    "infinite": (
        {"gates": {"min_gain": float("inf")}},
        "config: gates.min_gain = inf: input should be less than or equal to 100",
    ),
    "not a number": (
        {"dpo": {"beta": "strong"}},
        "config: dpo.beta = 'strong': input should be a valid number, unable to parse string as a number",
    ),
    "true for a whole number": (
        {"dpo": {"steps": True}},
        "config: dpo.steps = True: input should not be true or false",
    ),
    "true for a number": ({"dpo": {"beta": True}}, "config: dpo.beta = True: input should not be true or false"),
    "false for the seed": ({"seed": False}, "config: seed = False: input should not be true or false"),
    "true for a text": ({"data": {"path": True}}, "config: data.path = True: input should not be true or false"),
    "not whole": (
        {"dpo": {"steps": 2.5}},
        "config: dpo.steps = 2.5: input should be a valid integer, got a number with a fractional part",
    ),
    "not a choice": (
        {"dpo": {"loss": "dpo"}},
        "config: dpo.loss = 'dpo': input should be 'sigmoid', 'hinge', 'ipo', 'robust' or 'distill'",
    ),
    "empty": ({"data": {"path": ""}}, "config: data.path = '': string should have at least 1 character"),
    "not a group": ({"dpo": 3}, "config: dpo = 3: input should be a valid dictionary or instance of DPOConfig"),
    "a name that is a number": ({1: 2}, "config: 1 = 1: keys should be strings"),
    "two at once": (
        {"dpo": {"beta": 0, "label_smoothing": 0.5}},
        "config: dpo.beta = 0: input should be greater than 0; "
        "dpo.label_smoothing = 0.5: input should be less than 0.5",
    ),
}

CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "given pairs with other prompts": (
        {"pairs": {"source": "given"}},
        "config: pairs.source = given trains on the rows' own pairs, and prompts.source = first_tokens makes other "
        "prompts: set prompts.source to pairs",
    ),
    "pairs of the grammar": (
        {
            "base": {"model": "some/model"},
            "pairs": {"source": "given"},
            "prompts": {"source": "pairs"},
            "reward": {"kind": "none"},
        },
        "config: data.path = grammar has texts, and prompts.source = pairs reads preference pairs: set data.path to a "
        "file of yours",
    ),
    "no reward to pair samples by": (
        {"reward": {"kind": "none"}},
        "config: reward.kind = none scores nothing, and pairs.source = samples needs a reward, at the latest for the "
        "evaluation: take another reward.kind, or set pairs.source to given",
    ),
    "data": ({"data": {"min_chars": 9, "max_chars": 8}}, "config: data.min_chars = 9 exceeds data.max_chars = 8"),
    "prompt tokens": ({"prompts": {"tokens_min": 9}}, "config: prompts.tokens_min = 9 exceeds prompts.tokens_max = 8"),
    "prompt chars": (
        {"prompts": {"min_chars": 9, "max_chars": 8}},
        "config: prompts.min_chars = 9 exceeds prompts.max_chars = 8",
    ),
    "half a range": (
        {"sampling": {"new_tokens_max": 4}},
        "config: sampling.new_tokens_min and sampling.new_tokens_max go together: set both, or neither",
    ),
    "a range upside down": (
        {"sampling": {"new_tokens_min": 5, "new_tokens_max": 4}},
        "config: sampling.new_tokens_min = 5 exceeds sampling.new_tokens_max = 4",
    ),
    "validation tokens": (
        {"validation": {"min_tokens": 9, "max_tokens": 8}},
        "config: validation.min_tokens = 9 exceeds validation.max_tokens = 8",
    ),
    "validation chars": (
        {"validation": {"min_chars": 9, "max_chars": 8}},
        "config: validation.min_chars = 9 exceeds validation.max_chars = 8",
    ),
    "validation longer": (
        {"validation": {"chosen_longer_min": 0.9}},
        "config: validation.chosen_longer_min = 0.9 exceeds validation.chosen_longer_max = 0.8",
    ),
    "base heads": ({"base": {"width": 130}}, "config: base.width = 130 is not a multiple of base.heads = 4"),
    "reward heads": ({"reward": {"heads": 3}}, "config: reward.width = 64 is not a multiple of reward.heads = 3"),
    "no room after the prompt": (
        {"prompts": {"tokens_max": 64}},
        "config: sampling.total_tokens = 64 leaves no room after prompts of 64 tokens: "
        "raise it, or lower prompts.tokens_max",
    ),
    "longer than the base sees": (
        {"sampling": {"total_tokens": 65}},
        "config: sampling.total_tokens = 65 exceeds base.context = 64: raise base.context, or ask for shorter samples",
    ),
    "longer than the reward model sees": (
        {"sampling": {"total_tokens": 65}, "base": {"context": 65}},
        "config: sampling.total_tokens = 65 exceeds reward.context = 64, so the ends of texts would go unread: "
        "raise reward.context, or ask for shorter samples",
    ),
    "smoothing of a hinge": (
        {"dpo": {"loss": "hinge", "label_smoothing": 0.1}},
        "config: dpo.label_smoothing = 0.1 has no effect on the hinge loss: "
        "set it to 0, or take the sigmoid or robust loss",
    ),
    "smoothing of ipo": (
        {"dpo": {"loss": "ipo", "label_smoothing": 0.25}},
        "config: dpo.label_smoothing = 0.25 has no effect on the ipo loss: "
        "set it to 0, or take the sigmoid or robust loss",
    ),
    "a divergence that goes with no ipo": (
        {"dpo": {"loss": "ipo", "divergence": "forward_kl"}},
        "config: dpo.divergence = forward_kl does not go with the ipo loss, which reads log-ratios: "
        "set it to reverse_kl, or take the sigmoid, hinge, robust or distill loss",
    ),
    "a model that one process shares with none": (
        {"dpo": {"sharding": "fsdp"}},
        "config: dpo.sharding = fsdp shares a model among processes, and dpo.processes = 1: set dpo.processes to the "
        "number of GPUs, or dpo.sharding to none",
    ),
    "an adapter that is sharded": (
        {"dpo": {"sharding": "fsdp", "processes": 2, "adapter": "lora"}},
        "config: dpo.sharding = fsdp trains every weight, and dpo.adapter = lora: set dpo.sharding to none, as an "
        "adapter's training is small, or dpo.adapter to none",
    ),
    "processes without a pair": (
        {"dpo": {"processes": 4, "batch_size": 2}},
        "config: dpo.processes = 4 share the 2 pairs of a step: set dpo.processes to 2 or less, or dpo.global_batch to "
        "4 or more",
    ),
    "a judge of another language": (
        {"data": {"path": "my.csv"}, "evaluation": {"judge": "grammar"}},
        "config: evaluation.judge = grammar knows the built-in grammar alone, and data.path = my.csv is not it: "
        "set evaluation.judge to none, or start from a config that sets no judge",
    ),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bad_field_is_refused_with_its_name_its_value_and_its_bound(values, message):
    assert refusal(values) == message


@pytest.mark.parametrize(("values", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_fields_that_contradict_each_other_are_refused(values, message):
    assert refusal(values) == message


@pytest.mark.parametrize("name", [" ", "a/b", "a:b", "a@b", "it's", 'a"b', "a`b", "a\nb", "a\x00", "\x7f", ".", ".."])
def test_a_name_that_the_registry_would_refuse_is_refused_before_the_run(name):
    assert refusal({"registry": {"model_name": name}}) == (
        f"config: registry.model_name = {name!r}: MLflow needs a name that is not blank and has no '/', ':', '@', "
        "quotes or control characters"
    )


@pytest.mark.parametrize("alias", ["a b", "a.b", "a@b", "é", "a\n", "latest", "Latest", "v1", "V22"])
def test_an_alias_that_the_registry_would_refuse_is_refused_before_the_run(alias):
    assert refusal({"registry": {"alias": alias}}) == (
        f"config: registry.alias = {alias!r}: MLflow needs an alias of letters, digits, '-' and '_' that is not "
        "`latest` nor `v` and a number"
    )


@pytest.mark.parametrize("name", ["a?b", "ab?", "ab\\", "..a", "...", " a", "a "])
def test_a_name_that_the_registry_would_not_find_again_is_refused_before_the_run(name):
    assert refusal({"registry": {"model_name": name}}) == (
        f"config: registry.model_name = {name!r}: MLflow registers such a name and does not find it again; leave out "
        "'?', '\\', blanks at either end and '..' at the start"
    )


@pytest.mark.parametrize("name", [" ", "\t", "a\nb", "a\x00"])
def test_an_experiment_that_mlflow_could_not_show_is_refused_before_the_run(name):
    assert refusal({"registry": {"experiment": name}}) == (
        f"config: registry.experiment = {name!r}: MLflow's page needs a name that is not blank and has no control "
        "characters"
    )


@pytest.mark.parametrize("alias", ["anchor", "Anchor"])
def test_a_run_cannot_take_the_first_base_s_alias(alias):
    assert refusal({"registry": {"alias": alias}}) == (
        f"config: registry.alias = {alias!r}: that alias is the first base's; take another, such as `challenger`"
    )


@pytest.mark.parametrize("alias", ["champion", "previous", "Champion"])
def test_a_run_cannot_promote(alias):
    assert refusal({"registry": {"alias": alias}}) == (
        f"config: registry.alias = {alias!r}: only a promotion moves that alias; take another, such as `challenger`"
    )


@pytest.mark.parametrize(("name", "alias"), [("my model-1.2_é", "v1-rc"), ("a", "latest_one"), ("a..b", "V")])
def test_what_is_not_refused_mlflow_takes(name, alias):
    from mlflow.utils import validation

    config = build_config({"registry": {"model_name": name, "alias": alias}}).registry
    validation._validate_model_name(config.model_name)
    validation._validate_model_alias_name(config.alias)
    validation._validate_model_alias_name_reserved(config.alias)


def test_a_refusal_is_the_users_to_mend():
    assert issubclass(ConfigError, InputError)
    assert ConfigError.exit_code == 2


def test_the_empty_prompt_is_one_token_long_whatever_the_bounds_on_texts_say():
    config = build_config({"prompts": {"source": "empty", "tokens_max": 64}, "sampling": {"total_tokens": 2}})
    assert config.sampling.total_tokens == 2


def test_a_base_that_is_given_brings_its_own_context():
    given = {"model": "some/hub-model"}
    config = build_config({"base": given, "reward": given, "sampling": {"total_tokens": 1_000}})
    assert config.sampling.total_tokens == 1_000


@pytest.mark.parametrize(("value", "text"), [(1, "1"), ("pos", "pos")])
def test_a_class_may_be_written_as_a_number(value, text):
    config = build_config({"data": {"positive_label": value}, "reward": {"positive_class": value}})
    assert (config.data.positive_label, config.reward.positive_class) == (text, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- dpo\n", "holds a list, expected names with values, a line each"),
        ("dpo: {beta: 1\n", "not readable as YAML (while parsing a flow mapping"),
        ("dpo: {betta: 1}\n", "unknown field `dpo.betta`, did you mean `dpo.beta`?"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load_config(tmp_path / "mine.yaml")


def test_a_file_that_is_missing_is_refused(tmp_path):
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert str(raised.value) == f"config {path}: No such file or directory; give the path of a YAML file"


@pytest.mark.parametrize("model", [AlignConfig, *GROUPS.values()], ids=lambda model: model.__name__)
def test_a_configuration_is_frozen(model):
    config = model()
    name = next(iter(model.model_fields))
    with pytest.raises(PydanticError, match="Instance is frozen"):
        setattr(config, name, getattr(config, name))


# What the fields make of a file's spellings


def from_file(folder: Path, text: str) -> AlignConfig:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "mine.yaml")


@pytest.mark.parametrize(
    "spelling",
    ["no", "yes", "on", "off", "true", "True", "1", "1.0", "01", "0x10", "1_000", "1e3", "12:30", "2024-01-01", "pos"],
)
def test_a_text_is_what_was_written(tmp_path, spelling):
    text = f"data: {{positive_label: {spelling}}}\nregistry: {{experiment: '{spelling}'}}\n"
    config = from_file(tmp_path, text)
    assert (config.data.positive_label, config.registry.experiment) == (spelling, spelling)


@pytest.mark.parametrize(
    ("spelling", "steps"), [("10", 10), ("010", 10), ("+10", 10), ("1_000", 1_000), ("10.0", 10), ('"10"', 10)]
)
def test_a_whole_number_is_decimal(tmp_path, spelling, steps):
    assert from_file(tmp_path, f"dpo: {{steps: {spelling}}}").dpo.steps == steps


@pytest.mark.parametrize(
    "spelling",
    ["yes", "on", "true", "0x10", "0o10", "12:30", "1e3", "2.5", "2024-01-01", "~", "null", "", "inf", "[1]"],
)
def test_what_is_no_whole_number_is_not_made_into_one(tmp_path, spelling):
    with pytest.raises(ConfigError, match=r"mine\.yaml: dpo\.steps = "):
        from_file(tmp_path, f"dpo: {{steps: {spelling}}}")


@pytest.mark.parametrize(("spelling", "beta"), [("1", 1.0), ("1e-1", 0.1), ("1.0e-1", 0.1), (".5", 0.5), ("01", 1.0)])
def test_a_number_may_be_written_in_several_ways(tmp_path, spelling, beta):
    assert from_file(tmp_path, f"dpo: {{beta: {spelling}}}").dpo.beta == beta


@pytest.mark.parametrize("spelling", ["yes", "no", "off", "True", "0:1", ".nan", "nan", ".inf", "inf", "0x1", "~"])
def test_what_is_no_number_is_not_made_into_one(tmp_path, spelling):
    with pytest.raises(ConfigError, match=r"mine\.yaml: dpo\.beta = "):
        from_file(tmp_path, f"dpo: {{beta: {spelling}}}")


@pytest.mark.parametrize(
    ("spelling", "cache"), [("true", True), ("on", True), ("yes", True), ("False", False), ("off", False)]
)
def test_a_switch_takes_every_word_for_on_and_off(tmp_path, spelling, cache):
    assert from_file(tmp_path, f"sampling: {{cache: {spelling}}}").sampling.cache == cache


def test_a_value_that_is_null_is_no_text(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.positive_label = None: input should be a valid string"):
        from_file(tmp_path, "data:\n  positive_label:\n")


def test_a_group_that_is_written_twice_is_refused(tmp_path):
    with pytest.raises(ConfigError) as raised:
        from_file(tmp_path, "dpo:\n  beta: 0.1\nseed: 3\ndpo:\n  steps: 4\n")
    assert str(raised.value) == (
        f"config {tmp_path / 'mine.yaml'}: line 4: `dpo` is written twice, first on line 1; write it once, "
        "with everything that belongs to it"
    )


# Flags over the file


def flags(**groups: Any) -> Any:
    return TypeAdapter(Flags).validate_python(groups)


def test_a_flag_wins_over_the_file_and_leaves_its_neighbours_alone(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 1\ndpo: {beta: 0.3, steps: 9}\n")
    config = load_config(path, overrides(flags(seed="7", dpo={"beta": "0.7"})))
    assert (config.seed, config.dpo.beta, config.dpo.steps) == (7, 0.7, 9)


def test_no_flags_change_nothing(tmp_path):
    assert overrides(None) == {}
    assert overrides(flags()) == {}


def test_a_flag_out_of_bounds_is_no_fault_of_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("dpo: {steps: 0}")
    with pytest.raises(ConfigError) as raised:
        load_config(path, overrides(flags(dpo={"beta": "11"})))
    assert str(raised.value) == (
        "dpo.beta = '11': input should be less than or equal to 10; "
        f"{path}: dpo.steps = '0': input should be greater than or equal to 1"
    )


def test_what_a_flag_contradicts_is_no_fault_of_the_file_either(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("prompts: {tokens_max: 30}")
    with pytest.raises(ConfigError, match=r"^sampling\.total_tokens = 20 leaves no room"):
        load_config(path, overrides(flags(seed="1", sampling={"total_tokens": "20"})))
    path.write_text("prompts: {tokens_max: 30}\nsampling: {total_tokens: 20}")
    with pytest.raises(ConfigError, match=r"mine\.yaml: sampling\.total_tokens = 20 leaves no room"):
        load_config(path, overrides(flags(seed="1")))


def test_a_flag_mends_what_is_wrong_in_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("dpo: {beta: 11}")
    assert load_config(path, overrides(flags(dpo={"beta": "1"}))).dpo.beta == 1


def test_there_is_a_flag_for_every_field():
    [model] = [item for item in get_args(get_args(Flags)[0]) if item is not type(None)]
    groups = {
        name: next(item for item in get_args(info.annotation) if item is not type(None))
        for name, info in model.model_fields.items()
        if name != "seed"
    }
    found = {f"{group}.{name}" for group, item in groups.items() for name in item.model_fields} | {"seed"}
    assert found - NESTED_GROUPS.keys() == {name for name in flatten(AlignConfig()) if name.count(".") < 2}


LEAVES = st.integers()
SHALLOW = st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3)
NESTED = st.dictionaries(
    st.sampled_from("abc"), LEAVES | SHALLOW | st.dictionaries(st.sampled_from("abc"), LEAVES | SHALLOW), max_size=3
)


@given(values=NESTED)
def test_merging_nothing_changes_nothing(values):
    assert merge(values, {}) == values
    assert merge({}, values) == values


@given(values=NESTED, over=NESTED)
def test_after_a_merge_every_override_holds(values, over):
    merged = merge(values, over)
    assert merge(merged, over) == merged
    assert set(merged) == set(values) | set(over)


@pytest.mark.parametrize("values", [{"betas": [0.5, True]}, {"betas": (True,)}, {"learning_rates": [False]}], ids=str)
def test_a_grid_takes_no_truth_value_for_a_number(values):
    with pytest.raises(ConfigError, match="input should not be true or false"):
        build_grid(**values)


# Its shape


def test_flatten_spells_every_field_by_its_dotted_name():
    flat = flatten(AlignConfig())
    assert set(flat) == {name for name, _ in FIELDS}
    assert flat["dpo.beta"] == 0.5


def test_what_flatten_spells_builds_the_same_configuration():
    config = build_config({"seed": 5, "dpo": {"beta": 0.1, "loss": "ipo"}, "data": {"label_column": ""}})
    values: dict[str, Any] = {}
    for name, value in flatten(config).items():
        for part in reversed(name.split(".")):
            value = {part: value}
        values = merge(values, value)
    assert build_config(values) == config


@pytest.mark.parametrize(("name", "info"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_field_has_a_one_line_description_and_a_literal_default(name, info):
    assert info.description
    assert "\n" not in info.description
    assert info.default_factory is None
    assert isinstance(info.default, str | int | float) or info.default in ((), {})


def test_every_number_has_two_bounds_and_every_text_a_shortest_length_or_choices():
    unbounded = [
        name
        for name, schema in [*SCHEMAS, ("seed", AlignConfig.model_json_schema()["properties"]["seed"])]
        if schema["type"] in {"integer", "number"}
        and not (schema.keys() & {"minimum", "exclusiveMinimum"} and schema.keys() & {"maximum", "exclusiveMaximum"})
    ]
    free = [
        name
        for name, schema in SCHEMAS
        if schema["type"] == "string" and not schema.keys() & {"minLength", "enum"} and schema["default"] != ""
    ]
    assert unbounded == []
    assert free == ["data.label_column"]  # it may be empty though its default is not; elsewhere empty is the default


@pytest.mark.parametrize(
    ("given", "found"),
    [("", ()), ("END", ("END",)), ("[a, 'b, c']", ("a", "b, c")), (["x"], ("x",)), ("[1, no]", ("1", "no"))],
)
def test_a_list_may_be_given_as_a_text_as_a_flag_gives_it(given, found):
    assert build_config({"sampling": {"stop": given}}).sampling.stop == found


@pytest.mark.parametrize(
    ("given", "found"),
    [("auto", ()), ("[q_proj, v_proj]", ("q_proj", "v_proj")), (["auto"], ()), ("q_proj", ("q_proj",))],
)
def test_an_adapter_stands_on_named_layers_or_on_all(given, found):
    assert build_config({"dpo": {"adapter": "lora", "adapter_targets": given}}).dpo.adapter_targets == found


def test_a_mapping_given_as_text_holds_json_values_where_they_are_json():
    given = "{enable_thinking: false, depth: 3, style: plain}"
    found = build_config({"prompts": {"chat_template_kwargs": given}}).prompts.chat_template_kwargs
    assert found == {"enable_thinking": False, "depth": 3, "style": "plain"}


def test_what_apply_chat_template_takes_itself_is_no_variable_of_a_template():
    with pytest.raises(ConfigError, match=r"prompts\.chat_template_kwargs: tokenize cannot be set here; leave it out"):
        build_config({"prompts": {"chat_template_kwargs": {"tokenize": False}}})


def test_an_empty_text_stops_nothing():
    with pytest.raises(ConfigError, match=r"sampling\.stop\.1 = '': "):
        build_config({"sampling": {"stop": ["END", ""]}})


def test_brackets_that_hold_no_yaml_are_one_line():
    with pytest.raises(ConfigError, match=r"sampling\.stop = '\[a': not readable as YAML"):
        build_config({"sampling": {"stop": "[a"}})


def test_a_field_of_an_earlier_release_is_named_with_what_it_is_called_now():
    with pytest.raises(ConfigError, match=r"unknown field `prompts\.mode`: it is called `prompts\.source` now"):
        build_config({"prompts": {"mode": "empty"}})


def test_a_field_that_is_gone_is_named_with_what_to_do():
    with pytest.raises(ConfigError, match=r"unknown field `sampling\.batch_size`: .* delete the line"):
        build_config({"sampling": {"batch_size": 64}})


def test_groups_hold_plain_fields_alone_and_the_root_holds_groups():
    assert {schema["type"] for _, schema in SCHEMAS} == {"integer", "number", "string", "boolean", "array", "object"}
    assert all(issubclass(model, Group) for model in EVERY_GROUP.values())


def test_a_choice_is_one_of_the_kinds_that_are_registered():
    """Each names one of its registry by default; so a new kind needs no line here."""
    chosen = {
        f"{group}.{name}": info.default in kinds.names()
        for group, model in GROUPS.items()
        for name, info in model.model_fields.items()
        for kinds in info.metadata
        if isinstance(kinds, Kinds)
    }
    assert chosen == dict.fromkeys(
        ["reward.kind", "prompts.source", "sampling.engine", "pairs.source", "pairs.strategy", "dpo.trainer",
         "dpo.loss", "dpo.divergence", "evaluation.judge"],
        True,
    )  # fmt: skip


def test_the_configuration_does_nothing_beside_checking_itself():
    """Its code is in no stage's key, only its values are: behaviour here could change a result unseen."""
    allowed = {"validate", "model_config"}
    for group in (AlignConfig, *EVERY_GROUP.values()):
        found = group.__pydantic_decorators__
        decorated = {*found.validators, *found.field_validators, *found.root_validators, *found.model_validators}
        own = {name for name in vars(group) if not name.startswith(("__", "_abc", "model_"))}
        assert own - decorated - set(group.model_fields) - allowed == set(), group


# What a sweep tries, and what rounds add


def test_a_grid_lists_losses_betas_and_learning_rates():
    assert build_grid(losses=["ipo"], betas=None, learning_rates=[1e-5]) == GridConfig(
        losses=("ipo",), learning_rates=(1e-5,)
    )
    assert build_grid() == GridConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"betas": [0.5, 99]}, "sweep: betas.1 = 99: input should be less than or equal to 10"),
        ({"learning_rates": [0]}, "sweep: learning_rates.0 = 0: input should be greater than 0"),
        ({"losses": []}, "sweep: losses = []: tuple should have at least 1 item after validation, not 0"),
        (
            {"losses": ["dpo"]},
            "sweep: losses.0 = 'dpo': input should be 'sigmoid', 'hinge', 'ipo', 'robust' or 'distill'",
        ),
        ({"betas": [float("nan")]}, "sweep: betas.0 = nan: input should be less than or equal to 10"),
    ],
)
def test_a_grid_out_of_bounds_is_refused_in_one_line(values, message):
    with pytest.raises(ConfigError) as raised:
        build_grid(**values)
    assert str(raised.value) == message


def test_by_default_nothing_is_excluded_and_no_drift_is_measured():
    config = AlignConfig()
    assert (config.prompts.exclude, config.evaluation.anchor) == ("", "")
    assert config.gates.max_anchor_kl_per_token > config.gates.max_kl_per_token


def test_a_file_may_be_named_by_a_text(tmp_path):
    (tmp_path / "my.yaml").write_text("dpo:\n  steps: 7\n")
    assert load_config(str(tmp_path / "my.yaml")).dpo.steps == 7
