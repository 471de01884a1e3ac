"""Batches hold rows of like lengths within a number of tokens, and shrink where the memory is too small."""

import logging

import pytest
import torch

from alignment.batching import batches, in_batches, is_out_of_memory
from alignment.errors import ModelError
from alignment.models import using

LENGTHS = [5, 1, 9, 1, 5, 3]


def test_rows_of_like_lengths_share_a_batch_within_the_tokens() -> None:
    assert list(batches(LENGTHS, 10)) == [[1, 3, 5], [0, 4], [2]]


def test_a_row_that_is_longer_than_the_tokens_has_a_batch_of_its_own() -> None:
    assert list(batches([20, 1, 2], 4)) == [[1, 2], [0]]


def test_no_rows_make_no_batch() -> None:
    assert not list(batches([], 4))


def test_all_rows_are_done_and_told_of() -> None:
    done: list[int] = []
    told: list[tuple[int, int]] = []
    in_batches(LENGTHS, 10, done.extend, name="m", field="f", progress=lambda *found: told.append(found))
    assert sorted(done) == list(range(6))
    assert told == [(3, 6), (5, 6), (6, 6)]


def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    def work(rows: list[int]) -> None:
        with using("the model", "scoring"):  # as all work with a model is
            if len(rows) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(rows))

    with caplog.at_level(logging.WARNING):
        in_batches([4] * 16, 32, work, name="the model", field="sampling.batch_tokens")
    assert sum(sizes) == 16
    assert [record.getMessage() for record in caplog.records] == [
        "the model: 32 tokens at once do not fit; sampling.batch_tokens is 16 from here on",
        "the model: 16 tokens at once do not fit; sampling.batch_tokens is 8 from here on",
    ]


@pytest.mark.parametrize(
    ("said", "is_memory"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("NCCL error in: NCCLUtils.hpp:268, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'", True),
        ("CUDA error: out of memory", True),
        ("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate", True),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`", False),
        ("CUDA error: device-side assert triggered", False),
    ],
)
def test_a_lack_of_memory_is_known_by_what_a_library_says(said: str, is_memory: bool) -> None:
    assert is_out_of_memory(RuntimeError(said)) is is_memory


def test_a_single_row_that_does_not_fit_is_an_error() -> None:
    def work(_: list[int]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match="does not hold one sequence of 9 tokens"):
        in_batches([9], 32, work, name="the model", field="f")


def test_other_errors_go_through() -> None:
    def work(_: list[int]) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        in_batches([9], 32, work, name="the model", field="f")
