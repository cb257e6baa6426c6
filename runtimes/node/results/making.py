"""All that the making of one result object needs, in one place."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr import __version__
from edgecxr.runtimes.node.config import ResultSection
from edgecxr.runtimes.node.drawing_process import Draw
from edgecxr.runtimes.node.results.codes import uid
from edgecxr.runtimes.node.results.source import Source
from edgecxr.runtimes.node.results.text import ascii_text

__all__ = ["Making"]


@dataclass(frozen=True)
class Making:
    """A result about to be made: data and a film, so that the same one gives the same object."""

    source: Source
    record: Mapping[str, Any]
    cam: NDArray[np.float32] | None  # (C, h, w)
    decided: float  # Unix seconds
    instance: str  # SOP Instance UID that the object gets
    settings: ResultSection
    draw: Draw  # its film
    doubt: str = ""  # why the result is in doubt, since it was decided
    version: str = __version__

    @property
    def refused(self) -> bool:
        return bool(self.record["status"] == "refused")

    @property
    def reason(self) -> str:
        """Why it was refused, for people, in ASCII."""
        detail = ascii_text(self.record["detail"])
        reason = str(self.record["reason"]).replace("_", " ")
        return f"{reason}: {detail}" if detail else reason

    @property
    def model(self) -> str:
        return ascii_text(f"{self.record['model']['name']} {self.record['model']['version']}")

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether the result is in doubt; what was odd about the image: found by the reader, then by this result."""
        doubt = (f"IN DOUBT: {self.doubt}",) if self.doubt else ()
        return tuple(ascii_text(note) for note in (*doubt, *self.record.get("notes", ()), *self.source.notes))

    @property
    def device(self) -> str:
        """UID of this node, by its serial number."""
        return str(uid("device", self.settings.device_serial))

    @property
    def offset(self) -> str:
        """Offset from UTC of every date and time in the object (PS3.3 C.12.1.1.8).

        The image's own where it states one, because the study's date and time are copied as they are stored.
        """
        if self.source.timezone:
            return self.source.timezone
        if self.settings.timezone is not None:
            return self.settings.timezone
        minutes = time.localtime(self.decided).tm_gmtoff // 60
        return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"

    @property
    def moment(self) -> datetime:
        """When it was decided, in that zone."""
        sign = -1 if self.offset.startswith("-") else 1
        hours, minutes = int(self.offset[1:3]), int(self.offset[3:])
        zone = timezone(sign * timedelta(hours=hours, minutes=minutes))
        return datetime.fromtimestamp(self.decided, zone)
