"""The storage service as provider (PS3.4 annex B): from fragments on the wire to an image of the spool.

The data set goes into the spool as it came, behind meta information of our own (PS3.10 7.1); nothing decodes it.
Success is answered only after the spool has committed.
"""

import logging
import re
import struct
from dataclasses import dataclass

from edgecxr.errors import ObjectTooLarge, SpoolFull
from edgecxr.runtimes.node.dimse import Command, Context, Drain, Reply, Sink, Status, Tag, even
from edgecxr.runtimes.node.images import Arrival
from edgecxr.runtimes.node.parts import Part
from edgecxr.runtimes.node.pdu import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION
from edgecxr.runtimes.node.spool import Spool

__all__ = ["CLASSES", "NO_ROOM", "SYNTAXES", "TOO_LARGE", "Caller", "Storage"]

_IMAGE = "1.2.840.10008.5.1.4.1.1."
# what X-ray units and the consoles beside them send; what cannot be screened is refused there, with its reason
CLASSES = {
    _IMAGE + "1": "Computed Radiography",
    _IMAGE + "1.1": "Digital X-Ray, for presentation",
    _IMAGE + "1.1.1": "Digital X-Ray, for processing",
    _IMAGE + "1.2": "Digital Mammography, for presentation",
    _IMAGE + "1.2.1": "Digital Mammography, for processing",
    _IMAGE + "1.3": "Digital Intra-Oral X-Ray, for presentation",
    _IMAGE + "1.3.1": "Digital Intra-Oral X-Ray, for processing",
    _IMAGE + "7": "Secondary Capture",
    _IMAGE + "7.1": "Multi-frame Single Bit Secondary Capture",
    _IMAGE + "7.2": "Multi-frame Grayscale Byte Secondary Capture",
    _IMAGE + "7.3": "Multi-frame Grayscale Word Secondary Capture",
    _IMAGE + "7.4": "Multi-frame True Color Secondary Capture",
    _IMAGE + "12.1": "X-Ray Angiographic",
    _IMAGE + "12.2": "X-Ray Radiofluoroscopic",
    _IMAGE + "77.1.4": "VL Photographic",
}
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_JPEG = "1.2.840.10008.1.2.4."
SYNTAXES = {  # all that `edgecxr.read` reads
    IMPLICIT: "Implicit VR Little Endian",
    EXPLICIT: "Explicit VR Little Endian",
    DEFLATED: "Deflated Explicit VR Little Endian",
    BIG_ENDIAN: "Explicit VR Big Endian",
    "1.2.840.10008.1.2.1.98": "Encapsulated Uncompressed Explicit VR Little Endian",
    "1.2.840.10008.1.2.5": "RLE Lossless",
    _JPEG + "50": "JPEG Baseline",
    _JPEG + "51": "JPEG Extended",
    _JPEG + "57": "JPEG Lossless",
    _JPEG + "70": "JPEG Lossless, first-order prediction",
    _JPEG + "80": "JPEG-LS Lossless",
    _JPEG + "81": "JPEG-LS Near-lossless",
    _JPEG + "90": "JPEG 2000 Lossless",
    _JPEG + "91": "JPEG 2000",
    _JPEG + "201": "High-Throughput JPEG 2000 Lossless",
    _JPEG + "202": "High-Throughput JPEG 2000 Lossless, resolutions first",
    _JPEG + "203": "High-Throughput JPEG 2000",
}
PRIORITIES = {0: 0, 1: 1, 2: -1}  # medium, high, low (PS3.7 9.3.1.1)
NO_ROOM, TOO_LARGE = "no room for another image", "the object is larger than is taken"
HEAD = 4096  # bytes of a data set in which its own UIDs are looked for
_UID = re.compile(r"[0-9A-Za-z._-]{1,64}")  # what devices send as UIDs; PS3.5 9.1 allows digits and dots only
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who is on the other end of an association."""

    ae: str
    address: str
    priority: int = 0  # that the configuration adds to its images
    port: int | None = None  # where the configuration says that it listens


class Storage:
    """C-STORE into a spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def open(self, command: Command, context: Context, caller: Caller) -> Sink:
        """What takes the data set of a C-STORE-RQ: a part of the spool, or nothing and the status that says why."""
        instance = command.text(Tag.AFFECTED_INSTANCE)
        if command.text(Tag.AFFECTED_CLASS) != context.abstract:
            return Drain(Reply(Status.CLASS_NOT_SUPPORTED, "the class is not that of the presentation context"))
        if not _UID.fullmatch(instance):
            return Drain(Reply(Status.INVALID_INSTANCE, "the SOP Instance UID is no UID"))
        if not command.has_data_set:
            return Drain(Reply(Status.CANNOT_UNDERSTAND, "a C-STORE without a data set"))
        priority = PRIORITIES.get(command.number(Tag.PRIORITY) or 0, 0) + caller.priority
        arrival = Arrival(
            context.abstract, instance, context.transfer, "dicom", caller.address, priority, caller.ae or "UNKNOWN"
        )
        try:
            return Incoming(self._spool, arrival)
        except Exception as error:  # the boundary: whatever fails here is an answer to this operation
            return Drain(failure(error))


