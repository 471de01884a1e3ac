"""The metrics, in the order of the result's table: each declared once, beside what computes it."""

import numpy as np
import numpy.typing as npt

from alignment.judging import arithmetic
from alignment.judging.arithmetic import Lengths, Tokens, Values
from alignment.judging.formats import PERCENT, SIGNED, TENTHS, THOUSANDTHS, TIMES
from alignment.judging.measured import Measured
from alignment.judging.metric import Both, metric, ratio
from alignment.judging.statistics import gain_at_equal_length, length_matched_win_rate, paired_bootstrap, wins
from alignment.judging.statistics import win_rate as fraction_won

Completions = list[Tokens]
Estimate = tuple[float, tuple[float, float]]
"""A value and its confidence interval."""


@metric("reward_mean", label="reward, mean", format=SIGNED, better="higher", change="reward_gain")
def reward_mean(rewards: Values) -> float:
    """Mean reward of the samples."""
    return arithmetic.reward_mean(rewards)


@metric("reward_gain", label="reward gain", of="both", format=SIGNED, better="higher", shown="")
def reward_gain(both: Both) -> Estimate | None:
    """Mean over prompts of aligned minus base, with a paired bootstrap over prompts; None where none was scored."""
    if not both.prompts:
        return None
    before, after = both.rewards
    with np.errstate(invalid="ignore"):
        differences = after - before
    interval = paired_bootstrap(differences, both.config.bootstrap, both.config.confidence, both.seed)
    return float(differences.mean()), interval


@metric(
    "reward_gain_in_sd",
    label="reward gain",
    unit="SDs of the base's reward",
    of="both",
    format=SIGNED,
    better="higher",
    shown="change",
)
def reward_gain_in_sd(both: Both) -> float | None:
    """The gain over the standard deviation of the base's rewards."""
    if not both.prompts:
        return None
    before, after = both.rewards
    with np.errstate(invalid="ignore"):
        gain = float((after - before).mean())
    return ratio(gain, arithmetic.reward_sd(both.base.scores))


@metric(
    "reward_gain_at_equal_length",
    label="reward gain at equal length",
    of="both",
    format=SIGNED,
    better="higher",
    shown="change",
)
def reward_gain_at_equal_length(both: Both) -> Estimate | None:
    """The gain that is left once length is regressed out, with a bootstrap over prompts; None where it may be all."""
    if not both.prompts:
        return None
    return gain_at_equal_length(*both.samples(), both.config.bootstrap, both.config.confidence, both.seed)


@metric("reward_sd", label="reward, SD", change="ratio")
def reward_sd(rewards: Values) -> float:
    """Sample standard deviation of the rewards."""
    return arithmetic.reward_sd(rewards)


@metric("win_rate", label="prompts won by the aligned model", of="both", format=PERCENT, better="higher")
def win_rate(both: Both) -> Estimate | None:
    """Fraction of prompts on which the aligned model's mean reward is higher, ties counted one half."""
    if not both.prompts:
        return None
    before, after = both.rewards
    config = both.config
    interval = paired_bootstrap(wins(before, after), config.bootstrap, config.confidence, both.seed)
    return fraction_won(before, after), interval


@metric("win_rate_length_matched", label="prompts won, at like lengths", of="both", format=PERCENT, better="higher")
def win_rate_length_matched(both: Both) -> float | None:
    """The same over the prompts whose mean lengths differ by at most 10%; None where there are none."""
    return length_matched_win_rate(*both.rewards, *both.lengths) if both.prompts else None


@metric("perplexity", label="perplexity under the base", change="ratio")
def perplexity(base_logprobs: Values, lengths: Lengths) -> float:
    """exp of minus the total log-prob under the base model over the total number of tokens."""
    return arithmetic.perplexity(base_logprobs, lengths)


@metric("kl_per_token", label="KL from the base", unit="nats per token", of="aligned", format=THOUSANDTHS)
def kl_per_token(policy_logprobs: Values, base_logprobs: Values, lengths: Lengths) -> float:
    """KL(policy || reference) in nats per token, estimated on the policy's samples."""
    return arithmetic.kl_per_token(policy_logprobs, base_logprobs, lengths)


@metric("kl", label="KL from the base", unit="nats per sequence", of="aligned")
def kl(policy_logprobs: Values, base_logprobs: Values) -> float:
    """KL(policy || reference) in nats per sequence, estimated on the policy's samples."""
    return arithmetic.kl_per_sequence(policy_logprobs, base_logprobs)


@metric("entropy", label="unigram entropy", unit="nats")
def entropy(completions: Completions) -> float:
    """Shannon entropy of the unigram distribution over all generated tokens."""
    return arithmetic.token_entropy(completions)


@metric("distinct_1", label="distinct 1-grams", format=PERCENT)
def distinct_1(completions: Completions) -> float:
    """Distinct tokens over generated tokens: Li et al. 2016."""
    return arithmetic.distinct_n(completions, 1)


