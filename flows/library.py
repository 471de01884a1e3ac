"""What `plumbline` offers to Python: each function finds or starts the servers that it needs, and prepares the home."""

import re
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import AlignConfig, Precision
from alignment.errors import InputError, ModelError
from flows.files import draft_of, require_rows_file, write_rows
from tasks.home import home, prepare_environment, store, tracking_uri
from tasks.runners import runner

if TYPE_CHECKING:
    from alignment.generation import OnText, Prompt
    from alignment.judging.ratings import Ratings
    from alignment.models import Loaded
    from expectations.checking import Checked
    from flows.align import AlignResult
    from flows.planning import Plan
    from tasks.comparing import Comparison
    from tasks.explaining import Explained
    from tasks.registry.listing import ListedVersion

WIDTH = 100  # columns of what is printed into a notebook


@dataclass(frozen=True)
class Picture:
    """A PNG image, which a notebook shows as such."""

    name: str
    png: bytes = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png

    def save(self, path: str | Path) -> None:
        """Write it to a file."""
        Path(path).write_bytes(self.png)


def align(config: AlignConfig, *, quiet: bool = False) -> "AlignResult":
    """Run the whole pipeline, and register the aligned model if every gate passes.

    Finished stages are found in the store below PLUMBLINE_HOME, by default `.plumbline` in the working directory. A
    line a stage is printed, unless `quiet`. The result has `verdict`, `figures`, `version` (None where a gate refused
    it, which is no error), `report`, `judgement` and the `folders` of the stages. Raises InputError for data or a model
    that cannot be used, StageError where what a stage found is not fit to go on with.
    """
    from flows.cli.console import quieten_libraries
    from flows.cli.servers import servers_for_a_flow

    prepare_environment()
    quieten_libraries()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Prefect, MLflow and transformers about their own code
        with servers_for_a_flow(None if quiet else _console(), own_process=False):
            from flows.align import align as flow

            result: AlignResult = flow(config)
            return result


def plan(config: AlignConfig) -> "Plan":
    """The stages of a run, which of them the store has, and the counts, without computing anything.

    Its text is a table. A registered model is downloaded first, as a run does: its content decides what is cached.
    Raises ConfigError with everything that would stop the run before it has begun, but for memory that is too small:
    that the plan says in its `refusals`.
    """
    from alignment.preflight import require_startable

    require_startable(config, fitting=False)
    runner()
    with registry():
        from flows.planning import make_plan
        from tasks.registry.downloads import with_local_models

        local, _ = with_local_models(config, home() / "models")
        return make_plan(local, store())


def check(config: AlignConfig) -> "Checked":
    """Validate the data of a run, given pairs and prompts, before any weight is loaded.

    The result is `fine`, or has `problems` that would stop a run; `apart` names each reason for which rows are set
    apart, with the first rows. Raises DataError where the data cannot be read, ModelError where the base model's config
    or tokenizer cannot; a base model called `words` stands in for one.
    """
    prepare_environment()
    from expectations.checking import check as look

    if not config.base.model.startswith("models:/"):
        return look(config)
    with registry():
        from tasks.registry.downloads import with_local_models

        return look(with_local_models(config, home() / "models")[0])


def models(name: str = "") -> "list[ListedVersion]":
    """Every version of the registered model `name`, or of all models, the newest first.

    Each has `name`, `version`, `uri`, `aliases`, `verdict`, `reason`, `reward_gain` with `reward_gain_ci`, `win_rate`,
    `kl_per_token` and so on, the last `decision` with its `approver`, `registered` (a time in UTC) and `run_id`. Raises
    ModelError where nothing is registered by this name.
    """
    with registry():
        from tasks.registry.listing import list_versions

        return list_versions(name)


