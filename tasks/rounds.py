"""The configuration of a retraining round: the champion as base, prompts that no round has used, and the anchor."""

import uuid

from prefect import task

from alignment.aliases import ANCHOR, CHAMPION
from alignment.config import AlignConfig
from alignment.data.prompts.ids import read_ids
from alignment.errors import ModelError
from alignment.rows import MODEL
from alignment.stages.store import StageRef, digest
from tasks.home import home, store
from tasks.registry import downloads, marks, models, records, versions
from tasks.registry.aliases import locked
from tasks.registry.versions import RegisteredVersion
from tasks.running import RETRIES
from tasks.stages import compute_alone


def next_round(config: AlignConfig) -> AlignConfig:
    """The configuration of the next round: from the champion, or from the configured base without one.

    The anchor is the base of the first champion; it becomes a version of its own, so that it outlives this machine.
    """
    name = config.registry.model_name
    changes: dict[str, object] = {
        "prompts": config.prompts.model_copy(update={"exclude": excluded_prompts(config)}),
    }
    champion = versions.find_alias(name, CHAMPION)
    if champion is not None:
        anchor = anchor_version(config, champion)
        changes["base"] = config.base.model_copy(update={"model": champion.uri})
        changes["evaluation"] = config.evaluation.model_copy(update={"anchor": anchor})
    return config.model_copy(update=changes)


@task(name="find used prompts", **RETRIES)
def excluded_prompts(config: AlignConfig) -> str:
    """A file with the prompts of earlier rounds, and with those that the configuration excludes; empty without any."""
    used = records.used_prompts(config.registry.model_name)
    if config.prompts.exclude:
        used |= read_ids(config.prompts.exclude)
    if not used:
        return ""
    ordered = sorted(used)
    file = home() / "rounds" / downloads.folder_name(config.registry.model_name) / f"used-{digest(ordered)[:12]}.txt"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
        draft.write_text("\n".join(ordered) + "\n", encoding="utf-8")
        draft.replace(file)
    return str(file)


@task(name="find the anchor", **RETRIES)
def anchor_version(config: AlignConfig, champion: RegisteredVersion) -> str:
    """The address of the first base's version, which the first round after a promotion registers.

    A champion that no run of ours made, such as an imported model, is the first base itself. Raises ModelError if the
    champion's base is no longer in the store, and is not the configured one either.
    """
    name = config.registry.model_name
    found = _anchor(name)
    if found is not None:
        return found.uri
    base = _base_of(config, champion) if marks.KEY in champion.tags else None
    uri = "" if base is None else models.log_model(champion.run_id, base.path / MODEL, config, prompt="")
    with locked(name):
        found = _anchor(name)  # another round's, meanwhile
        if found is None:
            found = champion if base is None else _register_anchor(name, champion.run_id, uri, base)
            versions.set_alias(name, ANCHOR, found.version)
    return found.uri


def _anchor(name: str) -> RegisteredVersion | None:
    return versions.find_alias(name, ANCHOR) or versions.find_tagged(name, marks.KIND, ANCHOR)


def _register_anchor(name: str, run_id: str, uri: str, base: StageRef) -> RegisteredVersion:
    return versions.create_version(
        run_id,
        uri,
        name,
        key=f"anchor-{base.digest}",
        description=f"The first base of {name}: every round's drift is measured to it. Not a candidate for promotion.",
        tags={marks.KIND: ANCHOR, marks.VERDICT: marks.IS_ANCHOR},
    )


def _base_of(config: AlignConfig, champion: RegisteredVersion) -> StageRef:
    """The base that the champion was trained from: from the store, or computed again if that is still possible."""
    recorded = records.read_lineage(champion.run_id).get("base")
    if recorded is None:
        raise ModelError(
            f"models:/{champion.name}: the run of version {champion.version} has no record of its base; register that "
            f"base under this name with the alias `{ANCHOR}`"
        )
    kept = store().find("base", recorded.key)
    if kept is not None and kept.digest == recorded.digest:
        return kept
    base = compute_alone("base", config)
    if base.digest != recorded.digest:
        raise ModelError(
            f"models:/{champion.name}: the base of version {champion.version} (content {recorded.digest[:12]}) "
            f"is no longer in the store, and base.model = {config.base.model} gives another ({base.digest[:12]}); "
            f"restore the store, or register that base under this name with the alias `{ANCHOR}`"
        )
    return base
