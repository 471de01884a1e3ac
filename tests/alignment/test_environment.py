"""The environment decides neither a training's precision nor its processes, and is found unchanged afterwards."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment import environment
from alignment.config import BaseConfig
from alignment.environment import configuration_alone, drop_overrides
from alignment.training.harness import SafeTrainer, Settings, arguments
from alignment.training.sft import train_base

TEXTS = ["a fine film", "the plot was fine", "a dull film", "the acting was dull"] * 10
SMALL = BaseConfig(layers=1, width=16, heads=2, context=16, batch_size=8, learning_rate=1e-2, steps=3)

FOREIGN = {  # who sets it: what a training did with it
    "accelerate config: trained in bf16": {"ACCELERATE_MIXED_PRECISION": "bf16"},
    "accelerate config: an unknown precision ended it": {"ACCELERATE_MIXED_PRECISION": "nonsense"},
    "accelerate: a step every fourth batch": {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
    "accelerate: compiled": {"ACCELERATE_DYNAMO_BACKEND": "inductor", "ACCELERATE_DYNAMO_MODE": "max-autotune"},
    "accelerate: sharded": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"},
    "accelerate: DeepSpeed, which is not there": {"ACCELERATE_USE_DEEPSPEED": "true"},
    "accelerate: Megatron, which is not there": {"ACCELERATE_USE_MEGATRON_LM": "true", "MEGATRON_LM_TP_DEGREE": "2"},
    "accelerate: a mesh of devices": {
        "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
        "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2",
    },
    "accelerate: another device": {"ACCELERATE_TORCH_DEVICE": "meta"},
    "accelerate: no truth value": {"ACCELERATE_DEBUG_MODE": "perhaps", "FORK_LAUNCHED": "perhaps"},
    "torchrun: waited for a second process": {
        **{"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29501", "TORCHELASTIC_RUN_ID": "x"},
    },
    "a job manager: the second of two": {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"},
    "a service of Kubernetes called master": {"MASTER_PORT": "tcp://10.0.0.1:80", "LOCAL_RANK": "0"},
    "MPICH": {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
    "Open MPI": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
    "MVAPICH2": {"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_LOCAL_RANK": "0"},
    "SageMaker": {"SM_FRAMEWORK_PARAMS": '{"sagemaker_mpi_enabled": true}', "SMDATAPARALLEL_LOCAL_RANK": "0"},
    "Kubeflow: reported to its server": {"KUBEFLOW_TRAINER_SERVER_URL": "http://127.0.0.1:9"},
    "not a number": {"LOCAL_RANK": "first", "WORLD_SIZE": ""},
}


@pytest.fixture(autouse=True)
def _untold(monkeypatch: pytest.MonkeyPatch) -> None:
    environment._warn.cache_clear()
    monkeypatch.setattr(environment, "_dropped", set())


@pytest.fixture
def weights(tmp_path: Path, tiny_tokenizer: Any) -> Callable[[str], dict[str, torch.Tensor]]:
    def train(name: str) -> dict[str, torch.Tensor]:
        loaded, _ = train_base(TEXTS, tiny_tokenizer, SMALL, seed=0, work=tmp_path / name)
        state: dict[str, torch.Tensor] = loaded.model.state_dict()
        return state

    return train


@pytest.mark.parametrize("variables", FOREIGN.values(), ids=FOREIGN)
def test_the_environment_does_not_change_a_training(
    variables: dict[str, str],
    weights: Callable[[str], dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    undisturbed = weights("undisturbed")
    assert not _told(caplog)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    trained = weights("disturbed")
    assert all(torch.equal(trained[name], value) for name, value in undisturbed.items())
    assert dict(os.environ) == before
    (told,) = _told(caplog)
    assert all(name in told for name in variables)


@pytest.mark.parametrize(("bf16", "precision"), [(True, "bf16"), (False, "no")])
def test_the_arguments_decide_the_precision(
    bf16: bool, precision: str, tmp_path: Path, tiny_gpt2: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no" if bf16 else "bf16")
    trainer = SafeTrainer(model=tiny_gpt2(), args=_arguments(tmp_path, bf16=bf16))
    assert trainer.accelerator.mixed_precision == precision


def test_a_training_in_bf16_leaves_nothing_to_the_next_one(tmp_path: Path, tiny_gpt2: Callable[..., Any]) -> None:
    before = dict(os.environ)
    SafeTrainer(model=tiny_gpt2(), args=_arguments(tmp_path, bf16=True))
    assert dict(os.environ) == before
    trainer = SafeTrainer(model=tiny_gpt2(), args=_arguments(tmp_path, bf16=False))
    assert trainer.accelerator.mixed_precision == "no"


def test_what_the_libraries_write_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with configuration_alone():
        os.environ |= {"ACCELERATE_MIXED_PRECISION": "bf16", "WORLD_SIZE": "1", "OTHER": "kept"}
    assert "ACCELERATE_MIXED_PRECISION" not in os.environ
    assert (os.environ["WORLD_SIZE"], os.environ.pop("OTHER")) == ("4", "kept")


def test_trainings_that_overlap_both_train_undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ends while the second trains, and what was hidden comes back with the second's end."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    first, second = configuration_alone(), configuration_alone()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert "LOCAL_RANK" not in os.environ
    second.__exit__(None, None, None)
    assert os.environ["LOCAL_RANK"] == "0"


def test_the_environment_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ZeroDivisionError), configuration_alone():
        _ = 1 / 0
    assert os.environ["RANK"] == "1"


def test_devices_and_threads_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    stays = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "7", "RANKING": "x"}
    for name, value in stays.items():
        monkeypatch.setenv(name, value)
    with configuration_alone():
        assert {name: os.environ[name] for name in stays} == stays


@pytest.mark.parametrize(
    "name",
    [
        *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "HIPBLASLT_ALLOW_TF32"),
        *("CUBLAS_EMULATION_STRATEGY", "CUBLAS_EMULATE_SINGLE_PRECISION", "ONEDNN_DEFAULT_FPMATH_MODE"),
        *("DNNL_DEFAULT_FPMATH_MODE", "PYTORCH_MPS_FAST_MATH"),
    ],
)
def test_fewer_bits_than_fp32_are_dropped_and_a_training_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, "1")
    drop_overrides()
    assert name not in os.environ
    for _ in range(2):
        with configuration_alone():
            pass
    (told,) = _told(caplog)
    assert name in told


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == environment.__name__]


def _arguments(work: Path, *, bf16: bool) -> Any:
    return arguments(work, Settings(2, 2, 1e-3, 0, 1, 9, precision="bf16" if bf16 else "fp32"), seed=0)


def test_a_process_of_a_group_that_a_stage_started_keeps_what_it_knows_of_the_group_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the mark of who started it, the same variables are some other program's."""
    group = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_PORT": "29501", "TORCHELASTIC_RUN_ID": "x"}
    foreign = {"ACCELERATE_MIXED_PRECISION": "bf16", "FSDP_VERSION": "2", "PMI_SIZE": "2"}
    for name, value in (group | foreign).items():
        monkeypatch.setenv(name, value)
    for processes, kept in (("1", {}), ("2", group)):
        monkeypatch.setenv(environment.PROCESSES, processes)
        with configuration_alone():
            assert {name: os.environ[name] for name in group | foreign if name in os.environ} == kept
        assert {name: os.environ[name] for name in group | foreign} == group | foreign
