"""What the documentation names is there: commands, flags, make targets, paths, fields, links, anchors, names of code.

A document is taken apart into prose, inline code and fenced blocks. A block that is marked `text` shows output and is
not looked at. Nothing is run, and nothing is fetched.
"""

import ast
import fnmatch
import importlib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from cyclopts import CycloptsError

from alignment import kinds
from alignment.config import AlignConfig, GatesConfig, Group, build_config, merge
from alignment.errors import ConfigError
from alignment.kinds import GATES
from alignment.yaml_file import read_yaml

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docker/README.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
README_LINES = 150
ROOMS = ("alignment", "expectations", "tasks", "flows", "benchmarks", "tests")
FILE_TYPES = (".py", ".yaml", ".yml", ".md", ".toml", ".png", ".svg", ".sh", ".json", ".txt", ".ini")
MADE = {"docker/.env"}
"""Paths below a folder of the repository that are made when it is used."""
OTHERS_FLAGS = {"--scale"}
"""Flags of other programs that stand in prose by themselves."""
WRITTEN = {
    *("config.json", "history.json", "manifest.json", "model_card.md", "report.json", "samples.json"),
    *("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"),
}
"""Files that a run writes, or a model has, and that stand in prose without a folder."""
EXAMPLES = "my*"
"""How the files of a reader's own are called."""


class Block(NamedTuple):
    """A fenced block: its language, empty where it names none, and its text."""

    language: str
    text: str


@dataclass(frozen=True)
class Document:
    """A Markdown file, or a snippet of one that claims to lie at `path`."""

    path: Path
    text: str

    @property
    def blocks(self) -> list[Block]:
        return [Block(*found) for found in re.findall(r"(?ms)^```([\w-]*)\n(.*?)^```", self.text)]

    @property
    def prose(self) -> str:
        return re.sub(r"(?ms)^```.*?^```$", "", self.text)

    @property
    def code(self) -> list[str]:
        """Inline code, its line breaks as blanks."""
        return [" ".join(span.split()) for span in re.findall(r"(?s)(?<!`)`([^`]+)`(?!`)", self.prose)]

    @property
    def shell(self) -> list[list[str]]:
        """The words of each command line: of shell blocks, and of inline code of more than one word."""
        lines = [
            line for block in self.blocks if block.language in {"", "sh"} for line in unfolded(block.text).splitlines()
        ]
        return [words for line in [*lines, *(span for span in self.code if " " in span)] if (words := split(line))]

    @property
    def words(self) -> set[str]:
        """Whatever may name a path, a field or a module: each word of inline code and of shell blocks."""
        spans = [word for span in self.code for word in span.split()]
        return {word.strip("(),;'\"") for words in [*self.shell, spans] for word in words}


def unfolded(text: str) -> str:
    return text.replace("\\\n", " ")


def split(line: str) -> list[str]:
    """A line's words, without what leads it (a prompt, variables) and without a comment."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return line.split()
    while words and (words[0] in {"$", "export"} or re.match(r"\w+=", words[0])):
        words.pop(0)
    return [word for word in words if word != "…"]


def read(path: Path) -> Document:
    return Document(path, path.read_text("utf-8"))


# What is there


@cache
def app() -> Any:
    """The command line's application, where pyproject.toml says that it is."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]["plumbline"]
    return importlib.import_module(script.partition(":")[0]).app


@cache
def flags() -> set[str]:
    """Every flag of every command."""
    return {
        flag for command in _commands(app()) for found in command.assemble_argument_collection() for flag in found.names
    }


def _commands(parent: Any) -> Iterator[Any]:
    """The commands of `plumbline` that do something, also those below another, such as `import gguf`."""
    for name in parent:
        if not name.startswith("-"):
            below = parent[name]
            yield from [below] if below.default_command else _commands(below)


@cache
def targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z][\w-]*):", makefile()))


@cache
def makefile() -> str:
    return (ROOT / "Makefile").read_text("utf-8")


@cache
def fields() -> set[str]:
    """The dotted names of the configuration's fields, groups within groups too."""
    return set(dotted(AlignConfig))


