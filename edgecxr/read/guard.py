"""What is checked before anything is parsed or decoded, so that no file costs more than its limits allow."""

import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecxr.errors import Refusal, RefusalReason

__all__ = ["DEFAULT", "Limits", "check_frame", "check_ratio", "inflate", "load", "only_zeros", "shown"]

RATIO_FLOOR = 32 << 20  # bytes; a frame smaller than this is cheap whatever it was compressed to
INFLATE_STEP = 1 << 20  # bytes
SHOWN_LENGTH = 64  # characters of foreign text that a message repeats


@dataclass(frozen=True)
class Limits:
    """The most that one file may cost. The largest common detector has 4,300 x 4,300 = 18.5 million pixels."""

    file_bytes: int = 512 << 20
    side: int = 20_000  # rows, or columns
    pixels: int = 100_000_000
    depth: int = 64  # sequences and items that lie inside one another
    elements: int = 100_000  # DICOM data elements, PNG chunks, TIFF entries
    ratio: int = 1000  # decoded bytes per compressed byte, for frames above 32 MiB

    @property
    def inflated_bytes(self) -> int:
        """The most that a deflated DICOM data set may inflate to: the largest 16-bit frame and 64 MiB of header."""
        return 2 * self.pixels + (64 << 20)


DEFAULT = Limits()


def shown(text: str) -> str:
    """`text` of a foreign header, fit for a message or a log: quoted, escaped and cut to 64 characters."""
    return repr(text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…")


def only_zeros(data: bytes | memoryview) -> bool:
    """Whether `data` is padding: empty, or nothing but zero bytes."""
    return not bytes(data).strip(b"\0")


def load(path: Path, limits: Limits) -> memoryview:
    """All bytes of a regular file, writable.

    Raises Refusal: UNREADABLE when it cannot be read, TOO_LARGE, TRUNCATED when it shrinks while it is read.
    """
    try:
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as handle:
            status = os.fstat(handle.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Refusal(RefusalReason.UNREADABLE, "a radiograph is a file; this is a folder or a device")
            if status.st_size > limits.file_bytes:
                raise Refusal(
                    RefusalReason.TOO_LARGE,
                    f"the file has {status.st_size:,} bytes; the limit is {limits.file_bytes:,}",
                )
            buffer = np.empty(status.st_size, np.uint8).data
            filled = 0
            while filled < status.st_size and (count := handle.readinto(buffer[filled:])):
                filled += count
    except FileNotFoundError:
        raise Refusal(RefusalReason.UNREADABLE, "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Refusal(RefusalReason.UNREADABLE, f"the file cannot be read: {error}") from error
    if filled < len(buffer):
        raise Refusal(RefusalReason.TRUNCATED, f"the file ended after {filled:,} of {len(buffer):,} bytes")
    return buffer


def _open_without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # opening a pipe must not wait for its writer


def check_frame(rows: int, columns: int, limits: Limits) -> None:
    """Raise Refusal when a header declares no pixels (CONTRADICTORY) or more than a radiograph has (TOO_LARGE)."""
    if rows < 1 or columns < 1:
        raise Refusal(RefusalReason.CONTRADICTORY, f"the header declares {rows} x {columns} pixels")
    if max(rows, columns) > limits.side or rows * columns > limits.pixels:
        raise Refusal(
            RefusalReason.TOO_LARGE,
            f"{rows:,} x {columns:,} pixels declared; the limit is {limits.side:,} a side, {limits.pixels:,} in all",
        )


def check_ratio(decoded: int, encoded: int, limits: Limits) -> None:
    """Raise Refusal (TOO_LARGE) when `encoded` bytes claim to hold `decoded` bytes that no film compresses to."""
    if decoded > RATIO_FLOOR and decoded > limits.ratio * max(1, encoded):
        raise Refusal(
            RefusalReason.TOO_LARGE,
            f"{encoded:,} compressed bytes declare {decoded:,} bytes of pixels, over {limits.ratio:,} times as many",
        )


def inflate(data: memoryview, limits: Limits) -> memoryview:
    """The bytes of a raw deflate stream (RFC 1951; PS3.5 A.5), writable; padding or a checksum behind it is ignored.

    Raises Refusal: UNREADABLE (not deflate), TRUNCATED, TOO_LARGE above `limits.inflated_bytes`.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    result = bytearray()
    try:
        for start in range(0, len(data), INFLATE_STEP):
            pending, full = bytes(data[start : start + INFLATE_STEP]), True
            while (pending or full) and not stream.eof:  # a full piece may have left more inside the decompressor
                chunk = stream.decompress(pending, INFLATE_STEP)
                pending, full = stream.unconsumed_tail, len(chunk) == INFLATE_STEP
                result += chunk
                if len(result) > limits.inflated_bytes:
                    raise Refusal(
                        RefusalReason.TOO_LARGE,
                        f"the deflated data set inflates to more than {limits.inflated_bytes:,} bytes",
                    )
    except zlib.error as error:
        raise Refusal(RefusalReason.UNREADABLE, f"the deflated data set is damaged: {error}") from error
    if not stream.eof:
        raise Refusal(RefusalReason.TRUNCATED, f"the deflated data set breaks off after {len(result):,} bytes")
    return memoryview(result)
