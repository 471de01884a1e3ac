"""What two runs share, and what keeps them from being compared; and both models' samples, paired by prompt."""

from alignment.judging import sections
from alignment.judging.evaluated import Evaluated, of_first_samples
from alignment.judging.paired import Paired, pair
from alignment.judging.sections import Run

NOT_TEXTS = {"sampling.batch_tokens", "sampling.shard_prompts"}
"""Settings of the sampling that change no text."""
SCORES_BY = ("reward.kind", "reward.function", "reward.judge", "reward.parts", "reward.positive_class", "reward.reads")
"""How the settings of a reward begin that decide scores beside its model."""


def incomparable(one: Run, two: Run) -> list[str]:
    """What two runs do not share that a comparison of their figures takes for granted, each in a sentence."""
    told = {
        "reward": "They were scored by different rewards: gains, wins and spreads are in different units, and do not "
        "compare.",
        "base": "Their base models differ, so each change is a change from another model.",
    }
    found = [sentence for stage, sentence in told.items() if differs(one, two, stage)] + _other_prompts(one, two)
    differing = {name for name, _, _ in sections.settings_beside(one, two)}
    if sampling := sorted(name for name in differing if name.startswith("sampling.") and name not in NOT_TEXTS):
        found.append(f"Their texts were written with different settings of the sampling: {', '.join(sampling)}.")
    if one.report.has_reward != two.report.has_reward:
        found.append("One of them had a reward, the other had none: only what needs no reward compares.")
    return found


def paired(one: Run, two: Run, fresh: tuple[Evaluated, Evaluated] | None = None) -> Paired:
    """Their aligned models on the prompts that both were judged on, with the intervals that the first one asks for.

    Where one of the records is older and has not every sample, the first samples of both are compared, and the notes
    say so. `fresh` are samples of both that are compared in place of the recorded ones, scored by one reward.
    """
    both = fresh or samples_of(one, two)
    known = {**one.defaults, **one.settings}
    return pair(
        *both,
        same_reward=both[0].reward == both[1].reward if fresh else not differs(one, two, "reward"),
        same_base=not differs(one, two, "base"),
        resamples=int(known.get("evaluation.bootstrap", 1_000)),
        confidence=float(known.get("evaluation.confidence", one.report.confidence)),
        seed=int(known.get("seed", 0)),
    )


def samples_of(one: Run, two: Run) -> tuple[Evaluated, Evaluated]:
    """What is known of their samples: everything of both, or the first ones of both."""
    if one.evaluated is not None and two.evaluated is not None:
        return one.evaluated, two.evaluated
    return of_first_samples(one.samples, one.report.prompts), of_first_samples(two.samples, two.report.prompts)


def differs(one: Run, two: Run, stage: str) -> bool:
    """Whether a stage had another result; where a record has no lineage, whether its settings differ."""
    if stage == "reward":
        return _other_rewards(one, two)
    digests = [run.stages[stage].digest if stage in run.stages else None for run in (one, two)]
    if None not in digests:
        return digests[0] != digests[1]
    return any(name.startswith(f"{stage}.") for name, _, _ in sections.settings_beside(one, two))


def _other_prompts(one: Run, two: Run) -> list[str]:
    """What is known of whether the held-out prompts differ: of those that were set apart, not all may be recorded.

    The stage has the prompts of the training as well, so another result of it may have the same held-out ones.
    """
    if not differs(one, two, "prompts"):
        return []
    held = [_held_out(run) for run in (one, two)]
    all_recorded = None not in held
    if all_recorded and held[0] == held[1]:
        return []
    differ = all_recorded or one.report.prompts != two.report.prompts
    return [
        f"They {'were' if differ else 'may have been'} judged on different held-out prompts: "
        "a difference may be one of the prompts."
    ]


def _held_out(run: Run) -> list[str] | None:
    """What tells a run's held-out prompts apart, sorted; None where not all are recorded."""
    if run.evaluated is not None and run.evaluated.recorded == run.evaluated.prompts:
        return sorted(set(run.evaluated.table["prompt_id"].to_pylist()))
    rows = sorted(map(repr, map(sections.identity, run.samples)))
    return rows if len(rows) == run.report.prompts else None


def _other_rewards(one: Run, two: Run) -> bool:
    """Whether scores may be in other units: by the digest of all that decides them, where both records have it.

    Else by the model's digest and by the settings: a function's or a judge's stage holds no model.
    """
    digests = [run.evaluated.reward if run.evaluated is not None else "" for run in (one, two)]
    if all(digests):
        return digests[0] != digests[1]
    models = [run.stages["reward"].digest if "reward" in run.stages else None for run in (one, two)]
    if None not in models and models[0] != models[1]:
        return True
    names = SCORES_BY if None not in models else ("reward.",)
    return any(name.startswith(names) for name, _, _ in sections.settings_beside(one, two))
