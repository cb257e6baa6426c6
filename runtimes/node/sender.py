"""C-STORE to another DICOM application (PS3.4 B, PS3.7 9.1.1): many files over one association."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import PresentationContext, build_context

from edgecxr.errors import Refusal, RefusalReason, SendError
from edgecxr.read.dicom import META
from edgecxr.read.elements import walk_group
from edgecxr.read.guard import DEFAULT, shown
from edgecxr.runtimes.node.caller import Call, call
from edgecxr.runtimes.node.lines import Calls, Peer

__all__ = ["SendResult", "send"]

CONTEXTS = 128  # of one association: context IDs are the odd numbers of a byte (PS3.8 9.3.2.2)
HEAD = 1 << 16  # bytes that hold the meta information of any file
SLOWEST = 64 << 10  # bytes a second that a link must carry; slower ones count as silent
DUPLICATE = 0x0111  # "duplicate SOP instance" (PS3.7 C.5.7): the peer has this object already

Pair = tuple[str, str]  # SOP class, transfer syntax


@dataclass(frozen=True)
class SendResult:
    """What became of one file: the peer's status, or why there is none."""

    file: Path
    status: int | None
    error: str = ""

    @property
    def sent(self) -> bool:
        """Whether the peer has the object: success, a warning (0xBxxx), or it had it before (0x0111)."""
        return self.status is not None and (self.status in (0, DUPLICATE) or self.status >> 12 == 0xB)


@dataclass(frozen=True)
class _Item:
    index: int
    file: Path
    pair: Pair


def send(
    files: Sequence[Path],
    peer: Peer,
    calling_ae: str,
    *,
    progress: Callable[[SendResult], None] | None = None,
    timeout_s: float = 30.0,
    calls: Calls | None = None,
) -> list[SendResult]:
    """Send DICOM files; one result for each, in their order.

    One association carries all, or as few as their object classes and transfer syntaxes need (128 pairs each). Each
    file is offered in its own transfer syntax and, where that is Explicit VR Little Endian, in the Implicit VR one
    that every peer must take (PS3.5 10.1). `timeout_s` bounds each silence of the peer. When an association is lost
    over a file, the next files go over a new one; after two losses in a row the rest is given up.

    Raises SendError with the peer's own words when the first association cannot be had.
    """
    results: list[SendResult | None] = [None] * len(files)

    def settle(index: int, status: int | None, error: str = "") -> None:
        results[index] = result = SendResult(files[index], status, error)
        if progress:
            progress(result)

    items = []
    for index, file in enumerate(files):
        try:
            items.append(_Item(index, file, _pair(file)))
        except Refusal as error:
            settle(index, None, error.detail)
        except OSError as error:
            settle(index, None, str(error))
    line = _Line(peer, calling_ae, timeout_s, calls, settle)
    for batch in _batches(items):
        line.send(batch)
    return [result for result in results if result is not None]


class _Line:
    """Sends batches to one peer and calls again when an association is lost."""

    def __init__(
        self,
        peer: Peer,
        calling_ae: str,
        timeout_s: float,
        calls: Calls | None,
        settle: Callable[..., None],
    ) -> None:
        self.peer = peer
        self.calling_ae = calling_ae
        self.timeout_s = timeout_s
        self.calls = calls
        self.settle = settle
        self.reached = False
        self.lost = 0  # files in a row that cost their association

    def send(self, batch: list[_Item]) -> None:
        """Settle every item of a batch. Raises SendError when the peer was never reached."""
        pending = list(batch)
        problem = "given up: the two files before cost their associations"
        while pending and self.lost < 2:
            contexts = _contexts({item.pair for item in pending})
            try:
                with call(
                    self.peer, self.calling_ae, contexts, timeout_s=self.timeout_s, calls=self.calls
                ) as established:
                    self.reached = True
                    pending = self._over(established, pending)
            except SendError as error:
                if not self.reached:
                    raise
                self.lost, problem = 2, str(error)
        for item in pending:
            self.settle(item.index, None, problem)

    def _over(self, established: Call, pending: list[_Item]) -> list[_Item]:
        """Send until the association is lost; what is left then."""
        for number, item in enumerate(pending):
            status, error = _store(established, item, number, self.timeout_s)
            self.settle(item.index, status, error)
            if not established.alive:
                self.lost += 1
                return pending[number + 1 :]
            self.lost = 0
        return []


