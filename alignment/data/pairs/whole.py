"""Samples in batches of whole prompts, and pairs of them, column by column."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from alignment.parquet import GROUP_ROWS
from alignment.rows import PAIRS

READ = ["prompt_id", "prompt", "prompt_ids", "index", "ids", "text", "logprob", "exact_logprob"]
"""What `pairs_of` takes of samples."""


def whole_prompts(batches: Iterable[pa.Table]) -> Iterator[tuple[pa.Table, list[range]]]:
    """Samples, of which those of a prompt stand together, in tables that break no prompt; and each prompt's rows."""
    rest: pa.Table | None = None
    for batch in batches:
        table = batch if rest is None else pa.concat_tables([rest, batch])
        *done, last = prompts_of(table)  # which may go on in the next batch
        if done:
            yield table.slice(0, last.start), done
        rest = table.slice(last.start)
    if rest is not None:
        yield rest, prompts_of(rest)


def prompts_of(samples: pa.Table) -> list[range]:
    """The rows of each prompt, of samples of which those of a prompt stand together."""
    ends = pc.run_end_encode(samples["prompt_id"].combine_chunks()).run_ends.to_pylist()
    return [range(first, last) for first, last in pairwise([0, *ends])]


def pairs_of(samples: pa.Table, chosen: Sequence[int], rejected: Sequence[int], strategy: str) -> Iterator[pa.Table]:
    """The pairs of some samples, given by their numbers, with others of their prompts: tables as `PAIRS` has them.

    Samples without `reward` give pairs without scores.
    """
    for first in range(0, len(chosen), GROUP_ROWS):
        better, worse = (samples.take(side[first : first + GROUP_ROWS]) for side in (chosen, rejected))
        yield _pairs(better, worse, strategy)


def _pairs(better: pa.Table, worse: pa.Table, strategy: str) -> pa.Table:
    none, sides = pa.nulls(len(better), pa.float64()), {"chosen": better, "rejected": worse}
    columns = {name: better[name] for name in ("prompt_id", "prompt", "prompt_ids")}
    for side, samples in sides.items():
        columns |= {
            side: samples["text"],
            f"{side}_ids": samples["ids"],
            f"{side}_tokens": pc.list_value_length(samples["ids"]),
            f"{side}_score": samples["reward"] if "reward" in samples.column_names else none,
            f"{side}_logprob": samples["logprob"],
        }
    indices = [samples["index"].cast(pa.string()) for samples in sides.values()]
    columns |= {
        "pair_id": pc.binary_join_element_wise(better["prompt_id"], *indices, "-"),
        "gap": pc.subtract(columns["chosen_score"], columns["rejected_score"]),
        "exact_logprob": pc.and_(better["exact_logprob"], worse["exact_logprob"]),
        "strategy": pa.repeat(strategy, len(better)),
        "fault": pa.repeat("", len(better)),
    }
    return pa.table(columns).select(PAIRS.schema.names).cast(PAIRS.schema)
