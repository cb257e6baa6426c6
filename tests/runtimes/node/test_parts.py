"""Bytes on their way in: written whole or not at all, and never more than there is room for."""

import os
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edgecxr.errors import ObjectTooLarge, SpoolError, SpoolFull
from edgecxr.runtimes.node.parts import MEGABYTE, Parts, free_bytes
from edgecxr.runtimes.node.spool import Arrival, Spool, SpoolLimits

ROOM = 1000 * MEGABYTE  # others write to this disk and delete from it meanwhile, but less than half as much


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path, max_object=MEGABYTE, refuse_below=0)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: memoryview(data)[1:]])
def test_a_part_takes_anything_like_bytes(parts: Parts, wrap: type[bytes]) -> None:
    data = bytes(range(256)) * 100
    with parts.open() as part:
        part.write(wrap(data))
        part.write(b"")
        part.write(memoryview(np.arange(3, dtype="<u2")))
        expected = bytes(wrap(data)) + bytes([0, 0, 1, 0, 2, 0])
        assert part.size == len(expected)
        assert part.path.read_bytes() == expected
        assert part.path.suffix == ".part"


def test_a_large_part_that_the_disk_begins_with_early_is_the_same(tmp_path: Path) -> None:
    data = np.random.default_rng(1).bytes(9 * MEGABYTE)
    with Parts(tmp_path, max_object=10 * MEGABYTE, refuse_below=0).open() as part:
        for position in range(0, len(data), 99_991):
            part.write(data[position : position + 99_991])
        part.seal()
        assert part.path.read_bytes() == data


def test_a_part_that_is_left_is_gone(parts: Parts, tmp_path: Path) -> None:
    with parts.open() as part:
        part.write(b"half")
        assert len(parts) == 1
    with pytest.raises(RuntimeError, match="the peer went away"), parts.open() as part:
        raise RuntimeError("the peer went away")
    part.discard()
    assert (list(tmp_path.iterdir()), len(parts)) == ([], 0)
    with pytest.raises(SpoolError, match="was committed or discarded"):
        part.write(b"more")


def test_a_committed_part_cannot_be_used_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", SpoolLimits(max_object_mb=1, refuse_below_mb=0))
    with spool.part() as part:
        part.write(b"all")
        receipt = spool.commit(part, Arrival("1.2", "1.2.3", "", "dicom"))
        with pytest.raises(SpoolError, match="was committed or discarded"):
            part.write(b"more")
        with pytest.raises(SpoolError, match="was committed or discarded"):
            spool.commit(part, Arrival("1.2", "1.2.3", "", "dicom"))
    assert spool.path(spool.get(receipt.image)).read_bytes() == b"all"
    spool.close()


def test_an_object_may_be_as_large_as_the_limit_and_no_larger(parts: Parts, tmp_path: Path) -> None:
    with parts.open() as part:
        part.write(bytes(MEGABYTE))
        with pytest.raises(ObjectTooLarge, match=r"more than 1 MB in one object; spool\.max_object_mb"):
            part.write(b"x")
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts set aside `ROOM`, more than this disk changes by while a test looks at it."""
    monkeypatch.setattr("edgecxr.runtimes.node.parts.RESERVED", ROOM)


@pytest.mark.usefixtures("roomy")
def test_room_is_reserved_for_every_open_part(tmp_path: Path) -> None:
    """Free room for one part and a half: the second is refused, until the first is done."""
    parts = Parts(tmp_path, max_object=ROOM, refuse_below=free_bytes(tmp_path) - ROOM - ROOM // 2)
    with (
        parts.open(),
        pytest.raises(SpoolFull, match=r"MB free on the disk, of which 2000 are for images .* stay free"),
    ):
        parts.open()
    with parts.open():
        assert len(parts) == 1


@pytest.mark.usefixtures("roomy")
def test_open_parts_set_aside_what_a_film_takes_and_not_what_an_object_may_have(tmp_path: Path) -> None:
    """Room for ten films, with objects of up to ten times that: ten transfers that stall do not set aside a hundred."""
    free = free_bytes(tmp_path)
    parts = Parts(tmp_path, max_object=10 * ROOM, refuse_below=free - 10 * ROOM - ROOM // 2)
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(parts.open())
        with pytest.raises(SpoolFull, match="for images on their way in"):
            parts.open()


def test_a_part_that_outgrows_its_room_asks_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecxr.runtimes.node.parts.RESERVED", MEGABYTE)
    parts = Parts(tmp_path, max_object=100 * MEGABYTE, refuse_below=0)
    with parts.open() as part:
        part.write(bytes(MEGABYTE))
        assert part.reserved == MEGABYTE
        part.write(b"x")
        assert part.reserved == 2 * MEGABYTE
        part.write(bytes(5 * MEGABYTE))
        assert part.reserved == part.size == 6 * MEGABYTE + 1
        parts._refuse_below = free_bytes(tmp_path) + ROOM
        with pytest.raises(SpoolFull, match="for images on their way in"):
            part.write(b"y")
    assert (list(tmp_path.iterdir()), len(parts)) == ([], 0)


@pytest.mark.usefixtures("roomy")
def test_small_steps_set_little_aside(tmp_path: Path) -> None:
    """Room for one film and a half: ten that come slowly fit into half of it."""
    parts = Parts(tmp_path, max_object=ROOM, refuse_below=free_bytes(tmp_path) - ROOM - ROOM // 2)
    with ExitStack() as stack:
        for _ in range(10):
            part = stack.enter_context(parts.open(MEGABYTE, expected=ROOM))
        part.write(b"x" * (MEGABYTE + 1))
        assert part.reserved == 2 * MEGABYTE
        stack.enter_context(parts.open())
        with pytest.raises(SpoolFull, match="for images on their way in"):
            parts.open(MEGABYTE, expected=ROOM)


def test_a_disk_below_the_watermark_takes_nothing(tmp_path: Path) -> None:
    parts = Parts(tmp_path, max_object=MEGABYTE, refuse_below=free_bytes(tmp_path) + ROOM)
    with pytest.raises(SpoolFull, match=r"stay free \(spool\.refuse_below_mb\)"):
        parts.open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("piece", [1000, 65536, 900_000])
def test_a_short_write_is_no_success(tmp_path: Path, piece: int) -> None:
    """A file size limit makes the kernel write less than asked, then nothing: as a full disk does."""
    program = f"""
        import resource, sys
        from pathlib import Path
        from edgecxr.errors import SpoolFull
        from edgecxr.runtimes.node.parts import Parts
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        part = Parts(Path(sys.argv[1]), 10_000_000, 0).open()
        try:
            for _ in range(0, 1_000_000, {piece}):
                part.write(bytes({piece}))
        except SpoolFull as error:
            print(error, part.open, list(Path(sys.argv[1]).iterdir()))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), tmp_path]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert told == "an object could not be written to the spool: File too large False []\n"


def test_a_pipe_that_takes_little_gets_everything(parts: Parts) -> None:
    """Real short writes: a descriptor that takes a few KB at a time."""
    reader, writer = os.pipe()
    with parts.open() as part:
        os.dup2(writer, part._descriptor)  # type: ignore[arg-type]
        os.set_blocking(writer, True)
        data = os.urandom(50_000)
        part.write(data)
        assert os.read(reader, 100_000) == data
    os.close(writer)
    os.close(reader)
