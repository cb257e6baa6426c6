"""What a worklist shows: a query, the rows that answer it, and each row in words."""

import time
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from edgecxr.runtimes.node.listing import Selection
from edgecxr.runtimes.node.spool import Image, Result, Row, State

if TYPE_CHECKING:
    from edgecxr.runtimes.node.spool import Spool

__all__ = ["STAGES", "Bar", "Line", "Query", "findings", "line", "lines", "person", "plain"]

PAGE = 50
RECENT = 20
DAY_S = 86400
PERIODS = {"day": 1, "week": 7}
BAR_WIDTH = 100
STAGES: dict[str, tuple[State, ...]] = {  # what a person asks for -> where such images stand
    "waiting": (State.RECEIVED, State.SCREENING),
    "decided": (State.DECIDED, State.DELIVERED),
    "refused": (State.REFUSED, State.DELIVERED),
    "doubt": (State.DECIDED, State.REFUSED, State.DELIVERED),
    "quarantined": (State.QUARANTINED,),
    "undelivered": (State.DECIDED, State.REFUSED),
}
STATUS: dict[str, Literal["ok", "refused"]] = {"decided": "ok", "refused": "refused"}  # of its result


@dataclass(frozen=True)
class Query:
    """What the form asks for; what it asks wrongly counts as not asked."""

    state: str = ""
    finding: str = ""  # "positive" is any
    text: str = ""
    period: str = ""
    order: Literal["newest", "urgent"] = "newest"
    before: int | None = None

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> "Query":
        """From a query string."""
        before = asked.get("before", "")
        return cls(
            state=asked.get("state", "") if asked.get("state") in STAGES else "",
            finding=asked.get("finding", "")[:64],
            text=asked.get("text", "").strip()[:100],
            period=asked.get("period", "") if asked.get("period") in PERIODS else "",
            order="urgent" if asked.get("order") == "urgent" else "newest",
            before=int(before) if before.isdecimal() and len(before) < 19 else None,
        )

    def address(self, **changes: int | None) -> str:
        """The query string of this query, changed; without what is not asked."""
        values = {name: value for name, value in asdict(replace(self, **changes)).items() if value}  # type: ignore[arg-type]
        return urlencode({name: value for name, value in values.items() if (name, value) != ("order", "newest")})

    def rows(self, spool: "Spool") -> tuple[list[Row], bool]:
        """One page of rows, and whether there are more."""
        selection = Selection(
            states=STAGES.get(self.state),
            finding=self.finding if self.finding not in ("", "positive") else None,
            text=self.text,
            limit=PAGE + 1,
            before=self.before,
            order=self.order,
            status=STATUS.get(self.state),
            positive=self.finding == "positive",
            since=time.time() - PERIODS[self.period] * DAY_S if self.period else None,
            doubt=self.state == "doubt",
        )
        found = spool.rows(selection)
        return found[:PAGE], len(found) > PAGE


@dataclass(frozen=True)
class Bar:
    """A score against its threshold, on a scale on which every threshold lies in the middle."""

    name: str
    probability: float
    threshold: float
    positive: bool
    width: float  # of BAR_WIDTH


@dataclass(frozen=True)
class Line:
    """One image in words."""

    image: Image
    stage: str  # waiting, screening, decided, refused or quarantined
    note: str  # a reason or an error; "" where there is none
    name: str  # of the patient, else of the file in a watched folder, else "Image" and its number
    bars: tuple[Bar, ...]
    positive: bool
    delivered: bool
    doubt: str  # why the result is in doubt; "" where it is not


def lines(rows: list[Row]) -> list[Line]:
    """Rows in words."""
    return [line(image, result) for image, result in rows]


def line(image: Image, result: Result | None) -> Line:
    """A score is shown only of an image that was decided."""
    stage, note = _stage(image, result)
    bars = (
        tuple(_bar(entry) for entry in result.record["findings"]) if result is not None and stage == "decided" else ()
    )
    positive = any(bar.positive for bar in bars)
    delivered = image.state is State.DELIVERED
    doubt = plain(result.doubt) if result is not None and stage in ("decided", "refused") else ""
    return Line(image, stage, plain(note), _name(image), bars, positive, delivered, doubt)


def _name(image: Image) -> str:
    file = plain(image.peer) if image.source == "folder" else ""
    return person(image.patient_name) or file or f"Image {image.id}"


def findings(spool: "Spool") -> list[str]:
    """What the last decided images were decided on: what one can ask for."""
    rows = spool.listing(states=STAGES["decided"], limit=RECENT)
    return list(dict.fromkeys(entry["name"] for _, result in rows if result for entry in result.record["findings"]))


def person(name: str) -> str:
    """A PN value (PS3.5 6.2.1.1) as people write it: family name, given names; other writings in brackets."""
    groups = []
    for group in plain(name).split("="):
        parts = [part.strip() for part in (group.split("^") + [""] * 5)[:5]]
        family, given = parts[0], " ".join(part for part in (parts[3], parts[1], parts[2], parts[4]) if part)
        groups.append(", ".join(part for part in (family, given) if part))
    shown = [group for group in groups if group]
    return f"{shown[0]} ({' · '.join(shown[1:])})" if len(shown) > 1 else "".join(shown)


def plain(text: str) -> str:
    """Text without control and direction characters, with which one name could pose as another."""
    return "".join(letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co"))


def _stage(image: Image, result: Result | None) -> tuple[str, str]:
    if image.state is State.QUARANTINED:
        return "quarantined", image.error
    if image.state is State.SCREENING:
        return "screening", ""
    if image.state is State.RECEIVED or result is None:
        return "waiting", image.error
    if result.status == "refused":
        return "refused", result.record.get("detail") or str(result.record.get("reason"))
    return "decided", ""


def _bar(entry: Mapping[str, float | str]) -> Bar:
    probability, threshold = float(entry["probability"]), float(entry["threshold"])
    positive = entry["decision"] == "positive"
    return Bar(
        str(entry["name"]), probability, threshold, positive, round(BAR_WIDTH * _place(probability, threshold), 1)
    )


def _place(probability: float, threshold: float) -> float:
    """0 … 1: odds against the threshold's odds, which lie at 0.5 (the scale of `results.record.urgency`)."""
    over, under = probability * (1 - threshold), threshold * (1 - probability)
    return over / (over + under) if over + under > 0 else 0.5
