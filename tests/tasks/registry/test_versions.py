"""Registered versions: found by their policy, and their aliases."""

import pytest

from tasks.registry import versions
from tests.registered import register

pytestmark = pytest.mark.usefixtures("local")


def test_a_version_is_found_by_its_policy(logged: tuple[str, str]) -> None:
    for key in ("k1", "k2", "k1"):
        register(*logged, "found", "challenger", key=key)
    assert versions.find_version("found", "k1") == versions.get_version("found", "3")
    assert versions.find_version("found", "k2") == versions.get_version("found", "2")
    assert versions.find_version("found", "k3") is None
    assert versions.find_version("never registered", "k1") is None


def test_aliases_move_and_go(logged: tuple[str, str]) -> None:
    run, uri = logged
    for key in ("k1", "k2"):
        register(run, uri, "moving", "challenger", key=key)
    versions.set_alias("moving", "champion", "1")
    versions.set_alias("moving", "champion", "2")
    champion = versions.find_alias("moving", "champion")
    assert champion is not None
    assert (champion.version, champion.aliases) == ("2", ("challenger", "champion"))
    versions.drop_alias("moving", "champion")
    versions.drop_alias("moving", "champion")
    assert versions.find_alias("moving", "champion") is None
    assert versions.find_alias("never registered", "champion") is None