def _store(established: Call, item: _Item, number: int, timeout_s: float) -> tuple[int | None, str]:
    association = established.association
    if not _taken(association, item.pair):
        return None, f"the peer does not take {UID(item.pair[0]).name} ({UID(item.pair[1]).name})"
    try:
        association.dimse_timeout = timeout_s + item.file.stat().st_size / SLOWEST
        answer = association.send_c_store(_payload(association, item), msg_id=number % 0xFFFF + 1, priority=0)
    except (AttributeError, InvalidDicomError, ValueError) as error:  # found out before anything was sent
        return None, str(error)
    except (OSError, RuntimeError) as error:  # the file went away in the middle, or the association did
        established.wire.fault = established.fault or str(error)
        return None, established.fault
    if "Status" not in answer:
        return None, established.fault or f"no answer within {association.dimse_timeout:.0f} s"
    comment = str(answer.get("ErrorComment", "") or "")
    return int(answer.Status), _meaning(int(answer.Status), comment)


def _taken(association: Any, pair: Pair) -> bool:
    """Whether the peer accepted what `_payload` needs."""
    return not _proposed(pair).isdisjoint(_accepted(association))


def _accepted(association: Any) -> set[Pair]:
    return {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}


def _payload(association: Any, item: _Item) -> Any:
    """The path, to be sent as it is; the data set, to be written in Implicit VR where the peer takes only that."""
    sop_class, syntax = item.pair
    accepted = _accepted(association)
    if (
        syntax == ExplicitVRLittleEndian
        and item.pair not in accepted
        and (sop_class, ImplicitVRLittleEndian) in accepted
    ):
        return dcmread(item.file)
    return item.file


def _meaning(status: int, comment: str) -> str:
    """What a status says (PS3.4 B.2.3); "" for success."""
    if status == 0:
        return ""
    kinds = {0xA7: "out of resources", 0xA9: "data set does not match SOP class"}
    known = {0x0111: "the peer has it already", 0x0122: "SOP class not supported", 0x0124: "not authorised"}
    kind = known.get(status) or kinds.get(status >> 8)
    if kind is None:
        kind = {0xB: "taken with a warning", 0xC: "cannot understand"}.get(status >> 12, "failure")
    return f"0x{status:04X} {kind}" + (f": {shown(comment)}" if comment else "")


def _pair(file: Path) -> Pair:
    """SOP class and transfer syntax, from the meta information. Raises Refusal or OSError."""
    with file.open("rb") as handle:
        data = memoryview(handle.read(HEAD))
    if bytes(data[128:132]) != b"DICM":
        raise Refusal(RefusalReason.UNREADABLE, "not a DICOM file (PS3.10): it does not begin with 128 bytes and DICM")
    meta, _ = walk_group(data, 132, META, DEFAULT)
    values = []
    for tag, words in ((0x00020002, "SOP class"), (0x00020010, "transfer syntax")):
        element = meta.get(tag)
        text = bytes(data[element.start : element.stop]).decode("latin-1").strip(" \0") if element else ""
        if not text:
            raise Refusal(RefusalReason.UNREADABLE, f"not a DICOM file (PS3.10): its meta information has no {words}")
        if not set(text) <= set("0123456789.") or len(text) > 64:
            raise Refusal(RefusalReason.UNREADABLE, f"the {words} in its meta information is no UID: {shown(text)}")
        values.append(text)
    return values[0], values[1]


def _batches(items: list[_Item]) -> list[list[_Item]]:
    """The items, split so that each part needs at most 128 presentation contexts."""
    batches: list[list[_Item]] = []
    used: set[Pair] = set()
    for item in items:
        wanted = used | _proposed(item.pair)
        if not batches or len(wanted) > CONTEXTS:
            batches.append([])
            wanted = _proposed(item.pair)
        batches[-1].append(item)
        used = wanted
    return batches


def _proposed(pair: Pair) -> set[Pair]:
    return {pair, (pair[0], str(ImplicitVRLittleEndian))} if pair[1] == ExplicitVRLittleEndian else {pair}


def _contexts(pairs: set[Pair]) -> list[PresentationContext]:
    """One context a pair: a peer that may choose among syntaxes could choose one that the file does not have."""
    proposed = sorted(set().union(*map(_proposed, pairs)))
    return [build_context(sop_class, syntax) for sop_class, syntax in proposed]
