import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecxr.durable import write_atomically

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions, links and pipes of POSIX")


@pytest.fixture
def _umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_umask")
def test_a_new_file_has_what_the_umask_leaves(tmp_path: Path) -> None:
    write_atomically(tmp_path / "page", b"films")
    assert (tmp_path / "page").read_bytes() == b"films"
    assert mode(tmp_path / "page") == 0o600
    write_atomically(tmp_path / "public", b"", mode=0o644)
    assert mode(tmp_path / "public") == 0o644


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize("before", [0o600, 0o644, 0o664])
def test_a_file_keeps_its_mode(tmp_path: Path, before: int) -> None:
    (tmp_path / "page").write_bytes(b"old")
    (tmp_path / "page").chmod(before)
    write_atomically(tmp_path / "page", b"new")
    assert ((tmp_path / "page").read_bytes(), mode(tmp_path / "page")) == (b"new", before)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    for content in (b"new", b"newer"):
        write_atomically(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_what_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "self").symlink_to("self")
    for name, number in (("pipe", errno.EEXIST), ("link", errno.EEXIST), ("self", errno.ELOOP)):
        with pytest.raises(OSError, match=name if name == "self" else "no regular file") as caught:
            write_atomically(tmp_path / name, b"new")
        assert caught.value.errno == number
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe", "self"]
