"""The model that a run keeps in MLflow: logged with its signature and card, and found again by its policy's hash."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment import adapters
from alignment.config import AlignConfig
from alignment.links import share
from tasks.home import home
from tasks.registry import bases, serving
from tasks.registry.bases import Apart
from tasks.registry.connection import client, error_code, fluent, guard, without_advice
from tasks.registry.downloads import artifacts_here

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from transformers import GenerationConfig

REQUEST = {
    "max_new_tokens": "long",
    "do_sample": "boolean",
    "temperature": "double",
    "top_k": "long",
    "top_p": "double",
}
"""The parameters that a request to a served model may set, with their types in MLflow."""
REQUIREMENTS = ("torch", "transformers", "accelerate", "safetensors")


def log_model(
    run_id: str,
    folder: Path,
    config: AlignConfig,
    prompt: str,
    card: str = "",
    messages: Sequence[Mapping[str, Any]] = (),
    apart: Apart | None = None,
) -> str:
    """Log a `save_pretrained` folder on the run as a model of texts that MLflow can serve, or of chats with `messages`.

    Returns its address, `models:/m-…`. Its folder `model/` is a `save_pretrained` folder as well. No weight is loaded,
    and `folder` may not change any more. Of an adapter and a base that are to stay `apart`, the adapter is logged and
    the base pinned, and `folder` is not read. `prompt` or `messages` are its example of an input, and `card` becomes
    its README. Raises ModelError if the folder lacks a part.
    """
    from mlflow.transformers import log_model as log_transformers

    home().mkdir(parents=True, exist_ok=True)
    with guard(), fluent(), without_advice(), tempfile.TemporaryDirectory(prefix=".model-", dir=home()) as temporary:
        prepared, told = Path(temporary) / "prepared", Path(temporary) / "told"
        writing, tokenizer = serving.prepare(folder if apart is None else apart.base, config, prepared)
        where = client().get_run(run_id).info.experiment_id
        logged = client().create_logged_model(where, name="model", source_run_id=run_id, model_type="dpo")
        answers: dict[str, Any] = {
            "task": "llm/v1/chat",
            "input_example": {"messages": [dict(message) for message in messages], "max_tokens": 4},
        }
        continues: dict[str, Any] = {
            "task": "text-generation",
            "input_example": ([prompt], {"max_new_tokens": 4}),
            "signature": signature(writing),
        }
        in_use = serving.for_chats(tokenizer, messages) if messages else tokenizer
        if messages:
            in_use.save_pretrained(prepared)
        model, pins = (str(prepared), {}) if apart is None else _on_its_base(apart, config, in_use)
        with _classes_of_tasks():
            log_transformers(
                model,
                model_id=logged.model_id,
                run_id=run_id,
                **(answers if messages else continues),
                **pins,
                pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
                model_card=_readme(card, apart),
            )
        if messages or apart:  # MLflow has chats' tokenizer beside the weights; with them stands that of all texts
            tokenizer.save_pretrained(told / "model")
            client().log_model_artifacts(logged.model_id, str(told))
        uri = f"models:/{logged.model_id}"
        if apart is None and (here := artifacts_here(uri)) is not None:
            _share_weights(prepared, here / "model")
    return uri


def _share_weights(prepared: Path, logged: Path) -> None:
    """Put links to the policy's files in the place of MLflow's copies, where both lie on one disk."""
    for file in prepared.glob("*.safetensors"):
        copy, link = logged / file.name, logged / f".{file.name}"
        if copy.is_file() and copy.stat().st_size == file.stat().st_size:
            share(file, link, link=True)
            link.replace(copy)


def _on_its_base(apart: Apart, config: AlignConfig, tokenizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model of an adapter on its base as MLflow takes it, and what has it keep the adapter alone."""
    base, content = bases.keep(apart.base, config)
    pins = {"base_model_path": str(base), "metadata": {bases.BASE: {"folder": str(base), "digest": content}}}
    return {"model": adapters.standing(base, apart.adapter), "tokenizer": tokenizer}, pins


