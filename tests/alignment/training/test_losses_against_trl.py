"""Loss and gradient of a whole batch, from token ids to every weight, against TRL's DPOTrainer.

TRL's alpha-divergence runs the other way: its coefficient is 1 − `dpo.divergence_alpha`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignment import layout
from alignment.config import DPOConfig
from alignment.logprobs import computing, score_completions
from alignment.training import dpo

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # TRL's own setting

VOCABULARY = 300
BETA = 0.3
NLL_WEIGHT = 0.7
TOLERANCE = 1e-5
"""Of a gradient, relative to the largest of its weight's."""

Pair = dict[str, Any]
Gradients = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One objective as the two sides spell it.

    TRL's NLL is a mean over a batch's tokens, not over its pairs as in the paper that it cites: the two are one where a
    batch is one pair, so there TRL gets the pairs one at a time.
    """

    ours: DPOConfig
    theirs: dict[str, Any]
    batch: int = 8
    noise: float = 0.05
    """How far the policy is from the reference: under the forward KL, e^4 times the rounding of a log-ratio of −4."""


CASES = {
    "sigmoid": Case(DPOConfig(loss="sigmoid", beta=BETA), {"loss_type": "sigmoid"}),
    "hinge": Case(DPOConfig(loss="hinge", beta=BETA), {"loss_type": "hinge"}),
    "ipo": Case(DPOConfig(loss="ipo", beta=BETA), {"loss_type": "ipo"}),
    "robust": Case(
        DPOConfig(loss="robust", beta=BETA, label_smoothing=0.1), {"loss_type": "robust", "label_smoothing": 0.1}
    ),
    "sigmoid under forward KL": Case(
        DPOConfig(loss="sigmoid", divergence="forward_kl", beta=BETA), {"f_divergence_type": "forward_kl"}, noise=0.02
    ),
    "hinge under Jensen-Shannon": Case(
        DPOConfig(loss="hinge", divergence="jensen_shannon", beta=BETA),
        {"loss_type": "hinge", "f_divergence_type": "js_divergence"},
    ),
    "robust under alpha": Case(
        DPOConfig(loss="robust", label_smoothing=0.1, divergence="alpha", divergence_alpha=0.3, beta=BETA),
        {
            "loss_type": "robust",
            "label_smoothing": 0.1,
            "f_divergence_type": "alpha_divergence",
            "f_alpha_divergence_coef": 0.7,
        },
    ),
    "sigmoid and NLL": Case(
        DPOConfig(loss="sigmoid", beta=BETA, nll_weight=NLL_WEIGHT),
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, NLL_WEIGHT]},
        batch=1,
    ),
}


@pytest.fixture(scope="module")
def reference(tiny_gpt2: Callable[..., Any]) -> Any:
    return tiny_gpt2(0, vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def make_policy(tiny_gpt2: Callable[..., Any]) -> Callable[..., Any]:
    """Builds the reference with a little noise, always the same, so that margins are of both signs and not zero."""

    def build(noise: float = 0.05) -> Any:
        model = tiny_gpt2(0, vocab_size=VOCABULARY)
        draws = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(noise * torch.randn(weight.shape, generator=draws))
        return model

    return build


@pytest.fixture(scope="module")
def pairs(reference: Any) -> list[Pair]:
    """Eight pairs of unlike lengths; every other completion ends in EOS, which is also the padding."""
    draws = np.random.default_rng(2)

    def ids(shortest: int, longest: int, *end: int) -> list[int]:
        return [*draws.integers(1, VOCABULARY, draws.integers(shortest, longest + 1)).tolist(), *end]

    found: list[Pair] = [
        {
            "prompt_ids": ids(1, 9),
            "chosen_ids": ids(2, 12, *[0] * (row % 2)),
            "rejected_ids": ids(2, 12, *[0] * (row // 2 % 2)),
        }
        for row in range(8)
    ]
    prompts = [pair["prompt_ids"] for pair in found]
    for side in ("chosen", "rejected"):
        completions = [pair[f"{side}_ids"] for pair in found]
        scores = score_completions(reference, prompts, completions, pad_id=0)
        for pair, score in zip(found, scores, strict=True):
            pair[f"reference_{side}"] = float(score)
    return found


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


LAYOUTS: dict[str, tuple[bool, list[Sequence[int]]]] = {
    "padded": (False, [range(8)]),
    "padded, in buckets": (False, [range(8)]),
    "flat": (True, [range(8)]),
    "flat, backwards": (True, [range(7, -1, -1)]),
    "flat, one by one": (True, [[row] for row in range(8)]),
    "flat, five and three": (True, [range(5), range(5, 8)]),
}
"""Whether pairs lie flat, and which share a batch."""


@pytest.fixture(scope="module", params=LAYOUTS)
def ours(
    request: pytest.FixtureRequest, case: Case, make_policy: Callable[..., Any], pairs: list[Pair]
) -> tuple[float, Gradients]:
    """The mean loss of all pairs, and its gradient, which their batches add up to."""
    is_flat, batches = LAYOUTS[request.param]
    in_buckets = "buckets" in request.param
    model, loss = make_policy(case.noise), 0.0
    with pytest.MonkeyPatch.context() as patch, computing(model, is_flat=is_flat):
        patch.setattr(layout, "WORTH_TOKENS", 1 if in_buckets else 1_000_000)
        for rows in batches:
            batch = dpo.collate([pairs[row] for row in rows], pad_id=0, flat=is_flat)
            assert len(batch["layouts"]) == 1 + in_buckets
            part = dpo.objective(dpo.pair_logps(model, batch)[0], case.ours).sum() / len(pairs)
            part.backward()
            loss += part.item()
    return loss, {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.fixture(scope="module")
def theirs(
    case: Case,
    make_policy: Callable[..., Any],
    tiny_tokenizer: Any,
    reference: Any,
    pairs: list[Pair],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[float, Gradients]:
    """TRL pads, scores and compares by itself: it gets the same token ids, and the reference as a model."""
    model = make_policy(case.noise)
    examples = [{name: pair[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for pair in pairs]
    trainer = trl_trainer(case.theirs, model, reference, examples, tiny_tokenizer, tmp_path_factory.mktemp("trl"))
    batches = [examples[start : start + case.batch] for start in range(0, len(examples), case.batch)]
    losses = [trainer.compute_loss(model, trainer.data_collator(batch)) for batch in batches]
    return backward(model, torch.stack(losses).mean())


def trl_trainer(
    settings: dict[str, Any], model: Any, reference: Any, examples: list[Pair], tokenizer: Any, folder: Path
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig as TRLConfig
    from trl import DPOTrainer as TRLTrainer

    class OnTokenIds(TRLTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

    args = TRLConfig(
        str(folder),
        beta=BETA,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
        **settings,
    )
    return OnTokenIds(
        model, ref_model=reference, args=args, train_dataset=Dataset.from_list(examples), processing_class=tokenizer
    )


def backward(model: Any, loss: torch.Tensor) -> tuple[float, Gradients]:
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


def test_the_batch_tells_the_losses_apart(make_policy: Callable[..., Any], pairs: list[Pair]) -> None:
    """Margins of both signs, and at least one past the hinge's corner."""
    found, _ = dpo.pair_logps(make_policy(), dpo.collate(pairs, pad_id=0))
    margins = BETA * found.logratio_gap
    assert margins.min() < -0.1
    assert margins.max() > 1