def load(model: str, *, precision: Precision = "fp32") -> "Loaded":
    """A model with its `model`, `tokenizer` and `name`, in evaluation mode, on the GPU where there is one.

    `model` is a registered name (its champion, else its challenger), `name@alias`, `models:/name/3`, a folder, or a
    name on the hub. A registered version is downloaded once, and an adapter is merged into its base. Raises ModelError
    where it is not there or cannot be used.
    """
    with registry():
        from alignment import adapters
        from alignment.device import compute_in
        from alignment.models import load_base
        from tasks.registry.naming import local_copy

        source = local_copy(model, home() / "models")
        if adapters.is_adapter(Path(source)):
            merged = adapters.load_merged(Path(source))
            return replace(merged, model=compute_in(merged.model, precision, "precision"))
        try:
            return load_base(source, precision=precision, kind="model", name=model)
        except ModelError as error:
            if source != model or "/" in model or Path(model).is_dir():
                raise
            raise ModelError(
                f"{model}: no model is registered by this name (`plumbline models` lists them), there is no such "
                f"folder, and as a name on the hub it fails. {error}"
            ) from error


def generate(
    model: "Loaded | str",
    prompts: "str | Sequence[Prompt]",
    *,
    system: str = "",
    raw: bool = False,
    max_new_tokens: int = 256,
    temperature: float | None = None,
    stop: Sequence[str] = (),
    seed: int | None = None,
    on_text: "OnText | None" = None,
) -> list[str]:
    """The model's answer to each prompt: a text, which is the user's turn where there is a chat template, or messages.

    `model` is what `load` takes, or returned: load once to ask often. `raw` takes texts as they are, without a
    template; `temperature` None is the model's own, 0 the likeliest token each time. With a `seed` the prompt number n,
    from 0, is drawn with `seed` + n. `on_text` is given each piece as it is written. An answer ends at any of the
    model's end tokens, before one of the texts `stop`, or after `max_new_tokens`. Raises ModelError where a prompt
    fills the model's context, or a chat needs a template that the model lacks, DataError where messages are no chat.
    """
    from alignment.generation import Settings, encode, write

    settings = [
        Settings(max_new_tokens, temperature, tuple(stop), None if seed is None else seed + number)
        for number in range(1 if isinstance(prompts, str) else len(prompts))
    ]
    loaded = load(model) if isinstance(model, str) else model
    rows = [
        encode(loaded, each, system=system, raw=raw) for each in ([prompts] if isinstance(prompts, str) else prompts)
    ]
    return [write(loaded, ids, each, on_text) for ids, each in zip(rows, settings, strict=True)]


def export(model: str, folder: str | Path, *, gguf: bool = False) -> Path:
    """Write a registered version as an ordinary `save_pretrained` folder, its weights byte for byte; returns its path.

    `model` is as for `load`; the folder is made, and may exist if it is empty. With `gguf` a file for llama.cpp and
    Ollama, in fp16, is put beside the weights. Raises InputError where the folder is not empty, ModelError where no
    such version is registered or its architecture is none that can be written as GGUF.
    """
    target = Path(folder).expanduser().absolute()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"{folder}: is there already and not an empty folder; name a new one")
    with registry():
        from tasks.registry.downloads import export_model
        from tasks.registry.naming import find_registered

        uri = find_registered(model)
        draft = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
        try:
            export_model(uri, draft)
            if gguf:
                from alignment.gguf_writing import export_gguf

                export_gguf(draft, draft / f"{target.name}-f16.gguf")
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def plots(result: "AlignResult") -> Mapping[str, Picture]:
    """The pictures of a run by name: `rewards`, `gaps`, `training`, `gates`; a notebook shows each."""
    with registry():
        from tasks.registry.records import read_plots

        return {name: Picture(name, png) for name, png in read_plots(result.run_id).items()}


def report(subject: str, out: str | Path | None = None) -> Path:
    """Write a judged run as one HTML page that needs no network; returns its path.

    `subject` is a run's id or how it begins, a registered name (its champion, else its challenger), `name@alias` or
    `models:/name/3`; `out` is by default named after it, in the working directory. Raises ModelError where there is no
    such run or version, RecordError where the run was never judged.
    """
    with registry():
        from tasks import reports
        from tasks.registry import recorded

        found = recorded.find(subject)
        return _write(reports.page(found.run_id), out, found.title)


