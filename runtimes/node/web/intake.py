"""A posted film: bytes from the wire to the spool, within its limits, without decoding."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from edgecxr.errors import ObjectTooLarge, Refusal
from edgecxr.read.dicom import is_dicom
from edgecxr.read.elements import Encoding, walk_group
from edgecxr.read.guard import DEFAULT
from edgecxr.runtimes.node.parts import MEGABYTE
from edgecxr.runtimes.node.spool import Arrival, Receipt

if TYPE_CHECKING:
    from edgecxr.runtimes.node.spool import Spool

__all__ = ["EmptyBody", "SlowBody", "arrival_of", "check_length", "take"]

HEAD = 1 << 16  # bytes kept to find out what it is
PIECE = 1 << 20  # bytes written at once; room is set aside by these, so that a slow body holds little of the disk
SILENCE_S = 30.0  # in the middle of a body
SLOWEST = 16_000  # bytes a second, on average; the first SILENCE_S are free
META = Encoding(implicit=False, little=True)  # PS3.10 7.1
SOP_CLASS, SOP_INSTANCE, SYNTAX = 0x00020002, 0x00020003, 0x00020010
UID = re.compile(r"[0-9.]{1,64}")


class EmptyBody(ValueError):
    """A request without a film."""


class SlowBody(TimeoutError):
    """The other side stopped in the middle of a film."""


async def take(spool: "Spool", body: AsyncIterator[bytes], promised: int | None, arrival: Arrival) -> Receipt:
    """Write the body to the spool and return once it is durable; `arrival` is completed from the file's own header.

    `promised` is Content-Length. Raises SpoolFull, before anything is read where there is no room for it,
    ObjectTooLarge, EmptyBody, SlowBody, and ClientDisconnect; then nothing is kept.
    """
    part = await run_in_threadpool(spool.part, PIECE, promised or 0)
    with part:
        head, pending = bytearray(), bytearray()
        async for chunk in _patient(body):
            head += chunk[: HEAD - len(head)]
            pending += chunk
            if len(pending) >= PIECE:
                await run_in_threadpool(part.write, bytes(pending))
                pending.clear()
        if not head:
            raise EmptyBody("the body is empty; it must be the bytes of one DICOM, PNG, TIFF or JPEG file")
        if pending:
            await run_in_threadpool(part.write, bytes(pending))
        if promised is not None and part.size != promised:
            raise EmptyBody(f"{part.size:,} bytes came, Content-Length says {promised:,}; send it again")
        return await run_in_threadpool(spool.commit, part, arrival_of(bytes(head), arrival))


def check_length(promised: int | None, limit_mb: int) -> None:
    """Refuse what says itself that it is too large, before it is sent. Raises ObjectTooLarge."""
    if promised is not None and promised > limit_mb * MEGABYTE:
        raise ObjectTooLarge(f"the file has {promised:,} bytes; this node takes {limit_mb} MB (spool.max_object_mb)")


async def _patient(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks of a body that neither stops nor drips: a part of the spool is reserved for it. Raises SlowBody."""
    begun, size = time.monotonic(), 0
    while True:
        left = begun + SILENCE_S + size / SLOWEST - time.monotonic()
        try:
            chunk = await asyncio.wait_for(body.__anext__(), max(0.0, min(SILENCE_S, left)))
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise SlowBody(
                f"{size:,} bytes came in {time.monotonic() - begun:.0f} s and then nothing, or too little "
                f"({SLOWEST // 1000} kB/s are wanted); nothing was kept: send it again"
            ) from None
        size += len(chunk)
        yield chunk


def arrival_of(head: bytes, arrival: Arrival) -> Arrival:
    """`arrival` with the UIDs in the meta information of a PS3.10 file that begins with `head`; as it is for others."""
    data = memoryview(head)
    if not is_dicom(data):
        return arrival
    try:
        meta, _ = walk_group(data, 132 if head[128:132] == b"DICM" else 0, META, DEFAULT)
    except Refusal:  # screening says what is wrong with it
        return arrival
    texts = {tag: head[item.start : item.stop].decode("latin-1").strip(" \0") for tag, item in meta.items()}
    uids = [uid if UID.fullmatch(uid := texts.get(tag, "")) else "" for tag in (SOP_CLASS, SOP_INSTANCE, SYNTAX)]
    return Arrival(
        sop_class=uids[0],
        sop_instance=uids[1],
        syntax=uids[2],
        source=arrival.source,
        peer=arrival.peer,
        priority=arrival.priority,
    )
