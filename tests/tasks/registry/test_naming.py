"""What people call a model: names, addresses, folders and hub names, and what is refused."""

from pathlib import Path

import pytest

from alignment.errors import ModelError
from tasks.registry import connection, naming, runs, versions
from tests.registered import register

pytestmark = pytest.mark.usefixtures("local")


@pytest.fixture
def name(logged: tuple[str, str], request: pytest.FixtureRequest) -> str:
    """A model of three versions; the first is `first`, the last the challenger."""
    made = f"named-{abs(hash(request.node.name))}"
    for key, alias in (("k1", "first"), ("k2", "challenger"), ("k3", "challenger")):
        register(*logged, made, alias, key=key)
    return made


def test_a_bare_name_is_the_champion_else_the_challenger(name: str) -> None:
    assert naming.find_model(name) == f"models:/{name}/3"
    versions.set_alias(name, "champion", "2")
    assert naming.find_model(name) == f"models:/{name}/2"


def test_aliases_numbers_and_addresses_are_versions(name: str) -> None:
    assert naming.find_model(f"{name}@first") == f"models:/{name}/1"
    assert naming.find_model(f"{name}/2") == f"models:/{name}/2"
    assert naming.find_model(f"models:/{name}@challenger") == f"models:/{name}/3"
    assert naming.find_registered(f"models:/{name}/2") == f"models:/{name}/2"


def test_without_champion_and_challenger_a_version_has_to_be_named(name: str) -> None:
    versions.drop_alias(name, "challenger")
    with pytest.raises(ModelError, match=f"neither a champion nor a challenger; name one of {name}@first, or a ver"):
        naming.find_model(name)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("models:/nowhere@champion", "no model is registered as 'nowhere'"),
        ("nowhere@champion", "no model is registered as 'nowhere'"),
        ("./nowhere", "no such folder"),
        ("/nowhere/at/all", "no such folder"),
        ("models:/", "not a model's address"),
    ],
)
def test_what_is_not_there_is_refused(model: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        naming.find_model(model)


def test_a_folder_or_a_hub_name_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    for model in ("mine", "./mine", str(tmp_path / "mine")):
        assert Path(naming.find_model(model)).resolve() == tmp_path / "mine"
    for model in ("gpt2", "org/model"):
        assert naming.find_model(model) == model
        with pytest.raises(ModelError, match=r"no model is registered by this name .* `plumbline models` lists them"):
            naming.find_registered(model)


def test_a_registered_name_comes_before_a_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    assert naming.find_model(name) == f"models:/{name}/3"
    assert naming.find_model(f"./{name}") == name


def test_a_local_copy_of_a_version_is_a_model_folder(name: str, tmp_path: Path) -> None:
    copied = Path(naming.local_copy(name, tmp_path))
    assert copied.is_relative_to(tmp_path)
    assert (copied / "model.safetensors").exists()
    assert naming.local_copy("org/model", tmp_path) == "org/model"


def test_looking_for_a_hub_name_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_place", None)
    runs.configure(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert naming.find_model("gpt2") == "gpt2"
    assert not (tmp_path / "new").exists()
