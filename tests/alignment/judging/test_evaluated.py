"""Every sample of an evaluation in one table: what it holds, what it leaves out, and what it says of that."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.errors import RecordError
from alignment.judging.evaluated import Evaluated, gather, of_first_samples, read, with_facts
from alignment.judging.report import SampleRow


def samples(prompts: int = 3, per_prompt: int = 2, **columns: list[Any]) -> pa.Table:
    """Samples in the prompts' order: prompt n's text has n characters, each completion 10."""
    rows = [
        {
            "prompt_id": f"p{number}",
            "prompt": "x" * number,
            "index": index,
            "ids": [1, 2, 3][: index + 1],
            "completion": "c" * 10,
            "finished": True,
            "reward": float(number),
            "logprob": -1.0,
            "base_logprob": -2.0,
        }
        for number in range(prompts)
        for index in range(per_prompt)
    ]
    table = pa.Table.from_pylist(rows)
    for name, values in columns.items():
        table = table.append_column(name.replace("__", "."), pa.array(values, pa.float64()))
    return table


def made(**options: Any) -> Evaluated:
    return gather(samples(), samples(), {}, reward="r", base="b", **options)


def test_both_models_samples_are_there_with_lengths_in_tokens() -> None:
    found = made()
    assert found.table["side"].to_pylist() == ["base"] * 6 + ["aligned"] * 6
    assert found.side("aligned")["tokens"].to_pylist() == [1, 2] * 3
    assert (found.prompts, found.recorded, found.with_text, found.left_out) == (3, 3, 3, "")


def test_what_judges_said_of_a_sample_stands_beside_it() -> None:
    gold = pa.table({"side": ["before"] * 6 + ["after"] * 6, "gold.second": pa.array(range(12), pa.float64())})
    both = samples(judged__fluent=[0.5] * 6), samples(judged__fluent=[1.0] * 6, part__style=[2.0] * 6)
    found = gather(*both, {"p1": "[]"}, gold, reward="r", base="b")
    assert found.side("aligned")["gold.second"].to_pylist() == [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
    assert found.side("base")["judged.fluent"].to_pylist() == [0.5] * 6
    assert found.side("base")["part.style"].to_pylist() == [None] * 6
    assert found.side("base")["messages"].to_pylist() == ["", "", "[]", "[]", "", ""]


def test_prompts_are_left_out_whole_and_from_the_end() -> None:
    found = made(max_rows=8)  # a prompt has two samples of each model
    assert sorted(set(found.table["prompt_id"].to_pylist())) == ["p0", "p1"]
    assert found.left_out == "Recorded are the first 2 of 3 held-out prompts."


def test_texts_are_left_out_where_there_is_no_room_and_the_numbers_stay() -> None:
    """Prompt n takes 4 times n + 10 characters: 40, 44, 48."""
    found = made(max_characters=84)
    assert found.table["completion"].null_count == 4
    assert found.table["prompt"].null_count == 4
    assert found.table["reward"].null_count == 0
    assert found.left_out == "Texts are recorded of the first 2 of 3 held-out prompts."
    assert made(max_characters=83).with_text == 1


def test_it_is_read_as_it_was_written(tmp_path: Any) -> None:
    found = made(max_rows=8)
    pq.write_table(with_facts(found), tmp_path / "x.parquet")
    again = read(pq.read_table(tmp_path / "x.parquet"))
    assert again.table.equals(found.table)
    assert (again.reward, again.base, again.prompts, again.left_out) == ("r", "b", 3, found.left_out)


def test_another_table_is_no_record() -> None:
    with pytest.raises(RecordError, match="not a record of samples"):
        read(samples())
    table = with_facts(made())
    with pytest.raises(RecordError, match="no column reward"):
        read(table.drop_columns(["reward"]))
    newer = table.schema.metadata[b"plumbline"].replace(b'"form": 1', b'"form": 9')
    with pytest.raises(RecordError, match="form 9 is newer"):
        read(table.replace_schema_metadata({b"plumbline": newer}))


def test_an_older_record_has_first_samples_alone_and_says_so() -> None:
    rows = [
        SampleRow(prompt="film", base="film bad", base_reward=-1.0, aligned="film good", aligned_reward=1.0),
        SampleRow(prompt="plot", base="plot", base_reward=None, aligned="plot!", aligned_reward=0.0),
    ]
    found = of_first_samples(rows, prompts=96)
    assert found.side("aligned")["completion"].to_pylist() == [" good", "!"]
    assert found.side("base")["reward"].to_pylist() == [-1.0, None]
    assert found.left_out.startswith("This record keeps one sample of the first 2 of 96 held-out prompts")
