"""`plumbline import gguf`: one line of what was written, and one line of what is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.alignment.gguf_file import CONTEXT, small_file


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """`call(arguments)`: exit code, output and errors of the command."""
    from flows.cli.commands import main

    for name in ("TQDM_DISABLE", "TRANSFORMERS_VERBOSITY", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["import", "gguf", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def test_it_says_what_was_written(call: Callable[..., Any], tmp_path: Path, tiny_tokenizer: Any) -> None:
    file = small_file(tmp_path / "small.gguf", tiny_tokenizer).write()
    code, out, _ = call(file, tmp_path / "model")
    assert code == 0
    told = " ".join(out.split())
    for part in (str(tmp_path / "model"), "llama", "million parameters", f"{CONTEXT} tokens", "with a chat template"):
        assert part in told
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_what_is_wrong_is_one_line(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("a text")
    for file, why in ((tmp_path / "nothing.gguf", "No such file"), (tmp_path / "text.gguf", "is not a GGUF file")):
        code, out, err = call(file, tmp_path / "model")
        assert (code, out) == (2, "")
        assert err.startswith("plumbline: ")
        assert err.count("\n") == 1
        assert why in err
    assert not (tmp_path / "model").exists()