class _Named(str):
    """The dotted name of a class, which has the class's own name as the class has it."""

    @property
    def __name__(self) -> str:
        return self.rpartition(".")[2]


@contextmanager
def _classes_of_tasks() -> Iterator[None]:
    """MLflow 3.17 asks for the class of a task's pipeline, of which transformers 5.23 tells the name.

    It does so for a model in a folder alone, and needs no more than the class's name.
    """
    from transformers import pipelines

    own = pipelines.check_task

    def check_task(task: str) -> Any:
        name, told, options = own(task)
        return name, {**told, "impl": _Named(told["impl"])}, options

    pipelines.check_task = check_task
    try:
        yield
    finally:
        pipelines.check_task = own


def log_adapter(run_id: str, folder: Path) -> None:
    """Log the adapter that a policy was trained by, where there is one, as the run's artifact `adapter`."""
    if folder.is_dir():
        with guard():
            client().log_artifacts(run_id, str(folder), "adapter")


def signature(writing: "GenerationConfig") -> "ModelSignature":
    """The signature of a text-to-text model, with the parameters that a request may set; `writing` has the defaults."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([ColSpec("string")]),
        params=ParamSchema([ParamSpec(name, kind, getattr(writing, name)) for name, kind in REQUEST.items()]),
    )


def find_logged_model(experiment_name: str, policy: str) -> str | None:
    """The address of the model that an earlier run of the experiment logged for this policy (its digest), or None."""
    with guard():
        found = client().get_experiment_by_name(experiment_name)
        if found is None:
            return None
        for run in _newest_first([found.experiment_id], f"tags.`plumbline.policy` = '{policy}'"):
            uri = run.data.tags.get("plumbline.model_uri", "")
            if uri and is_ready(uri):
                return str(uri)
    return None


def is_ready(uri: str) -> bool:
    """Whether MLflow has the complete model at an address that `log_model` returned."""
    from mlflow.exceptions import MlflowException

    with guard():
        try:
            return str(client().get_logged_model(uri.removeprefix("models:/")).status) == "READY"
        except MlflowException as error:
            if error_code(error) in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}:
                return False
            raise


def takes_messages(uri: str) -> bool:
    """Whether MLflow's server gives a logged model, `models:/m-…`, chats and not texts; False where that is not there.

    Of a version it is the source: MLflow does not find the files of one whose name has a `#`.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models import get_model_info

    with guard(), fluent():
        try:
            info = get_model_info(uri)
        except MlflowException:
            return False
    return str((info.metadata or {}).get("task", "")) == "llm/v1/chat"


def require_base(uri: str) -> None:
    """Raise ModelError where a logged model is an adapter, and its base is not here, or is another one."""
    from mlflow.models import get_model_info

    with guard(), fluent():
        bases.pinned(uri, get_model_info(uri).metadata)


def _newest_first(experiments: list[str], query: str) -> Iterator[Any]:
    """Runs one by one, since MLflow reads each with all that it recorded, and a policy may have been judged often."""
    token = None
    while True:
        page = client().search_runs(experiments, query, max_results=1, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _readme(card: str, apart: Apart | None) -> Any:
    from huggingface_hub import ModelCard

    text = card or "Aligned by Plumbline; the run's model_card.md says how."
    library, where = "transformers", "is a `save_pretrained` folder, its tokenizer included."
    if apart is not None:
        library = "peft"
        where = (
            "has the tokenizer, and `peft/` the adapter without its base; `plumbline export` writes the two merged as "
            "a `save_pretrained` folder."
        )
    head = f"---\nlibrary_name: {library}\npipeline_tag: text-generation\n---"
    return ModelCard(f"{head}\n\n{text}\n\nThe folder `model/` beside this file {where}")
