"""Open kinds: names without an import, built in or of an installed package, and refusals that name the way out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment import kinds
from alignment.errors import ConfigError
from alignment.kinds import Kinds, Origin

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


class Packages:
    """Packages that are installed in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, name: str, source: str, *points: str, version: str = "1.2") -> None:
        (self.folder / f"{name}.py").write_text(source, encoding="utf-8")
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(METADATA.format(name=name, version=version), encoding="utf-8")
        (info / "entry_points.txt").write_text("\n".join(points) + "\n", encoding="utf-8")
        kinds._installed.cache_clear()
        kinds._entry_points.cache_clear()
        kinds._place_of.cache_clear()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Packages(tmp_path)
    for name in set(sys.modules) - before:
        del sys.modules[name]
    monkeypatch.undo()
    kinds._installed.cache_clear()
    kinds._entry_points.cache_clear()
    kinds._place_of.cache_clear()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with two built-in kinds, `plain` and `squared`, which says so when it is imported."""
    source = (
        "from tests.alignment.test_kinds import SHAPES, registers\n"
        "def shape(name, sides=0): return registers(SHAPES[0], name)\n"
        "@shape('plain')\ndef first(): return 'plain'\n"
        "@shape('squared', sides=4)\nclass Second: pass\n"
        "def other(name): return lambda function: function\n"
        "@other('no shape')\ndef third(): pass\n"
    )
    (tmp_path / "shapes.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(kinds, "PROJECT", tmp_path)
    return "shapes"


SHAPES: list[Kinds[Any]] = []
registers = kinds.registers


@pytest.fixture
def shapes(home: str, packages: Packages) -> Iterator[Kinds[Any]]:
    SHAPES.append(Kinds("shapes", "shape", home))
    yield SHAPES[0]
    SHAPES.clear()


def test_names_are_read_from_the_source_in_its_order_without_importing_it(shapes: Kinds[Any]) -> None:
    assert shapes.names() == ("plain", "squared")
    assert "shapes" not in sys.modules
    assert shapes.origin("plain") == Origin("shapes")
    assert shapes.origin("squared").options == {"sides": 4}


def test_a_kind_is_imported_at_its_first_use(shapes: Kinds[Any]) -> None:
    assert shapes.get("plain")() == "plain"
    assert "shapes" in sys.modules
    assert list(shapes.all()) == ["plain", "squared"]


def test_a_package_brings_a_kind_by_an_entry_point(shapes: Kinds[Any], packages: Packages) -> None:
    packages.install(
        "round_shapes", "def circle(): return 'circle'\n", "[plumbline.shapes]", "circle = round_shapes:circle"
    )
    assert shapes.names() == ("plain", "squared", "circle")
    assert shapes.origin("circle") == Origin("round_shapes", "round_shapes", "1.2")
    assert "round_shapes" not in sys.modules
    assert shapes.get("circle")() == "circle"


def test_what_the_package_registers_under_the_name_is_the_kind(shapes: Kinds[Any], packages: Packages) -> None:
    """As a gate, whose decorator makes more of the function than it is."""
    source = (
        "from tests.alignment.test_kinds import SHAPES\n"
        "def circle(): return 'plain function'\nSHAPES[0].register('circle', 'made of it')\n"
    )
    packages.install("round_shapes", source, "[plumbline.shapes]", "circle = round_shapes:circle")
    assert shapes.get("circle") == "made of it"


def test_an_unknown_kind_is_refused_with_the_list(shapes: Kinds[Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        shapes.get("os:system")
    assert str(raised.value) == (
        "'os:system' is none of the shapes: plain, squared; install the package that brings it, or take one of these"
    )


def test_two_kinds_of_one_name_are_refused(shapes: Kinds[Any], packages: Packages) -> None:
    packages.install("round_shapes", "plain = 1\n", "[plumbline.shapes]", "plain = round_shapes:plain")
    assert shapes.names() == ("plain", "squared"), "other commands go on"
    with pytest.raises(ConfigError, match="'plain' of the shapes is brought by round_shapes and by Plumbline"):
        shapes.get("plain")


def test_registering_a_name_twice_is_refused(shapes: Kinds[Any]) -> None:
    shapes.get("plain")
    with pytest.raises(ConfigError, match="two shapes are called 'plain': give one of them another name"):
        registers(shapes, "plain")(object())


def test_a_package_that_cannot_be_imported_is_named(shapes: Kinds[Any], packages: Packages) -> None:
    packages.install(
        "round_shapes", "import nothing_of_this_name\n", "[plumbline.shapes]", "circle = round_shapes:circle"
    )
    assert "circle" in shapes.names(), "choosing another kind does not need it"
    with pytest.raises(ConfigError) as raised:
        shapes.get("circle")
    assert str(raised.value) == (
        "'circle' of the shapes: round_shapes 1.2 cannot be imported (ModuleNotFoundError: No module named "
        "'nothing_of_this_name'); repair or remove that package"
    )


def test_a_kind_may_bring_fields(shapes: Kinds[Any], packages: Packages) -> None:
    source = "from alignment.config import Group\nclass Fields(Group):\n    radius: float = 1.0\ncircle = 1\n"
    points = (
        "[plumbline.shapes]",
        "circle = round_shapes:circle",
        "[plumbline.fields]",
        "shapes.circle = round_shapes:Fields",
    )
    packages.install("round_shapes", source, *points, "losses.circle = round_shapes:Fields")
    assert [(name, group().radius) for name, group in shapes.fields().items()] == [("circle", 1.0)]


def test_every_kind_of_this_project_is_found_under_the_name_that_its_source_gives() -> None:
    registries = [value for value in vars(kinds).values() if isinstance(value, Kinds) and value.home]
    assert len(registries) == 13
    for registry in registries:
        assert registry.names(), registry
        assert list(registry.all()) == list(registry.names())


def test_a_choice_is_an_enumeration_in_the_schema_that_the_form_is_drawn_from() -> None:
    from alignment.config import DPOConfig

    assert DPOConfig.model_json_schema()["properties"]["loss"]["enum"] == list(kinds.LOSSES.names())


def test_what_a_package_s_decorator_says_is_read_without_importing_it(shapes: Kinds[Any], packages: Packages) -> None:
    source = "def shape(name, sides=0): return lambda made: made\n@shape('circle', sides=1)\ndef circle(): pass\n"
    packages.install("round_shapes", source, "[plumbline.shapes]", "circle = round_shapes:circle")
    assert shapes.origin("circle").options == {"sides": 1}
    assert "round_shapes" not in sys.modules


def test_a_kind_that_has_to_be_decorated_is_refused_as_a_bare_function(home: str, packages: Packages) -> None:
    made: Kinds[Any] = Kinds("shapes", "shape", home, decorated=True)
    packages.install("round_shapes", "def circle(): pass\n", "[plumbline.shapes]", "circle = round_shapes:circle")
    with pytest.raises(ConfigError, match="round_shapes registers nothing of this name; decorate it with `@shape"):
        made.get("circle")


def test_fields_that_cannot_be_imported_stop_only_who_chooses_the_kind(shapes: Kinds[Any], packages: Packages) -> None:
    points = (
        "[plumbline.shapes]",
        "circle = round_shapes:circle",
        "[plumbline.fields]",
        "shapes.circle = no_module:Fields",
    )
    packages.install("round_shapes", "circle = 1\n", *points)
    assert shapes.fields() == {}
    assert shapes.get("plain")
    with pytest.raises(ConfigError, match="'circle' of the shapes: its fields, no_module:Fields, cannot be imported"):
        shapes.get("circle")


def test_fields_for_no_kind_are_refused(packages: Packages) -> None:
    packages.install("round_shapes", "Fields = 1\n", "[plumbline.fields]", "reward.circle = round_shapes:Fields")
    with pytest.raises(ConfigError, match=r"'reward.circle' of plumbline.fields \(round_shapes:Fields\) names no kind"):
        kinds.require_known_fields()