def compare(one: str, two: str, out: str | Path | None = None) -> Path:
    """Write two judged runs beside each other as one HTML page: paired figures, settings, gates, curves, samples.

    Both are as for `report`; what keeps them from being compared stands first on the page. Raises InputError where both
    are the same run.
    """
    return write_comparison(compared(one, two), out)


def compared(one: str, two: str, *, sample: int = 0) -> "Comparison":
    """Two judged runs, B against A, paired by held-out prompt: `paired.figures`, `paired.samples`, `warnings`, `page`.

    With `sample` both write to so many prompts now, in place of what they recorded.
    """
    if sample < 0:
        raise InputError(f"compare --sample {sample}: give a number of prompts above 0")
    with registry():
        from tasks.comparing import compare as set_against
        from tasks.registry import recorded

        return set_against(recorded.find(one), recorded.find(two), sample)


def write_comparison(found: "Comparison", out: str | Path | None = None) -> Path:
    """Write a comparison as one HTML page; returns its path."""
    return _write(found.page, out, f"{found.one.title} vs {found.two.title}")


def explain(subject: str, sample: str = "", *, quarantined: int = 0) -> "Explained":
    """What a version or a run was made of, walked back step by step, each with where it is: `steps`, `examples`.

    `subject` is as for `report`. With `sample`, the id of a prompt, a sample or a pair, what became of that prompt is
    in `story`; with `quarantined` so many of the pairs that validation set apart are in `apart`. Raises ModelError
    where there is no such run or version, InputError where nothing has that id.
    """
    with registry():
        from tasks.explaining import explain as walk_back
        from tasks.registry import recorded

        return walk_back(recorded.find(subject), sample, quarantined)


def ratings(subject: str, pairs: str | Path | None = None) -> "Ratings":
    """How people rated a run's samples in MLflow: `win_rate` with `win_rate_ci`, counts, `agreement` with the scores.

    `subject` is as for `report`. With `pairs`, a file that ends in .jsonl or .parquet, the rated texts are written as
    preference pairs, which `pairs.source` `given` reads. Raises ModelError where there is no such run or version,
    InputError where nothing was offered for rating or the file cannot be written.
    """
    from alignment.judging.ratings import as_pairs, summarise

    if pairs is not None:
        require_rows_file(Path(pairs))
    with registry():
        from tasks.registry import recorded, review

        found = recorded.find(subject)
        rated, unreadable = review.read_ratings(found.run_id)
    if not rated:
        raise InputError(
            f"{found.title}: none of its samples is in MLflow's pages to be rated; make a run with "
            "registry.review_rows above 0 (a warning in its log says why where MLflow did not take them)"
        )
    if pairs is not None:
        write_rows(list(as_pairs(rated)), Path(pairs).expanduser())
    return summarise(rated, unreadable=unreadable)


def ratings_page(subject: str) -> str:
    """Where people rate a run's samples: a link, or the command that serves the local database."""
    with registry():
        from tasks.registry import recorded, runs

        return runs.rating_url(recorded.find(subject).run_id)


def _write(page: str, out: str | Path | None, title: str) -> Path:
    """Write a page to a file, which is there whole or not at all."""
    named = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")
    target = Path(out).expanduser() if out is not None else Path(f"{named[:100]}.html")
    with draft_of(target) as draft:
        draft.write_text(page, encoding="utf-8", errors="backslashreplace")
    return target


@contextmanager
def registry() -> Iterator[None]:
    """The MLflow of the environment, else of the stack that is up in this home, else this home's database."""
    prepare_environment()
    from flows.stack.clients import join
    from tasks.registry.connection import configure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow about its own code
        join(home())
        configure(tracking_uri(), home() / "artifacts")
        yield


def _console() -> Any:
    from rich.console import Console

    return Console(
        width=WIDTH, emoji=False, force_jupyter=False, force_terminal=False, highlight=False
    )  # plain lines, no colours