def dotted(group: type[Any], prefix: str = "") -> Iterator[str]:
    for name, info in group.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Group):
            yield from dotted(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


@cache
def names_of_files() -> set[str]:
    found = [path for room in (*ROOMS, "docs", "docker", "docs") for path in (ROOT / room).rglob("*")]
    return {path.name for path in [*found, *ROOT.iterdir()]}


@cache
def variables() -> set[str]:
    """The project's own variables of the environment that its sources name."""
    sources = [path for room in (*ROOMS[:-1], "docker") for path in (ROOT / room).rglob("*") if path.suffix != ".md"]
    texts = [path.read_text("utf-8", errors="ignore") for path in sources if path.is_file()]
    return {name for text in [*texts, makefile()] for name in re.findall(r"\bPLUMBLINE_[A-Z_]+\b", text)}


@cache
def defined(module: Path) -> set[str]:
    """The names at the top of a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            aims = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(aim.id for aim in aims if isinstance(aim, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(alias.asname or alias.name for alias in node.names)
    return found


@cache
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found: list[str] = []
    for heading in re.findall(r"(?m)^#+ +(.+?) *$", read(path).prose):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


# The checks: each yields what it looks at, and what is wrong with it, None where it is right

Finding = tuple[str, str | None]


def commands(document: Document) -> Iterator[Finding]:
    """Every `plumbline …` is a command with flags and values that it takes."""
    for words in document.shell:
        if words[0].rpartition("/")[2] == "plumbline":
            yield shlex.join(words), refused(words[1:])


def refused(words: list[str]) -> str | None:
    """Why the command line would not take these words."""
    if not words or words == ["--version"]:
        return None
    if "--help" in words:
        return refused(words[: words.index("--help")])
    try:
        _, bound, *_ = app().parse_args(words, exit_on_error=False, print_error=False)
        config, given = bound.arguments.get("config"), bound.arguments.get("flags")
        if given is not None:
            known = config is not None and (ROOT / config).is_file()
            build_config(merge(read_yaml(ROOT / config) if known else {}, given.model_dump(exclude_unset=True)))
    except (CycloptsError, ConfigError) as error:
        return " ".join(str(error).split())
    return None


def lone_flags(document: Document) -> Iterator[Finding]:
    """Every flag that stands in prose by itself is one of `plumbline`'s."""
    for span in document.code:
        if span.startswith("--"):
            for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span):
                if flag not in OTHERS_FLAGS:
                    yield flag, None if flag in flags() else "no command has this flag"


def make_targets(document: Document) -> Iterator[Finding]:
    """Every `make …` is a target of the Makefile, and every variable one that it reads."""
    for words in document.shell:
        for number, word in enumerate(words):
            if word == "make" and (number == 0 or words[number - 1] == "&&"):
                for argument in words[number + 1 :]:
                    name = argument.partition("=")[0]
                    known = f"$({name})" in makefile() if "=" in argument else name in targets()
                    yield f"make {argument}", None if known else "the Makefile does not have it"


def paths(document: Document) -> Iterator[Finding]:
    """Every path of the repository exists, and so does every file that is named without its folder."""
    tops = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} | {"docs"}
    for word in document.words:
        path = word.partition(":")[0].removeprefix("./")
        top, _, rest = path.partition("/")
        if "=" in path or "://" in word or path in MADE:
            continue
        if (rest or path.endswith("/")) and top in tops:
            found = any(ROOT.glob(path.rstrip("/")))
            yield path, None if found else "no such path in the repository"
        elif (
            "/" not in path
            and path.endswith(FILE_TYPES)
            and path not in WRITTEN
            and not fnmatch.fnmatch(path, EXAMPLES)
        ):
            found = bool(fnmatch.filter(names_of_files(), path)) and path.strip("*") not in FILE_TYPES
            yield path, None if found else "no file of the repository has this name"


def dotted_fields(document: Document) -> Iterator[Finding]:
    """Every dotted field of a group is a field of it; of a pattern, some are."""
    for word in document.words:
        name = word.partition("=")[0].rstrip(".:")
        group, _, field = name.partition(".")
        if group in AlignConfig.model_fields and re.fullmatch(r"[\w.*]+", field) and not name.endswith(FILE_TYPES):
            if name.endswith((".parquet", ".csv", ".jsonl")):
                continue
            yield name, None if fnmatch.filter(fields() | groups(), name) else "the configuration has no such field"


@cache
def groups() -> set[str]:
    """The dotted names of groups within groups."""
    return {name.rpartition(".")[0] for name in fields()}


def configs(document: Document) -> Iterator[Finding]:
    """Every YAML block is a configuration that is valid, unless its first line names another file."""
    for text in [block.text for block in document.blocks if block.language == "yaml"]:
        if re.match(r"# (\S+\.ya?ml)", text):
            continue
        fault = None
        try:
            build_config(yaml.safe_load(text), source="block")
        except (ConfigError, yaml.YAMLError) as error:
            fault = str(error)
        yield text, fault


def python(document: Document) -> Iterator[Finding]:
    """Every Python block can be parsed, and what it imports of this project is there."""
    for text in [block.text for block in document.blocks if block.language == "python"]:
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            yield text, f"cannot be parsed: {error}"
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield f"{node.module}.{alias.name}", missing(f"{node.module}.{alias.name}")
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, missing(alias.name)


def modules(document: Document) -> Iterator[Finding]:
    """Every dotted name that begins with a package of this project is a module, or a name in one."""
    for word in document.words:
        name = word.partition("(")[0].rstrip(".")
        if name.partition(".")[0] in ROOMS and re.fullmatch(r"\w+(\.\w+)+", name) and not name.endswith(FILE_TYPES):
            yield name, missing(name)


