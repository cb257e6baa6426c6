"""The engine cache: whole entries of exactly what was asked for, or none."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edgecxr.errors import EngineError
from edgecxr.runtimes.engine_cache import EngineCache, Key, default_folder

KEY = Key("a" * 64, "tensorrt", "10.3.0", "Orin, compute capability 8.7")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def test_what_was_kept_is_read(cache: EngineCache) -> None:
    assert cache.read(KEY) is None
    path = cache.write(KEY, b"engine")
    assert cache.read(KEY) == b"engine"
    assert [path] == list(cache.folder.iterdir())  # no temporary file is left
    assert cache.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("field", ["model", "flavour", "version", "device", "kind"])
def test_any_difference_is_another_entry(field: str, cache: EngineCache) -> None:
    cache.write(KEY, b"engine")
    assert cache.read(replace(KEY, **{field: "another"})) is None


def test_an_entry_that_is_damaged_is_as_good_as_absent(cache: EngineCache) -> None:
    path = cache.write(KEY, b"the engine")
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:-1],
        whole + b"x",
        whole[:-1] + b"?",
        b"X" + whole,
        whole.replace(b"10.3.0", b"10.4.0"),
    ):
        path.write_bytes(damaged)
        assert cache.read(KEY) is None
    cache.write(KEY, b"the engine")
    assert cache.read(KEY) == b"the engine"


def test_any_cut_and_any_flipped_bit_is_found(cache: EngineCache) -> None:
    path = cache.write(KEY, bytes(range(64)))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        assert cache.read(KEY) is None
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert cache.read(KEY) in (None, bytes(range(64)))  # a bit of the header that means nothing may differ


def test_an_entry_of_another_machine_under_this_name_is_foreign(cache: EngineCache) -> None:
    other = replace(KEY, device="another")
    cache.write(other, b"foreign").rename(cache.path(KEY))
    assert cache.read(KEY) is None


def test_a_folder_that_others_may_write_is_not_used(cache: EngineCache) -> None:
    cache.write(KEY, b"engine")
    cache.folder.chmod(0o777)
    for use in (lambda: cache.read(KEY), lambda: cache.write(KEY, b"engine")):
        with pytest.raises(EngineError, match=r"may be written by others, and an engine is code: `chmod go-w"):
            use()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"cannot keep an engine in .*file/cache.*name a place in EDGECXR_CACHE"):
        EngineCache(tmp_path / "file" / "cache").write(KEY, b"engine")


def test_the_least_recently_used_go_when_there_is_no_room(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache", limit_bytes=2500)
    keys = [replace(KEY, model=str(number)) for number in range(3)]
    for number, key in enumerate(keys[:2]):
        os.utime(cache.write(key, bytes(700)), (number, number))
    assert cache.read(keys[0]) is not None  # and so it is used last
    cache.write(keys[2], bytes(700))
    assert [cache.read(key) is not None for key in keys] == [True, False, True]
    cache.write(replace(KEY, model="large"), bytes(9000))
    assert [entry.key.model for entry in cache.list() if entry.key] == ["large"]


def test_the_listing_shows_damaged_files_too(cache: EngineCache) -> None:
    assert cache.list() == []
    cache.write(KEY, b"engine")
    (cache.folder / "engine-x.engine").write_bytes(b"garbage")
    assert {entry.key for entry in cache.list()} == {KEY, None}


def test_where_it_is() -> None:
    assert default_folder({"EDGECXR_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert default_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/edgecxr")
    assert default_folder({}) == Path.home() / ".cache" / "edgecxr"


def test_one_process_at_a_time_builds_and_the_next_knows_that_it_waited(cache: EngineCache) -> None:
    said = list[bool]()

    def build() -> None:
        with EngineCache(cache.folder).building() as waited:
            said.append(waited)

    with cache.building() as waited:
        assert not waited
        other = threading.Thread(target=build)
        other.start()
        other.join(1.0)
        assert said == []
    other.join()
    assert said == [True]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = EngineCache(tmp_path / "file" / "cache")
    with (
        pytest.raises(EngineError, match=r"cannot keep an engine in .*name a place in EDGECXR_CACHE"),
        cache.building(),
    ):
        pass