@metric("distinct_2", label="distinct 2-grams", format=PERCENT)
def distinct_2(completions: Completions) -> float:
    """Distinct pairs of tokens over generated tokens: Li et al. 2016."""
    return arithmetic.distinct_n(completions, 2)


@metric("distinct_3", label="distinct 3-grams", format=PERCENT)
def distinct_3(completions: Completions) -> float:
    """Distinct triples of tokens over generated tokens: Li et al. 2016."""
    return arithmetic.distinct_n(completions, 3)


@metric("repetition", label="repeated 3-grams in a text", format=PERCENT, better="lower")
def repetition(completions: Completions) -> float:
    """Fraction of repeated 3-grams within a text, mean over texts: Welleck et al. 2020."""
    return arithmetic.repetition(completions)


@metric("length", label="length", unit="tokens", format=TENTHS)
def length(lengths: Lengths) -> float:
    """Mean completion length, EOS included."""
    return float(np.asarray(lengths).mean())


@metric("finished", label="texts ended by EOS", format=PERCENT)
def ended(finished: npt.NDArray[np.bool_]) -> float:
    """Fraction of texts that ended by EOS."""
    return float(np.mean(finished))


@metric("word_perplexity", label="perplexity to a trigram model of real texts", unit="per word", change="ratio")
def word_perplexity(word_logprobs: Values, words: Values) -> float:
    """exp of minus the total log-prob of words over their number; nan where there is none."""
    total = float(np.sum(words))
    return float(np.exp(-np.sum(word_logprobs) / total)) if total else float("nan")


@metric("seen_bigrams", label="pairs of words that real texts have", format=PERCENT, better="higher")
def seen_bigrams(seen_bigrams: Values, bigrams: Values) -> float:
    """Bigrams of the samples that stand in the real texts, over all bigrams; nan where there is none."""
    return ratio(float(np.sum(seen_bigrams)), float(np.sum(bigrams)))


@metric("realism_auc", label="told from real texts", unit="AUC, 0.5 by chance", format=THOUSANDTHS, better="lower")
def realism_auc(outranked: Values) -> float:
    """Mean share of real texts that a classifier finds more real than a sample: the AUC; nan where none was told."""
    told = np.asarray(outranked)[~np.isnan(outranked)]
    return float(told.mean()) if told.size else float("nan")


@metric("grammatical", label="grammatical sentences", format=PERCENT, better="higher")
def grammatical(grammatical: Values) -> float:
    """Fraction of sentences that the judge `grammar` parses."""
    return float(np.mean(grammatical))


@metric("grammar_drop", label="drop of grammatical sentences", of="both", format=PERCENT, better="lower", shown="")
def grammar_drop(both: Both) -> float | None:
    """How much smaller that fraction is than the base's; the change of `grammatical` by its older name."""
    before, after = both.base.judged.get("grammatical"), both.aligned.judged.get("grammatical")
    return None if before is None or after is None else float(np.mean(before)) - float(np.mean(after))


@metric("gold_sentiment", label="gold sentiment", unit="−1 to 1, by the grammar", format=SIGNED, better="higher")
def gold_sentiment(gold_sentiment: Values) -> float:
    """Mean polarity of those sentences, by a judge that labels nothing."""
    return float(np.mean(gold_sentiment))


@metric(
    "anchor_kl_per_token",
    label="KL from the anchor, the first base",
    unit="nats per token",
    of="anchor",
    format=THOUSANDTHS,
)
def anchor_kl_per_token(_: Measured, model: Measured) -> float:
    """KL(model || anchor), on the model's samples."""
    return arithmetic.kl_per_token(model.policy_logprobs, model.base_logprobs, model.lengths)


@metric(
    "anchor_perplexity_ratio",
    label="perplexity under the anchor, over its own",
    of="anchor",
    format=TIMES,
    change="",
)
def anchor_perplexity_ratio(anchor: Measured, model: Measured) -> float:
    """Perplexity under the anchor, the model's samples over the anchor's own."""
    own = arithmetic.perplexity(anchor.base_logprobs, anchor.lengths)
    return ratio(arithmetic.perplexity(model.base_logprobs, model.lengths), own)


@metric(
    "anchor_reward_gain",
    label="reward above the anchor's",
    of="anchor",
    format=SIGNED,
    better="higher",
    change="",
)
def anchor_reward_gain(anchor: Measured, model: Measured) -> float | None:
    """Mean reward of the model's samples minus that of the anchor's own on the same prompts."""
    if not model.scores.size or not anchor.scores.size:
        return None
    return float(np.mean(model.scores)) - float(np.mean(anchor.scores))


@metric("anchor_reward_sd_ratio", label="reward SD over the anchor's", of="anchor", format=TIMES, shown="", change="")
def anchor_reward_sd_ratio(anchor: Measured, model: Measured) -> float | None:
    """Reward SD of the model's samples over that of the anchor's own."""
    if model.scores.size < 2 or anchor.scores.size < 2:
        return None
    return ratio(float(np.std(model.scores, ddof=1)), float(np.std(anchor.scores, ddof=1)))