def test_loss(ours: tuple[float, Gradients], theirs: tuple[float, Gradients]) -> None:
    assert ours[0] == pytest.approx(theirs[0], abs=TOLERANCE)


def test_gradient_of_every_weight(ours: tuple[float, Gradients], theirs: tuple[float, Gradients]) -> None:
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in ours[1].items():
        torch.testing.assert_close(
            gradient,
            theirs[1][name],
            atol=TOLERANCE * float(theirs[1][name].abs().max()),
            rtol=0,
            msg=partial("{}: {}".format, name),
        )


DIVERGENCES: dict[str, dict[str, Any]] = {
    "reverse_kl": {"f_divergence_type": "reverse_kl"},
    "forward_kl": {"f_divergence_type": "forward_kl"},
    "jensen_shannon": {"f_divergence_type": "js_divergence"},
    "alpha": {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.8},
}


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(("loss", "smoothing"), [("sigmoid", 0.0), ("hinge", 0.0), ("robust", 0.1)])
def test_each_divergence_with_each_loss_far_from_the_reference(
    divergence: str,
    loss: str,
    smoothing: float,
    make_policy: Callable[..., Any],
    reference: Any,
    pairs: list[Pair],
    tiny_tokenizer: Any,
    tmp_path: Path,
) -> None:
    """Log-ratios from −12 to 12 nats: each side is given a reference that is that far from its own log-probs.

    Pair by pair to 1e-5, of the loss where that is above 1: the largest are 50,000.
    """
    chosen, rejected = torch.linspace(-12, 12, 16)[
        torch.randperm(16, generator=torch.Generator().manual_seed(3))
    ].chunk(2)
    examples = [{name: pair[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for pair in pairs]
    settings = {"loss_type": loss, "label_smoothing": smoothing, **DIVERGENCES[divergence]}
    model = make_policy()
    trainer = trl_trainer(settings, model, reference, examples, tiny_tokenizer, tmp_path)
    trainer.precompute_ref_logps = True
    theirs = []
    with torch.no_grad():
        found, _ = dpo.pair_logps(model, dpo.collate(pairs, pad_id=0))
        for row, example in enumerate(examples):
            batch = trainer.data_collator([example])
            logps = trainer.compute_ref_log_probs(model, batch)
            batch |= {"ref_chosen_logps": logps[0] - chosen[row], "ref_rejected_logps": logps[1] - rejected[row]}
            theirs.append(trainer.compute_loss(model, batch).item())
    ours = dpo.objective(
        replace(found, reference_chosen=found.chosen - chosen, reference_rejected=found.rejected - rejected),
        DPOConfig(loss=loss, label_smoothing=smoothing, divergence=divergence, divergence_alpha=0.2, beta=BETA),
    )
    assert ours.tolist() == pytest.approx(theirs, rel=1e-5, abs=1e-5)


def test_conservative_sigmoid_by_hand(reference: Any, pairs: list[Pair]) -> None:
    """TRL has no sigmoid with noisy labels. At policy = reference the gradient is (1 − 2ε) of the clean one's.

    −(1−ε) log σ(m) − ε log σ(−m) has the derivative −(1−ε) σ(−m) + ε σ(m), which is −(1 − 2ε)/2 at m = 0.
    """
    batch = dpo.collate(pairs, pad_id=0)
    gradients = {}
    for smoothing in (0.0, 0.1):
        reference.zero_grad()
        found, _ = dpo.pair_logps(reference, batch)
        objective = dpo.objective(found, DPOConfig(loss="sigmoid", beta=BETA, label_smoothing=smoothing))
        gradients[smoothing] = backward(reference, objective.mean())[1]
    for name, clean in gradients[0.0].items():
        torch.testing.assert_close(gradients[0.1][name], 0.8 * clean, atol=TOLERANCE, rtol=0)
