"""The rooms of the house: who may import whom, and what no source may hold."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("alignment", "expectations", "tasks", "flows", "plumbline")
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
}
MAY_NOT_IMPORT = {
    "alignment": {"prefect", "mlflow", "great_expectations", "expectations", "tasks", "flows"},
    "expectations": {"prefect", "mlflow", "torch", "transformers", "tasks", "flows"},
    "tasks": {"flows", "torch", "great_expectations"},
    "flows": {"torch", "transformers", "pandas", "mlflow", "great_expectations", "plumbline"},
    "plumbline": {"torch", "transformers", "pandas", "mlflow", "great_expectations", "prefect"},
}
IMPORT_MLFLOW = {
    f"tasks.registry.{name}"
    for name in ("accounts", "connection", "downloads", "models", "records", "review", "runs", "server", "versions")
}
MODULE = re.compile(rf"({'|'.join(ROOMS[:4])})(\.\w+)+(:\w+)?")  # as in "flows.stack.prefect_app:create_app"
SERVERS = {"prefect", "mlflow", "sqlalchemy", "fastapi"}
SLOW = {"torch", "transformers", "datasets", "evaluate", "great_expectations", "pandas", "matplotlib", "scipy"}
MEGABYTE = 1_000_000
LINES = 350
LONGER: dict[str, str] = {"alignment.data.reading": "one reader a format, which share their refusals"}


def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def imported(module: str) -> set[str]:
    """The top-level packages that a module imports anywhere, or names in a string that is imported."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE.fullmatch(node.value):
            found.add(node.value.partition(".")[0])
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import, which the stages' code version does not follow"
            found.add(str(node.module).partition(".")[0])
    return found


def test_the_rooms_are_there():
    assert set(ROOMS) <= set(SOURCES)
    assert {"alignment.stages.texts", "expectations.stage", "tasks.stages", "flows.align"} <= set(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_a_room_does_not_know_what_lies_behind_it(module):
    assert imported(module) & MAY_NOT_IMPORT[module.partition(".")[0]] == set()


@pytest.mark.parametrize("module", SOURCES)
def test_mlflow_is_known_to_the_registry_alone(module):
    assert "mlflow" not in imported(module) or module in IMPORT_MLFLOW


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_opens_with_one_sentence_and_is_one_job(module):
    text = SOURCES[module].read_text(encoding="utf-8")
    assert (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0].endswith((".", ":")), "what is inside?"
    assert text.count("\n") <= LINES or module in LONGER


@pytest.mark.parametrize("module", SOURCES)
@pytest.mark.filterwarnings("ignore")  # whatever third parties warn of when they are imported
def test_every_module_can_be_imported(module):
    importlib.import_module(module)


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_that_could_run_code_is_read_or_written(module):
    """Pickles, `torch.load`, `torch.save`, and models that bring their own code."""
    assert imported(module) & {"pickle", "cloudpickle", "dill", "joblib"} == set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}, node.lineno
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant), node.lineno
            assert node.value.value is False, node.lineno
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code":
                    assert isinstance(value, ast.Constant), node.lineno
                    assert value.value is False, node.lineno


@pytest.mark.parametrize(
    ("imported", "without"),
    [
        ("flows.cli.commands", {"numpy", "pyarrow"} | SERVERS | SLOW),
        ("flows.planning, tasks.registry.downloads, tasks.registry.listing", SERVERS | SLOW),
        ("flows.align, flows.cli.terminal", {"mlflow", "sqlalchemy", "fastapi"} | SLOW),
        ("flows.stack.prefect_server, flows.stack.prefect_app", SERVERS | SLOW),
    ],
    ids=["help", "plan and models", "run", "server"],
)
def test_a_command_starts_without_what_it_can_do_without(imported, without):
    """Each of these takes from a third of a second to several; a run that finds everything in the store needs none."""
    script = f"import sys, {imported}; print(sorted({without!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_file_of_the_repository_is_large():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name]
    assert [str(path) for path in paths if path.is_file() and path.stat().st_size > MEGABYTE] == []
