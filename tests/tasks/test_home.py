"""The folder of a home, and the store that the environment names."""

from pathlib import Path

import pytest

from alignment.errors import ConfigError
from alignment.remote.shared import SharedStore
from alignment.remote.store import RemoteStore
from alignment.stages.store import Store
from tasks.home import home, place_told, store


def test_the_store_is_the_homes_own_and_nothing_is_said_of_it():
    assert type(store()) is Store
    assert (store().place, store().shared) == (str(home() / "store"), False)
    assert place_told() == ""


def test_a_folder_that_is_shared_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PLUMBLINE_STORE", str(tmp_path / "shared"))
    assert isinstance(store(), SharedStore)
    assert store().shared
    assert place_told() == f"The store is {tmp_path / 'shared'}, which does not exist yet and will be made"
    (tmp_path / "shared").mkdir()
    assert place_told() == f"The store is {tmp_path / 'shared'}"


def test_a_file_is_no_store_and_a_folder_is_not_made_where_its_disk_is_not_mounted(monkeypatch, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("{}")
    monkeypatch.setenv("PLUMBLINE_STORE", str(file))
    with pytest.raises(ConfigError, match=rf"^PLUMBLINE_STORE {file}: is no folder; give one that all machines"):
        store()
    monkeypatch.setenv("PLUMBLINE_STORE", str(tmp_path / "mnt" / "shared"))
    told = rf"^PLUMBLINE_STORE {tmp_path}/mnt/shared: neither this folder nor {tmp_path}/mnt is there; mount the disk, "
    with pytest.raises(ConfigError, match=told):
        store()
    assert not (tmp_path / "mnt").exists()


def test_a_bucket_has_its_copies_and_work_in_the_home_and_is_one_in_a_process(monkeypatch):
    monkeypatch.setenv("PLUMBLINE_STORE", "s3://bucket/prefix/")
    monkeypatch.setenv("PLUMBLINE_STORE_CACHE_GB", "1.5")
    found = store()
    assert isinstance(found, RemoteStore)
    assert found is store()
    assert (found.place, found.shared, found.cache.bound) == ("s3://bucket/prefix", True, 1_500_000_000)
    assert found.root.is_relative_to(home())
    assert place_told() == "The store is s3://bucket/prefix"


@pytest.mark.parametrize(("name", "value"), [("PLUMBLINE_STORE", "ftp://x"), ("PLUMBLINE_STORE_CACHE_GB", "much")])
def test_what_names_no_store_is_refused(name, value, monkeypatch):
    monkeypatch.setenv("PLUMBLINE_STORE", "s3://bucket")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name} {value}"):
        store()


def test_two_buckets_have_copies_of_their_own(monkeypatch):
    roots: set[Path] = set()
    for name in ("one", "two"):
        monkeypatch.setenv("PLUMBLINE_STORE", f"s3://{name}")
        roots.add(store().root)
    assert len(roots) == 2
