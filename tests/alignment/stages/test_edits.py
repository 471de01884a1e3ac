"""What an edit costs: for every module, the stages whose keys move when a comment is added to it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignment.config import build_config
from alignment.kinds import PROJECT
from alignment.stages import code
from alignment.stages.plan import key_of
from alignment.stages.store import StageRef
from tasks.pipeline import PIPELINE, STAGES

GOLD = [{"name": "second", "kind": "classifier", "model": "some/model"}, {"name": "words", "kind": "tfidf"}]
CONFIG = build_config({"evaluation": {"anchor": "some/model", "judge": "grammar", "gold": GOLD, "real_texts": "data"}})
REF = StageRef(stage="any", key="k", path=Path(), digest="content", counts={}, seconds=0.0)

EDITS: dict[str, str] = {
    "alignment": "",
    "alignment.activations": "base samples reference policy before after drift ranking",
    "alignment.adapter_bases": "base reward prompts policy ranking gold",
    "alignment.adapters": "base reward prompts policy ranking gold",
    "alignment.aliases": "",
    "alignment.batching": "base reward prompts samples scores reference policy before after anchor drift ranking gold "
    "regression",
    "alignment.bits": "base reward prompts samples scores reference policy before after anchor drift ranking gold "
    "regression",
    "alignment.capacity": "",
    "alignment.config": "",
    "alignment.config.engines": "",
    "alignment.config.frontier": "",
    "alignment.config.group": "",
    "alignment.config.inputs": "",
    "alignment.config.judge": "",
    "alignment.config.label": "",
    "alignment.config.loading": "",
    "alignment.config.outcome": "",
    "alignment.config.precision": "",
    "alignment.config.policy": "",
    "alignment.config.server": "",
    "alignment.config.whole": "",
    "alignment.conventions": "base reward prompts samples scores reference policy before after anchor drift ranking "
    "gold regression",
    "alignment.data": "",
    "alignment.data.chat": "reward validation ranking gold",
    "alignment.data.grammar": "texts prompts before after realism",
    "alignment.data.guessing": "",
    "alignment.data.labels": "texts prompts realism",
    "alignment.data.pairs": "pairs ranking",
    "alignment.data.pairs.given": "ranking",
    "alignment.data.pairs.judged": "",
    "alignment.data.pairs.samples": "pairs",
    "alignment.data.pairs.source": "pairs ranking",
    "alignment.data.pairs.strategies": "pairs",
    "alignment.data.pairs.whole": "pairs",
    "alignment.data.preferences": "reward validation ranking gold",
    "alignment.data.prompts": "",
    "alignment.data.prompts.empty": "",
    "alignment.data.prompts.ids": "prompts ranking",
    "alignment.data.prompts.messages": "ranking",
    "alignment.data.prompts.openings": "prompts",
    "alignment.data.prompts.pairs": "ranking",
    "alignment.data.prompts.select": "prompts ranking",
    "alignment.data.prompts.source": "prompts ranking",
    "alignment.data.prompts.whole": "ranking",
    "alignment.data.reading": "texts prompts realism",
    "alignment.data.tables": "texts prompts realism",
    "alignment.data.text_files": "texts prompts realism",
    "alignment.data.texts": "texts prompts realism",
    "alignment.data.tokenizer": "base reward gold",
    "alignment.data.wanted": "texts prompts realism",
    "alignment.data.words": "",
    "alignment.decoders": "base reward prompts samples scores reference policy before after anchor drift ranking gold "
    "regression",
    "alignment.described": "",
    "alignment.device": "base reward prompts samples scores reference policy before after anchor drift ranking gold "
    "regression",
    "alignment.endpoints": "",
    "alignment.environment": "base reward policy gold",
    "alignment.errors": "",
    "alignment.flat": "base reference policy before after drift ranking",
    "alignment.generation": "",
    "alignment.gguf": "",
    "alignment.gguf_writing": "",
    "alignment.head": "base reference policy before after drift ranking",
    "alignment.hub": "",
    "alignment.judging": "",
    "alignment.judging.arithmetic": "report",
    "alignment.judging.beside": "",
    "alignment.judging.card": "",
    "alignment.judging.ceiling": "",
    "alignment.judging.charts": "",
    "alignment.judging.comparison": "report",
    "alignment.judging.differences": "",
    "alignment.judging.evaluated": "",
    "alignment.judging.formats": "report",
    "alignment.judging.frontier": "",
    "alignment.judging.frontier_page": "",
    "alignment.judging.frontier_plot": "",
    "alignment.judging.frontier_table": "",
    "alignment.judging.grid": "",
    "alignment.judging.gates": "",
    "alignment.judging.headline": "",
    "alignment.judging.hf_metrics": "report",
    "alignment.judging.judges": "",
    "alignment.judging.links": "",
    "alignment.judging.judges.grammar": "before after",
    "alignment.judging.judges.judge": "before after",
    "alignment.judging.judges.ngrams": "realism",
    "alignment.judging.judges.realism": "realism",
    "alignment.judging.judges.words": "gold realism",
    "alignment.judging.measured": "report",
    "alignment.judging.metric": "report",
    "alignment.judging.metrics": "report",
    "alignment.judging.model_card": "",
    "alignment.judging.page": "",
    "alignment.judging.paired": "",
    "alignment.judging.plots": "",
    "alignment.judging.preferences": "report",
    "alignment.judging.ratings": "",
    "alignment.judging.records": "",
    "alignment.judging.regression": "regression",
    "alignment.judging.report": "report",
    "alignment.judging.review": "",
    "alignment.judging.sections": "",
    "alignment.judging.smoke": "",
    "alignment.judging.statistics": "report",
    "alignment.judging.story": "",
    "alignment.judging.trajectory": "",
    "alignment.kinds": "",
    "alignment.kl": "",
    "alignment.layout": "base samples reference policy before after drift ranking",
    "alignment.links": "",
    "alignment.locks": "",
    "alignment.logits": "reward scores before after drift gold",
    "alignment.logprobs": "base reference policy before after drift ranking",
    "alignment.memory": "",
    "alignment.models": "base reward prompts samples scores reference policy before after anchor drift ranking gold "
    "regression",
    "alignment.needs": "",
    "alignment.outline": "prompts ranking",
    "alignment.parquet": "texts base reward prompts samples scores pairs validation reference policy before after "
    "anchor drift ranking gold realism regression report",
    "alignment.passed_on": "",
    "alignment.preflight": "",
    "alignment.reach": "",
    "alignment.remote": "",
    "alignment.remote.cache": "",
    "alignment.remote.folder": "",
    "alignment.remote.layout": "",
    "alignment.remote.leases": "",
    "alignment.remote.objects": "",
    "alignment.remote.opening": "",
    "alignment.remote.paid": "",
    "alignment.remote.refusals": "",
    "alignment.remote.saving": "",
    "alignment.remote.shared": "",
    "alignment.remote.snapshot": "",
    "alignment.remote.store": "",
    "alignment.remote.unfinished": "",
    "alignment.remote.uploads": "",
    "alignment.rewards": "",
    "alignment.rewards.checking": "scores before after drift gold",
    "alignment.rewards.classifier": "scores before after drift gold",
    "alignment.rewards.classifier_model": "reward gold",
    "alignment.rewards.function": "",
    "alignment.rewards.function_file": "",
    "alignment.rewards.function_model": "",
    "alignment.rewards.judge": "",
    "alignment.rewards.judge_answers": "",
    "alignment.rewards.judge_asking": "",
    "alignment.rewards.judge_client": "",
    "alignment.rewards.judge_rubric": "",
    "alignment.rewards.none": "",
    "alignment.rewards.parts": "reward scores before after drift gold",
    "alignment.rewards.protocol": "reward scores before after drift gold",
    "alignment.rewards.reading": "reward scores before after drift gold",
    "alignment.rewards.sum": "",
    "alignment.rewards.sum_model": "",
    "alignment.rewards.tfidf": "gold",
    "alignment.rewards.tfidf_model": "gold",
    "alignment.rows": "texts base reward prompts samples scores pairs validation reference policy before after anchor "
    "drift ranking gold realism regression report",
    "alignment.sampling": "",
    "alignment.sampling.cache": "samples before after drift",
    "alignment.sampling.choice": "samples before after drift",
    "alignment.sampling.continuous": "samples before after drift",
    "alignment.sampling.dialects": "",
    "alignment.sampling.endpoint": "",
    "alignment.sampling.endpoint_client": "",
    "alignment.sampling.engine": "samples before after drift",
    "alignment.sampling.kept": "",
    "alignment.sampling.local": "samples before after drift",
    "alignment.sampling.outside": "",
    "alignment.sampling.plain": "samples before after drift",
    "alignment.sampling.prompts": "samples before after drift",
    "alignment.sampling.stops": "samples before after drift",
    "alignment.sampling.vllm_child": "",
    "alignment.sampling.vllm_offline": "",
    "alignment.sampling.weights": "samples before after drift",
    "alignment.savings": "",
    "alignment.selfcheck": "base reward samples scores reference policy before after drift ranking gold",
    "alignment.stages": "",
    "alignment.stages.after": "after",
    "alignment.stages.anchor": "anchor",
    "alignment.stages.base": "base",
    "alignment.stages.before": "before",
    "alignment.stages.code": "",
    "alignment.stages.drawing": "samples before after drift",
    "alignment.stages.drift": "drift",
    "alignment.stages.evaluating": "before after drift",
    "alignment.stages.gold": "gold",
    "alignment.stages.job": "",
    "alignment.stages.job_file": "",
    "alignment.stages.launch": "",
    "alignment.stages.worker": "",
    "alignment.stages.kept": "samples scores reference policy before after drift ranking gold regression",
    "alignment.stages.outlined": "prompts ranking",
    "alignment.stages.files": "",
    "alignment.stages.marks": "",
    "alignment.stages.stored": "",
    "alignment.stages.likelihood": "reference before after drift ranking",
    "alignment.stages.pairs": "pairs",
    "alignment.stages.parts": "",
    "alignment.stages.plan": "",
    "alignment.stages.policy": "policy",
    "alignment.stages.prompts": "prompts",
    "alignment.stages.ranking": "ranking",
    "alignment.stages.realism": "realism",
    "alignment.stages.reference": "reference",
    "alignment.stages.reference_samples": "",
    "alignment.stages.regression": "regression",
    "alignment.stages.report": "report",
    "alignment.stages.reward": "reward",
    "alignment.stages.row_file": "policy",
    "alignment.stages.row_hash": "validation",
    "alignment.stages.samples": "samples",
    "alignment.stages.scores": "scores",
    "alignment.stages.scoring": "scores before after drift gold",
    "alignment.stages.shortage": "",
    "alignment.stages.sides": "samples before after drift ranking report",
    "alignment.stages.set_aside": "reward gold",
    "alignment.stages.shards": "scores pairs",
    "alignment.stages.sources": "",
    "alignment.stages.stage": "",
    "alignment.stages.store": "",
    "alignment.stages.texts": "texts",
    "alignment.stages.trajectory": "",
    "alignment.stages.trajectory_report": "",
    "alignment.tensor_files": "",
    "alignment.training": "",
    "alignment.transient": "",
    "alignment.training.adapter": "policy",
    "alignment.training.batches": "base reward policy gold",
    "alignment.training.checkpoints": "base reward policy gold",
    "alignment.training.divergences": "policy",
    "alignment.training.dpo": "policy",
    "alignment.training.group": "base reward policy gold",
    "alignment.training.harness": "base reward policy gold",
    "alignment.training.losses": "policy",
    "alignment.training.protocol": "policy",
    "alignment.training.reward": "reward gold",
    "alignment.training.reward_pairs": "reward gold",
    "alignment.training.sft": "base",
    "alignment.training.sharding": "base reward policy gold",
    "alignment.training.tied": "base reward policy gold",
    "alignment.yaml_file": "",
    "expectations": "validation",
    "expectations.arrays": "validation",
    "expectations.checking": "",
    "expectations.columns": "validation",
    "expectations.custom": "validation",
    "expectations.evaluation": "validation",
    "expectations.figures": "validation",
    "expectations.gaps": "",
    "expectations.judging": "validation",
    "expectations.predicates": "validation",
    "expectations.runner": "validation",
    "expectations.stage": "validation",
    "expectations.suites": "validation",
    "expectations.tally": "validation",
    "expectations.verdict": "validation",
}
"""The stages that are computed again after an edit of each module. What follows them is found in the store where their
results come out as before, as after a comment; where they do not, it is computed again as well."""


def keys() -> dict[str, str]:
    """Every stage's key where the results that it needs stay as they are."""
    code.code_version.cache_clear()
    refs = dict.fromkeys(PIPELINE, REF)
    return {name: key_of(stage, CONFIG, refs) for name, stage in PIPELINE.items()}


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project's code in a folder where it may be edited."""
    for room in code.ROOMS:
        shutil.copytree(PROJECT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    yield tmp_path
    code.code_version.cache_clear()


def test_an_edit_moves_the_keys_of_the_stages_that_run_the_code_and_no_others(copy: Path) -> None:
    before = keys()
    found: dict[str, str] = {}
    for file in sorted(copy.rglob("*.py")):
        module = ".".join(file.relative_to(copy).with_suffix("").parts).removesuffix(".__init__")
        source = file.read_text(encoding="utf-8")
        file.write_text(source + "# a comment\n", encoding="utf-8")
        after = keys()
        file.write_text(source, encoding="utf-8")
        found[module] = " ".join(name for name in PIPELINE if before[name] != after[name])
    assert found == EDITS


def test_no_stage_runs_code_that_its_key_cannot_see() -> None:
    """Tasks, flows and the command line: what a stage's module imports is in the rooms that the table above is of."""
    seen = {name for stage in STAGES.values() for name in code.closure(stage.module)}
    reached = {found for name in seen for found in code.imports(code.source(name).read_text(encoding="utf-8"))}
    assert not {name for name in reached if name.partition(".")[0] in {"tasks", "flows", "tests", "benchmarks"}}