def missing(name: str) -> str | None:
    """Why a dotted name of this project is not there; others are not looked at."""
    room, *rest = name.split(".")
    if room not in (*ROOMS, "plumbline"):
        return None
    place = ROOT / room
    while rest and (place / rest[0]).is_dir():
        place /= rest.pop(0)
    module = place / f"{rest.pop(0)}.py" if rest and (place / f"{rest[0]}.py").is_file() else place / "__init__.py"
    return None if not rest or rest[0] in defined(module) else f"{rest[0]} is not in {module.relative_to(ROOT)}"


def links(document: Document) -> Iterator[Finding]:
    """Every relative link and image leads to a file, and every anchor to a heading."""
    aims = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", document.prose))
    aims += re.findall(r'(?:src|srcset|href)="([^"]+)"', document.prose)
    for aim in aims:
        if re.match(r"[a-z]+:", aim):
            continue
        name, _, anchor = aim.partition("#")
        file = (document.path.parent / name).resolve() if name else document.path
        if not file.exists() or ROOT not in (file, *file.parents):
            yield aim, "leads to no file of the repository"
        elif anchor and file.suffix == ".md":
            there = anchors(file) if file != document.path else anchors_of(document)
            yield aim, None if anchor in there else f"no heading of {file.name} makes this anchor"
        else:
            yield aim, None


def anchors_of(document: Document) -> set[str]:
    return anchors(document.path) if document.path.exists() and read(document.path) == document else set()


def environment(document: Document) -> Iterator[Finding]:
    """Every variable of the project's own is read somewhere."""
    for name in re.findall(r"\bPLUMBLINE_[A-Z_]+\b", document.text):
        yield name, None if name in variables() else "no source reads it"


