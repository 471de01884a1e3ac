"""Tasks that keep what a run made: its record in MLflow, and its model in the registry."""

import json

from prefect import task

from alignment.config import AlignConfig
from alignment.judging.model_card import model_card
from alignment.judging.report import Judgement
from alignment.judging.review import comparisons
from alignment.rows import ACCEPTED, ADAPTER, MODEL, PROMPTS
from alignment.stages.sources import pairs_are_sampled
from alignment.stages.stage import Refs
from alignment.stages.store import digest
from tasks import reports
from tasks.comparing import gathered
from tasks.evaluation import read_report, read_samples
from tasks.figures import drawn
from tasks.registry import bases, models, records, review, runs
from tasks.registry.descriptions import with_ours
from tasks.registry.notes import result
from tasks.registry.pages import INSIDE, version_page
from tasks.registry.registration import Registration, refuse, register
from tasks.registry.summaries import kept_tags, people_tags, version_summary
from tasks.running import RETRIES


@task(name="record run", **RETRIES)
def record_run(config: AlignConfig, refs: Refs, judgement: Judgement, run_id: str) -> None:
    """Datasets, metrics, plots, sample texts and lineage on the MLflow run."""
    report = read_report(refs["report"])
    samples = read_samples(refs["report"].path)
    records.log_dataset(run_id, refs["prompts"].path, PROMPTS, "prompts", "prompts", refs["prompts"].digest)
    records.log_dataset(run_id, refs["validation"].path, ACCEPTED, "pairs", "training", refs["validation"].digest)
    evaluated = gathered(refs)
    review.offer(run_id, comparisons(evaluated, config.registry.review_rows))
    records.log_evaluation(run_id, report, judgement)
    records.log_counts(run_id, {name: ref.counts for name, ref in refs.items()})
    for figure in drawn(config, refs, report, judgement):
        records.log_file(run_id, figure, records.PLOTS)
    records.log_samples_table(run_id, samples)
    records.log_evaluated(run_id, evaluated)
    records.log_text(run_id, records.REPORT, report.model_dump_json(indent=2))
    used = [
        row["prompt_id"]
        for piece in PROMPTS.batches(refs["prompts"].path, ["prompt_id", "split"])
        for row in piece.to_pylist()
        if row["split"] == "train"
    ]
    records.log_used_prompts(run_id, config.registry.model_name, used)
    records.log_json(run_id, "lineage.json", {name: ref.model_dump(mode="json") for name, ref in refs.items()})
    card = model_card(config, report, judgement, samples, _lineage(refs), refs["policy"].counts)
    records.log_text(run_id, "model_card.md", card)
    reports.log_page(run_id, refs)


@task(name="log model", **RETRIES)
def log_model(config: AlignConfig, refs: Refs, judgement: Judgement, run_id: str) -> Registration | None:
    """Keep the model on its run; register it and set the alias only where every gate passed.

    The same aligned model is registered once: of a later run's judgement, the version learns where it is a refusal.
    Returns the version that the model is; None where it is none.
    """
    key = policy_key(config, refs)
    name = config.registry.model_name
    samples = read_samples(refs["report"].path)
    report = read_report(refs["report"])
    card = model_card(config, report, judgement, samples, _lineage(refs), refs["policy"].counts)
    uri = models.find_logged_model(config.registry.experiment, key)
    if uri is None:
        messages = json.loads(samples[0].messages or "[]")
        models.log_adapter(run_id, refs["policy"].path / ADAPTER)
        uri = models.log_model(
            run_id,
            refs["policy"].path / MODEL,
            config,
            samples[0].prompt,
            card=card,
            messages=messages,
            apart=bases.apart(config, refs),
        )
    runs.tag(run_id, {"plumbline.policy": key, "plumbline.model_uri": uri})
    if judgement.verdict != "pass":
        made = refuse(run_id, name, key=key, sentence=judgement.sentence)
    else:
        tags = kept_tags(config, judgement) | people_tags(config, report, judgement)
        description = with_ours(card[card.index("\n## ") :], version_summary(tags))
        made = register(run_id, uri, name, config.registry.alias, key=key, description=description, tags=tags)
        if config.registry.adapter == "separate":
            made = made.model_copy(update={"note": "; ".join(filter(None, (made.note, bases.TOLD)))})
        runs.tag(run_id, {"plumbline.registered": f"{made.name} v{made.version}"})
    if made is not None:
        links = {made.title: version_page(name, made.version, INSIDE)}
        runs.conclude(run_id, judgement.verdict, judgement.sentence, told=result(report, judgement), links=links)
    return made


def policy_key(config: AlignConfig, refs: Refs) -> str:
    """What a model is known by: the policy's content, and how it is served where that decided nothing of the content.

    Sampled pairs hang on the settings of the sampling and on the chat template; given pairs do not.
    """
    policy: str = refs["policy"].digest
    if config.registry.adapter == "separate":
        policy = digest({"policy": policy, "base": refs["base"].digest})
    if pairs_are_sampled(config):
        return policy
    sampling = config.sampling.model_dump(include={"temperature", "top_k", "top_p", "cache", "new_tokens_max"})
    return digest({"policy": policy, "sampling": sampling, "prompts": refs["prompts"].digest})


def _lineage(refs: Refs) -> dict[str, str]:
    return {name: ref.digest for name, ref in refs.items()}
