"""Where a function comes from: a file with the modules beside it, known by their code, or an installed entry point."""

import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import ConfigError
from alignment.kinds import PROJECT, Kinds, Origin
from alignment.rewards import function_file as functions
from alignment.rewards.function_file import beside, function_file, load, require_function


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The current directory, and no module of the test stays imported."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def code(value: str = "rule.py") -> str:
    found = function_file(value)
    assert found is not None
    return found.code


@pytest.mark.parametrize(
    ("value", "path", "name"),
    [
        ("rule.py", "rule.py", "reward"),
        ("rules/rule.py:brief", "rules/rule.py", "brief"),
        ("/somewhere/rule.py:_brief", "/somewhere/rule.py", "_brief"),
        (" my rule.py ", "my rule.py", "reward"),
    ],
)
def test_a_file_is_relative_to_the_current_directory_and_its_function_called_reward(
    folder: Path, value: str, path: str, name: str
) -> None:
    found = function_file(value)
    assert found is not None
    assert (found.path, found.name) == (folder / path, name)


@pytest.mark.parametrize("value", ["brief", "package.module:brief", "rule.pyx", "https://host/rule.py:a-b"])
def test_anything_else_is_the_name_of_an_installed_one(value: str) -> None:
    assert function_file(value) is None


# Looking, without running anything


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "text",
    [
        "def reward(): ...",
        "from rules import brief as reward",
        "reward = lambda **_: []",
        "if True:\n    async def reward(): ...",
        "from rules import *",
        "class reward: ...",
    ],
)
def test_a_file_that_has_the_function_is_fit(text: str) -> None:
    write("rule.py", f"raise SystemExit\n{text}")
    require_function("rule.py")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("def brief(): ...\ndef _hidden(): ...", "one of brief$"),
        ("def brief():\n    def reward(): ...", "one of brief$"),
        ("print(reward)", "one of its functions, of which it has none$"),
    ],
)
def test_a_file_without_the_function_is_refused_with_those_that_it_has(text: str, there: str) -> None:
    write("rule.py", text)
    with pytest.raises(ConfigError, match=f"rule.py has no `reward`; write FILE.py:NAME with {there}"):
        require_function("rule.py")


@pytest.mark.usefixtures("folder")
def test_a_file_that_is_missing_or_no_python_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rule\.py: cannot be read"):
        require_function("rule.py")
    write("rule.py", "def")
    with pytest.raises(ConfigError, match=r"rule\.py: line 1"):
        require_function("rule.py")


# Loading


def test_the_function_may_import_what_stands_beside_its_file_also_while_it_is_called() -> None:
    write("rules/rule.py", "import words\ndef reward():\n    import later\n    return words.GOOD, later.BAD\n")
    write("rules/words.py", "GOOD = 'fine'\n")
    write("rules/later.py", "BAD = 'dull'\n")
    path = list(sys.path)
    function = load("rules/rule.py")
    with beside("rules/rule.py"):
        assert function() == ("fine", "dull")
    assert sys.path == path


def test_an_edit_is_loaded_also_of_a_module_beside_it() -> None:
    write("rule.py", "from words import GOOD\ndef reward():\n    return GOOD\n")
    write("words.py", "GOOD = 'fine'\n")
    assert load("rule.py") is load("rule.py")
    assert load("rule.py")() == "fine"
    write("words.py", "GOOD = 'good, and longer'\n")
    assert load("rule.py")() == "good, and longer"


def test_an_installed_function_is_found_by_its_name_and_an_unknown_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed: Kinds[Any] = Kinds("reward_functions", "", "")
    monkeypatch.setattr(installed, "_origins", {"short": Origin("package.module", "package", "1")})
    installed.register("short", len)
    monkeypatch.setattr(functions, "REWARD_FUNCTIONS", installed)
    assert load("short") is len
    monkeypatch.undo()
    with pytest.raises(
        ConfigError, match=r"^reward\.function = brief: no installed function is called so \(there is none"
    ):
        load("brief")


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        (None, "rule.py", r"^reward\.function .*rule\.py: cannot be read \(No such file or directory\); give a file"),
        ("def reward(:\n", "rule.py", r"^reward\.function .*rule\.py: line 1: invalid syntax; repair it"),
        ("import nowhere_at_all\n", "rule.py", r"cannot be imported \(ModuleNotFoundError: No module named 'nowhere"),
        ("raise SystemExit(3)\n", "rule.py", r"cannot be imported \(SystemExit: 3\); repair it, or install what it"),
        (
            "from typing import Any\ndef brief(): ...\n",
            "rule.py",
            r"rule\.py: rule\.py has no `reward`; write FILE\.py:NAME with one of brief$",
        ),
        ("", "rule.py", r"write FILE\.py:NAME with one of its functions, of which it has none$"),
        ("reward = 3\n", "rule.py", r"^reward\.function rule\.py: is no function but a int; name a function$"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(text: str | None, value: str, message: str) -> None:
    if text is not None:
        write("rule.py", text)
    with pytest.raises(ConfigError, match=message):
        load(value)


# The code


def test_the_code_is_that_of_the_file_and_of_the_modules_beside_it_that_it_imports() -> None:
    write("rule.py", "import json\nfrom words.good import GOOD\ndef reward(): ...\n")
    write("words/__init__.py", "from . import bad\n")
    write("words/good.py", "GOOD = 1\n")
    write("words/bad.py", "BAD = 1\n")
    write("unused.py", "A = 1\n")
    found = function_file("rule.py")
    assert found is not None
    assert sorted(found.sources) == ["rule.py", "words/__init__.py", "words/bad.py", "words/good.py"]
    before = code()
    write("unused.py", "A = 2\n")
    assert code() == before
    for name in found.sources:
        text = Path(name).read_text(encoding="utf-8")
        write(name, f"{text}# edited\n")
        assert code() != before
        write(name, text)
    assert code() == before


def test_the_code_is_the_same_wherever_the_file_lies() -> None:
    for place in ("one", "other"):
        write(f"{place}/rule.py", "import words\ndef reward(): ...\n")
        write(f"{place}/words.py", "GOOD = 1\n")
    assert code("one/rule.py") == code("other/rule.py")


# The example


def test_the_examples_functions_score_texts_and_chats() -> None:
    file = f"{PROJECT}/examples/function_reward/reward.py"
    praise, brief, right = (load(f"{file}{name}") for name in ("", ":brief", ":right"))
    texts = ["a warm and witty plot", "dull. so dull!", "..."]
    assert praise(completions=texts) == [4.0, pytest.approx(-20 / 3), None]
    assert praise(completions=[[{"role": "assistant", "content": text}] for text in texts]) == praise(completions=texts)
    assert brief(completions=texts) == [-0.5, -0.3, 0.0]
    assert right(completions=texts, solution=["witty", "witty", None]) == [1.0, 0.0, None]


@pytest.mark.parametrize(
    "text",
    [
        'globals().update({"reward": len})\n',
        "def make():\n    global reward\n    reward = len\n\n\nmake()\n",
        "def __getattr__(name):\n    return len\n",
    ],
)
def test_a_name_that_only_running_the_file_gives_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rule.py").write_text(text, encoding="utf-8")
    require_function("rule.py")
    assert load("rule.py") is len