Check = Callable[[Document], Iterator[Finding]]
CHECKS: list[Check] = [
    *(commands, lone_flags, make_targets, paths, dotted_fields, configs, python, modules, links, environment),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_is_there(path: Path, check: Check) -> None:
    assert [f"{what}: {fault}" for what, fault in check(read(path)) if fault] == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_check_finds_something_to_look_at(check: Check) -> None:
    assert any(True for path in DOCUMENTS for _ in check(read(path)))


def shell(line: str) -> str:
    return f"```sh\n{line}\n```\n"


@pytest.mark.parametrize(
    ("check", "text", "fault"),
    [
        (commands, shell("plumbline fly"), "Unknown command"),
        (commands, shell("plumbline run --jsonn FILE"), "Unknown option"),
        (commands, shell("A=1 .venv/bin/plumbline run --dpo.betta 1   # no"), "Unknown option"),
        (commands, shell("plumbline run \\\n  --dpo.beta 99"), "dpo.beta"),
        (commands, shell("plumbline plan --config flows/configs/imdb.yaml --evaluation.judge grammar"), "grammar"),
        (commands, "Say `plumbline status --all`.", "Unknown option"),
        (commands, "Say `plumbline\nrun --nope 1`.", "Unknown option"),
        (commands, "```\nplumbline plann\n```\n", "Unknown command"),
        (lone_flags, "Set `--dpo.betta 1`.", "no command has this flag"),
        (lone_flags, "Set `--config FILE --colour`.", "no command has this flag"),
        (make_targets, shell("cd plumbline && make everything"), "the Makefile does not have it"),
        (make_targets, "Say `make ru`.", "the Makefile does not have it"),
        (make_targets, "Say `make run PYTHONS=3`.", "the Makefile does not have it"),
        (paths, "See `alignment/nothing.py`.", "no such path"),
        (paths, "See `flows/configs/no_*.yaml`.", "no such path"),
        (paths, shell("plumbline run --config flows/configs/imdb2.yaml"), "no such path"),
        (paths, "See `nothing.yaml`.", "no file of the repository"),
        (dotted_fields, "Raise `dpo.betta`.", "no such field"),
        (dotted_fields, "Raise `dpo.beta` and `gates.*anker*`.", "no such field"),
        (configs, "```yaml\ndpo: {betta: 1}\n```\n", "unknown field `dpo.betta`"),
        (configs, "```yaml\ndpo: {beta: 99}\n```\n", "dpo.beta"),
        (python, "```python\nfrom flows.align import aline\n```\n", "aline is not in flows/align.py"),
        (python, "```python\nimport alignment.nothing\n```\n", "nothing is not in"),
        (python, "```python\nfrom flows.align import\n```\n", "cannot be parsed"),
        (modules, "Call `alignment.config.load_konfig(path)`.", "load_konfig is not in alignment/config"),
        (modules, "See `tasks.nothing`.", "nothing is not in"),
        (links, "[a](nothing.md)", "leads to no file"),
        (links, "![a](docs/nothing.png)", "leads to no file"),
        (links, "[a](../../../etc/hosts)", "leads to no file of the repository"),
        (links, '<img src="docs/nothing.svg">', "leads to no file"),
        (links, "[a](docs/configure.md#nothing)", "no heading of configure.md"),
        (links, "[a](#nothing)", "no heading of README.md"),
        (environment, "Set `PLUMBLINE_HOUSE`.", "no source reads it"),
    ],
)
def test_a_check_notices_what_is_not_there(check: Check, text: str, fault: str) -> None:
    found = [f"{what}: {wrong}" for what, wrong in check(Document(ROOT / "README.md", text)) if wrong]
    assert len(found) == 1
    assert fault in found[0]


def test_output_and_other_programs_are_left_alone() -> None:
    text = "```text\nplumbline quickstart, seed 0\n```\n```sh\nmlflow ui --backend-store-uri x\n```\nSee `mlflow.db`."
    document = Document(ROOT / "README.md", text)
    assert [found for check in CHECKS for found in check(document)] == []


def test_the_anchors_are_github_s() -> None:
    assert {"try-it", "the-gates-and-why-reward-alone-lies"} <= anchors(ROOT / "README.md")


def test_a_field_of_the_configuration_is_known_by_its_dotted_name() -> None:
    assert {"seed", "dpo.beta"} <= fields()
    assert {f"gates.{name}" for name in GatesConfig.model_fields} <= fields()


def test_every_group_is_in_the_page_on_the_configuration() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \|", (ROOT / "docs" / "configure.md").read_text("utf-8"))
    assert set(AlignConfig.model_fields) <= set(rows)


def test_every_page_can_be_found_from_the_readme() -> None:
    aims = {aim.partition("#")[0] for aim, _ in links(read(ROOT / "README.md"))}
    assert {str(path.relative_to(ROOT)) for path in DOCUMENTS if path.parent.name in {"docs", "docker"}} <= aims


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= README_LINES


def test_the_table_of_stages_is_the_pipeline() -> None:
    from tasks.pipeline import PIPELINE

    text = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## Stages")[2].partition("\n## ")[0]
    rows = re.findall(r"(?m)^\| `(\w+)` \|(.*?)\|", text)
    gold = {"name": "second", "kind": "function", "function": "f"}
    everything = build_config({"evaluation": {"anchor": "a-model", "gold": [gold], "real_texts": "some-data"}})
    assert [name for name, _ in rows] == list(PIPELINE)
    for stage, (_, needs) in zip(PIPELINE.values(), rows, strict=True):
        always = re.sub(r"\([^)]*\)", "", needs)  # what only some configurations need stands in brackets
        assert re.findall(r"`(\w+)`", always) == list(stage.needs(everything)), stage.name


def test_the_output_has_each_figure_under_its_present_name() -> None:
    from alignment.judging.metric import metrics

    output = "\n".join(block.text for block in read(ROOT / "docs" / "results.md").blocks if block.language == "text")
    shown = [*metrics("model"), *metrics("aligned"), *(each for each in metrics("both") if each.shown)]
    # not of a run whose reward scores every sample, and that names no tasks and no real texts
    beside_real_texts = {"word_perplexity", "seen_bigrams", "realism_auc"}
    figures = [each for each in shown if each.name not in beside_real_texts]
    assert [each.title for each in figures if f"\n{each.title}  " not in output] == []
    elsewhere = {
        "preference_accuracy",
        "improvement",
        "unscored_rise",
        "task_drop",
        "seen_bigrams_drop",
        "realism_rise",
    }
    gates = [gate for gate in GATES.names() if not gate.startswith("anchor_") and gate not in elsewhere]
    assert [gate for gate in gates if f"\n{gate}  " not in output] == []


def test_each_gate_stands_in_the_table_of_gates() -> None:
    text = (ROOT / "docs" / "results.md").read_text("utf-8").partition("## The gates")[2].partition("\n## ")[0]
    assert re.findall(r"(?m)^\| `(\w+)` \|", text) == list(GATES.names())


def test_each_group_of_entry_points_stands_in_the_table_of_what_can_be_added() -> None:
    found = [each for each in vars(kinds).values() if isinstance(each, kinds.Kinds)]
    rows = dict(
        re.findall(
            r"(?m)^\|[^|]*\|[^|]*\| `plumbline\.(\w+)` \|([^|]*)\|", (ROOT / "docs" / "extend.md").read_text("utf-8")
        )
    )
    assert set(rows) == {each.group for each in found} | {kinds.FIELDS.removeprefix("plumbline.")}
    for each in found:
        names = ("row_check", "set_check") if each.decorator == "check" else (each.decorator,)
        assert not each.decorator or all(f"`@{name}" in rows[each.group] for name in names), each.group
