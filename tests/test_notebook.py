"""The example notebook: it runs from top to bottom, and what is stored of a run is small and names no machine."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
WRITE = "PLUMBLINE_NOTEBOOK"
"""The variable with the file to keep a run in, as `make notebook` does."""
KILOBYTES = 200


def read() -> Any:
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[str]:
    """What a cell shows: `stream`, or the best form of a value."""
    found = [output.get("data", {}) for output in cell.outputs]
    return [next((form for form in ("image/png", "text/markdown") if form in data), "text") for data in found]


def run(notebook: Any, folder: Path) -> None:
    """Execute every cell in a kernel of its own, and leave the outputs in the notebook."""
    from nbclient import NotebookClient

    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel_name="python3", timeout=900, resources=place, coalesce_streams=True).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}


def test_what_is_stored_is_whole_small_and_names_no_machine() -> None:
    notebook = read()
    assert NOTEBOOK.stat().st_size < KILOBYTES * 1_000
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert {output.output_type for cell in code(notebook) for output in cell.outputs} <= {"stream", "execute_result"}
    assert "image/png" in [kind for cell in code(notebook) for kind in kinds(cell)]
    text = re.sub(r'"image/png": "[^"]*"', "", NOTEBOOK.read_text("utf-8"))
    assert re.findall(r"(?:/home|/root|/tmp|/Users|/work|[A-Z]:\\\\)[^\"]*", text) == []
    assert str(ROOT) not in text


def test_it_shows_the_steps_that_the_page_promises() -> None:
    source = "\n".join(cell.source for cell in code(read()))
    for name in ("plan", "align", "plots", "load", "generate", "models"):
        assert f"plumbline.{name}(" in source


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # of Jupyter's client about its own code
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("PLUMBLINE_HOME", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    stored, notebook = read(), read()
    (tmp_path / "work").mkdir()
    run(notebook, tmp_path / "work")
    if target := os.environ.get(WRITE):
        import nbformat

        nbformat.write(notebook, target)
        return
    assert [kinds(cell) for cell in code(notebook)] == [kinds(cell) for cell in code(stored)]
    assert [path.name for path in (tmp_path / "work").iterdir()] == [".plumbline"]
