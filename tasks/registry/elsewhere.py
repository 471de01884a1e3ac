"""The other MLflows that this home has registered versions in: this one cannot say what those need of the store."""

from contextlib import suppress
from pathlib import Path

from alignment.endpoints import is_local
from tasks.home import home
from tasks.registry.connection import place


def note() -> None:
    """Remember the MLflow in use, where it is on another machine; servers of this one come and go with their ports."""
    if _is_away() and place().shown not in _noted():
        with suppress(OSError), _file().open("a", encoding="utf-8") as stream:
            stream.write(f"{place().shown}\n")


def others() -> list[str]:
    """The addresses of the other MLflows, without passwords; this home's own database is one where a server is used."""
    found = [address for address in _noted() if address != place().shown]
    database = home() / "mlflow.db"
    return [*found, str(database)] if _is_away() and database.exists() else found


def _is_away() -> bool:
    return place().remote and not is_local(place().uri)


def _noted() -> list[str]:
    try:
        return _file().read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _file() -> Path:
    return home() / "registries"
