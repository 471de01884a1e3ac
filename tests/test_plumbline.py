"""The public names of `plumbline`: these, documented, and imported at their first use."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import plumbline

ROOT = Path(__file__).parents[1]
PUBLIC = [
    "AlignConfig",
    "InputError",
    "PlumblineError",
    "StageError",
    "align",
    "build_config",
    "check",
    "compare",
    "explain",
    "export",
    "generate",
    "load",
    "load_config",
    "models",
    "plan",
    "plots",
    "ratings",
    "report",
]
HEAVY = {"torch", "transformers", "prefect", "mlflow", "great_expectations", "pandas", "numpy", "pydantic", "rich"}


def test_these_are_the_public_names() -> None:
    assert plumbline.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(plumbline))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    assert len(inspect.getdoc(getattr(plumbline, name)) or "") > 40


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_stands_on_the_page_about_them(name: str) -> None:
    assert f"`plumbline.{name}" in (ROOT / "docs" / "python.md").read_text("utf-8")


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'aline'"):
        _ = plumbline.aline


def test_importing_it_imports_nothing_heavy() -> None:
    script = f"import sys, plumbline; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_configuration_is_read_without_what_a_run_needs() -> None:
    script = (
        "import sys, plumbline; plumbline.load_config('quickstart.yaml'); plumbline.align; plumbline.generate;"
        f"print(sorted({HEAVY - {'pydantic', 'numpy', 'rich'}!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