class Incoming:
    """One object on its way into the spool. Raises SpoolFull, before any byte is taken, where there is no room."""

    def __init__(self, spool: Spool, arrival: Arrival) -> None:
        self._spool = spool
        self._arrival = arrival
        self._head = bytearray()
        self._refused: Drain | None = None
        self._part: Part = spool.part()
        self.write_meta()

    def write_meta(self) -> None:
        """The head of the file, before the data set."""
        try:
            self._part.write(meta_information(self._arrival))
        except BaseException:
            self._part.discard()
            raise

    def write(self, piece: memoryview) -> None:
        """To the disk; after a failure to nowhere."""
        if self._refused is not None:
            self._refused.write(piece)
            return
        if len(self._head) < HEAD:
            self._head += piece[: HEAD - len(self._head)]
        try:
            self._part.write(piece)
        except Exception as error:  # the boundary
            self._refuse(failure(error))

    def finish(self) -> Reply:
        """Commit, then success."""
        if self._refused is None and (wrong := self._contradiction()):
            self._refuse(Reply(Status.MISMATCH if self._head else Status.CANNOT_UNDERSTAND, wrong))
        if self._refused is not None:
            return self._refused.finish()
        try:
            receipt = self._spool.commit(self._part, self._arrival)
        except Exception as error:  # the boundary
            self.discard()
            return failure(error)
        return Reply(Status.SUCCESS, note={"image": receipt.image, "copy": receipt.copy})

    def discard(self) -> None:
        """Remove what was not committed."""
        self._part.discard()

    def _refuse(self, reply: Reply) -> None:
        self.discard()
        self._refused = Drain(reply)

    def _contradiction(self) -> str:
        """What the data set says against the command; "" when nothing."""
        if not self._head:
            return "the data set is empty"
        for what, announced, found in zip(
            ("class", "instance"),
            (self._arrival.sop_class, self._arrival.sop_instance),
            identity(bytes(self._head), self._arrival.syntax),
            strict=True,
        ):
            if found and found != announced:
                return f"the data set is of another SOP {what} than the command"
        return ""


def failure(error: Exception) -> Reply:
    """The status for what went wrong on our side."""
    if isinstance(error, (SpoolFull, ObjectTooLarge)):
        comment = NO_ROOM if isinstance(error, SpoolFull) else TOO_LARGE
        return Reply(Status.OUT_OF_RESOURCES, comment, note={"detail": str(error)})
    logger.error("an object could not be stored", exc_info=error)
    return Reply(Status.PROCESSING_FAILURE, "the receiver could not store the object")


def meta_information(arrival: Arrival) -> bytes:
    """Preamble, prefix and file meta information of a received object (PS3.10 7.1)."""
    elements = b"".join(
        (
            struct.pack("<HH2sHL", 2, 0x0001, b"OB", 0, 2) + b"\0\1",
            _short(0x0002, b"UI", arrival.sop_class),
            _short(0x0003, b"UI", arrival.sop_instance),
            _short(0x0010, b"UI", arrival.syntax),
            _short(0x0012, b"UI", IMPLEMENTATION_UID),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION),
            _short(0x0016, b"AE", arrival.calling_ae),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(elements)) + elements


def _short(number: int, vr: bytes, text: str) -> bytes:
    value = even(text.encode("ascii"), b"\0" if vr == b"UI" else b" ")
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


def identity(head: bytes, syntax: str) -> tuple[str, str]:
    """SOP class and instance that the beginning of a data set names; "" for what is not found there."""
    found = {0x00080016: "", 0x00080018: ""}
    order = ">" if syntax == BIG_ENDIAN else "<"
    position = 0
    while syntax != DEFLATED and position + 12 <= len(head):
        group, number = struct.unpack_from(order + "HH", head, position)
        tag, vr = group << 16 | number, head[position + 4 : position + 6]
        if tag > max(found):
            break
        if syntax == IMPLICIT:
            start, length = position + 8, struct.unpack_from(order + "L", head, position + 4)[0]
        elif vr in _LONG:
            start, length = position + 12, struct.unpack_from(order + "L", head, position + 8)[0]
        else:
            start, length = position + 8, struct.unpack_from(order + "H", head, position + 6)[0]
        position = start + length
        if tag in found and position <= len(head):
            found[tag] = head[start:position].decode("latin-1").strip(" \0")
    sop_class, instance = found.values()
    return sop_class, instance
