"""The main flow: from prompts to a registered, aligned model."""

from collections.abc import Callable
from typing import Any

from prefect import flow, unmapped
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel

from alignment.config import (
    AlignConfig,
    BaseConfig,
    DataConfig,
    DPOConfig,
    EvaluationConfig,
    GatesConfig,
    PairsConfig,
    PromptsConfig,
    RegistryConfig,
    RewardConfig,
    SamplingConfig,
    ValidationConfig,
)
from alignment.pipeline import keys as stage_keys
from alignment.report import EvalReport, Judgement
from alignment.store import StageRef
from tasks import registry as model_registry
from tasks import tracking
from tasks.data import cut_prompts, load_texts
from tasks.evaluation import apply_gates, compare_models, read_report, sample_after, sample_before
from tasks.home import home, prepare_environment, tracking_uri
from tasks.models import base_model, reward_model
from tasks.pairs import build_pairs, require_valid, validate_pairs
from tasks.publishing import log_model, record_run, show_result
from tasks.samples import merge_samples, sample_shard, score_samples, shards
from tasks.training import reference_logprobs, train_policy


class AlignResult(BaseModel):
    """What a finished run reports: to the command line, to Prefect, and to `--json`."""

    run_id: str
    experiment: str
    where: str
    model: dict[str, Any] | None
    report: EvalReport
    judgement: Judgement
    pairs: dict[str, int]
    seconds: dict[str, float]
    cached: list[str]


@flow(name="align", flow_run_name="align-{registry.model_name}", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def align(
    seed: int = 0,
    data: DataConfig = DataConfig(),
    base: BaseConfig = BaseConfig(),
    reward: RewardConfig = RewardConfig(),
    prompts: PromptsConfig = PromptsConfig(),
    sampling: SamplingConfig = SamplingConfig(),
    pairs: PairsConfig = PairsConfig(),
    validation: ValidationConfig = ValidationConfig(),
    dpo: DPOConfig = DPOConfig(),
    evaluation: EvaluationConfig = EvaluationConfig(),
    gates: GatesConfig = GatesConfig(),
    registry: RegistryConfig = RegistryConfig(),
) -> AlignResult:
    """Align a causal language model to a reward model, judge the result, and register it if it deserves it.

    Args:
        seed: Seed of every random draw.
        data: Labelled text: trains the base and reward model where asked to, and gives the prompts.
        base: The policy's starting point, which is also DPO's reference.
        reward: The reward model that labels the pairs.
        prompts: How texts become prompts, and which of them are held out.
        sampling: How the policy writes.
        pairs: How scored samples become chosen and rejected.
        validation: Bounds that the pairs must keep.
        dpo: Direct preference optimisation.
        evaluation: How the base and the aligned model are compared.
        gates: Bounds that the evaluation must keep before the model is registered.
        registry: Where MLflow keeps the run and the model.
    """
    groups = {
        "data": data,
        "base": base,
        "reward": reward,
        "prompts": prompts,
        "sampling": sampling,
        "pairs": pairs,
        "validation": validation,
        "dpo": dpo,
        "evaluation": evaluation,
        "gates": gates,
        "registry": registry,
    }
    return tracked(AlignConfig(seed=seed, **groups), run_stages)


def tracked(config: AlignConfig, body: Callable[[AlignConfig, str], AlignResult]) -> AlignResult:
    """Run `body` under one MLflow run, which ends FINISHED, FAILED after an error, or KILLED after a cancellation."""
    prepare_environment()
    tracking.configure(tracking_uri(), home() / "artifacts")
    tracking.check()
    prefect_run = {
        "prefect.flow_run_id": flow_run.id or "",
        "prefect.flow_run_name": flow_run.name or "",
        "prefect.flow_run_url": flow_run.ui_url or "",
    }
    with tracking.run(config, run_name=flow_run.name or "align", tags=prefect_run) as run_id:
        return body(config, run_id)


def run_stages(given: AlignConfig, run_id: str) -> AlignResult:
    """The datum's way, one line a stage; `refs` gathers what is finished.

    Registered models are brought into local folders first; the record names them as they were given.
    """
    config, lineage = model_registry.with_local_models(given, home() / "models")
    tracking.tag(run_id, lineage)
    keys = stage_keys(config)
    refs: dict[str, StageRef] = {}
    refs["texts"] = load_texts(config, keys)
    refs["base"] = base_model(config, keys, refs)
    refs["reward"] = reward_model(config, keys, refs)
    refs["prompts"] = cut_prompts(config, keys, refs)
    parts = sample_shard.map(shards(config, keys, refs), unmapped(config), unmapped(keys), unmapped(dict(refs)))
    refs["samples"] = merge_samples(parts.result(), config, keys, refs)
    refs["scores"] = score_samples(config, keys, refs)
    refs["pairs"] = build_pairs(config, keys, refs)
    refs["validation"] = validate_pairs(config, keys, refs)
    require_valid(refs, run_id)
    refs["reference"] = reference_logprobs(config, keys, refs)
    refs["policy"] = train_policy(config, keys, refs, run_id)
    refs["before"] = sample_before(config, keys, refs)
    refs["after"] = sample_after(config, keys, refs)
    refs["report"] = compare_models(config, keys, refs)
    judgement = apply_gates(config, refs["report"])
    record_run(given, refs, judgement, run_id)
    model = log_model(given, refs, judgement, run_id)
    where = tracking.run_url(run_id)
    show_result(refs, judgement, where)
    return AlignResult(
        run_id=run_id,
        experiment=config.registry.experiment,
        where=where,
        model=model,
        report=read_report(refs["report"]),
        judgement=judgement,
        pairs={
            "built": refs["pairs"].counts["built"],
            "accepted": refs["validation"].counts["accepted"],
            "quarantined": refs["validation"].counts["quarantined"],
        },
        seconds={name: ref.seconds for name, ref in refs.items()},
        cached=[name for name, ref in refs.items() if ref.cached],
    )
