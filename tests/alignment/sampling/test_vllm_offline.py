"""The engine `vllm`: a child process by another interpreter, in whose environment something stands in for vLLM."""

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment import models
from alignment.config import SamplingConfig
from alignment.errors import ConfigError, EndpointError, Interrupted, ModelError
from alignment.logprobs import score_completions
from alignment.models import Loaded
from alignment.sampling import outside, vllm_offline
from alignment.sampling.engine import Completion, Request, request
from alignment.sampling.vllm_offline import PYTHON, interpreter, version, vllm

STAND_IN = Path(__file__).with_name("stand_in_vllm.py")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with a module `vllm` and nothing else; its interpreter."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "vllm").mkdir()
    shutil.copy(STAND_IN, packages / "vllm" / "__init__.py")
    about = packages / "vllm-0.33.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.33.0\n")
    return folder / "bin" / "python"


@pytest.fixture(autouse=True)
def _named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, str(environment))
    monkeypatch.setattr(outside, "KNOWN_FOR", 0.0)
    monkeypatch.setattr(vllm_offline, "LOOK_EVERY", 0.02)


@pytest.fixture(scope="module")
def folder(tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that looks at the last token alone, and the table of what it says behind each."""
    import torch

    model = tiny_gpt2(vocab_size=len(tiny_tokenizer), context=32)
    with torch.no_grad():
        model.transformer.wpe.weight.zero_()
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()
            block.attn.c_proj.bias.zero_()
        rows = model(torch.arange(len(tiny_tokenizer))[:, None]).logits[:, 0].log_softmax(-1)
    folder = tmp_path_factory.mktemp("bigrams")
    models.save(Loaded(model, tiny_tokenizer), folder)
    (folder / "bigrams.json").write_text(json.dumps(rows.tolist()))
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return models.load_base(folder)


@pytest.fixture
def failing(folder: Path) -> Iterator[Path]:
    """What makes the engine fail is written there."""
    yield folder / "fails"
    (folder / "fails").unlink(missing_ok=True)


CONFIG = SamplingConfig(engine="vllm", total_tokens=16)


def asked(config: SamplingConfig = CONFIG) -> list[Request]:
    return [request([5, 9, 11][: 1 + n % 3], config, seed=0, purpose="train", prompt_id="p", index=n) for n in range(6)]


def test_a_sample_has_its_tokens_and_the_log_prob_that_the_model_here_gives_them(loaded: Loaded) -> None:
    told: list[tuple[int, int]] = []
    requests = [*asked(), Request([7], [])]
    *drawn, empty = vllm(loaded, requests, CONFIG, lambda done, total: told.append((done, total)))
    expected = score_completions(loaded.model, [r.prompt for r in requests[:-1]], [c.ids for c in drawn], pad_id=0)
    assert [each.logprob for each in drawn] == pytest.approx(expected.tolist(), abs=1e-4)
    assert {each.exact for each in drawn} == {False}
    assert all(found.finished or len(found.ids) == len(r.uniforms) for found, r in zip(drawn, requests, strict=False))
    assert len({tuple(each.ids) for each in drawn}) > 4
    assert empty == Completion([], finished=False, logprob=0.0, exact=False)
    assert (told[0][1], told[-1]) == (7, (7, 7))


def test_what_was_drawn_before_it_failed_is_not_drawn_again(loaded: Loaded, failing: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(vllm_offline.CHILD.read_text().replace("TOGETHER = 256", "TOGETHER = 2"))
    failing.write_text("third call")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_offline, "CHILD", child)
        with pytest.raises(
            EndpointError, match=r"ended with exit code 1 \(RuntimeError: the engine died\); .*vllm.log"
        ):
            vllm(loaded, asked(), CONFIG, kept=tmp_path)
    assert "the engine died" in (tmp_path / "vllm.log").read_text()
    failing.unlink()
    told: list[int] = []
    found = vllm(loaded, asked(), CONFIG, lambda done, _: told.append(done), tmp_path)
    assert told[0] == 2  # what the first call of two gave; the call before it was the comparison
    assert found == vllm(loaded, asked(), CONFIG)


def test_one_that_cannot_load_the_model_says_why(loaded: Loaded, failing: Path) -> None:
    failing.write_text("load")
    with pytest.raises(EndpointError, match=r"\(RuntimeError: CUDA out of memory\).* lower sampling.vllm.gpu_memory"):
        vllm(loaded, asked(), CONFIG)


def test_other_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    other = models.load_base(shutil.copytree(folder, tmp_path / "other"))
    rows = json.loads((tmp_path / "other" / "bigrams.json").read_text())
    (tmp_path / "other" / "bigrams.json").write_text(json.dumps(rows[1:] + rows[:1]))
    with pytest.raises(
        ModelError, match=r"sampling.engine vllm: its log-probs of 16 texts differ from those of base.model"
    ):
        vllm(other, asked(), CONFIG)


def test_a_model_that_was_not_loaded_from_a_folder_is_written_to_one(loaded: Loaded, tmp_path: Path) -> None:
    import copy

    changed = Loaded(copy.deepcopy(loaded.model), loaded.tokenizer)
    changed.model.name_or_path = ""
    found = vllm_offline._folder(changed, tmp_path)
    assert found == tmp_path / "model"
    assert (found / "model.safetensors").exists()


def test_it_is_not_given_the_servers_passwords(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    child.write_text(f"import json, os; json.dump(dict(os.environ), open({str(tmp_path / 'seen')!r}, 'w'))")
    monkeypatch.setattr(vllm_offline, "CHILD", child)
    for name in ("MLFLOW_TRACKING_PASSWORD", "PLUMBLINE_WEBHOOK_SECRET", "WORLD_SIZE", "HF_TOKEN"):
        monkeypatch.setenv(name, "1")
    list(vllm_offline._answers(Path(sys.executable), {}, tmp_path, tmp_path / "log", lambda: None))
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["HF_TOKEN"] == seen["HF_HUB_OFFLINE"] == "1"
    assert not seen.keys() & {"MLFLOW_TRACKING_PASSWORD", "PLUMBLINE_WEBHOOK_SECRET", "WORLD_SIZE"}


def test_it_ends_when_it_is_asked_to(loaded: Loaded, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_offline, "CHILD", child)

        def progress(done: int, total: int) -> None:
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                raise Interrupted("stop")

        with pytest.raises(Interrupted):
            vllm(loaded, asked(), CONFIG, progress)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_does_not_outlive_the_process_that_started_it(environment: Path) -> None:
    """Which may be killed; a child that held a GPU would hold it on."""
    script = f"""
import subprocess, sys
body = "import runpy, time; m = runpy.run_path({str(vllm_offline.CHILD)!r}); m['_end_with_the_parent'](); "
body += "print('ready', flush=True); time.sleep(60)"
child = subprocess.Popen([{str(environment)!r}, "-I", "-c", body], stdout=subprocess.PIPE, text=True)
assert child.stdout.readline() == "ready\\n"
print(child.pid, flush=True)
sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    ends = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < ends, "it lives on"
        time.sleep(0.02)


class TestInterpreter:
    def test_its_version_is_asked_of_its_environment(self) -> None:
        assert version(CONFIG) == {"version": "0.33.0"}

    @pytest.mark.parametrize(
        ("said", "says"),
        [
            ("", "needs the environment variable PLUMBLINE_VLLM_PYTHON"),
            ("python", "is not the whole path of an interpreter that can be run"),
            ("/nowhere/python", "is not the whole path of an interpreter that can be run"),
            ("/etc", "is not the whole path of an interpreter that can be run"),
        ],
    )
    def test_one_that_cannot_be_run_is_refused(self, said: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(PYTHON, said)
        with pytest.raises(ConfigError, match=says):
            interpreter()

    def test_one_without_vllm_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        venv.create(tmp_path / "bare", symlinks=True)
        monkeypatch.setenv(PYTHON, str(tmp_path / "bare" / "bin" / "python"))
        with pytest.raises(ConfigError, match=r"its environment has no vllm \(.*PackageNotFoundError.*vllm\); install"):
            version(CONFIG)
