"""What the API answers: the record of `edgecxr screen --jsonl`, with the image's id, state and links."""

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgecxr.errors import RefusalReason

if TYPE_CHECKING:
    from edgecxr.runtimes.node.spool import Image, Result

__all__ = ["Answer", "Finding", "Listing", "Problem", "Status", "TurnedAway", "answer", "code_of", "is_shown", "iso"]


class Finding(BaseModel):
    """One finding of a decided film."""

    name: str
    probability: float = Field(ge=0, le=1, description="calibrated")
    threshold: float = Field(ge=0, le=1, description="positive at or above it")
    decision: Literal["positive", "negative"]


class Answer(BaseModel):
    """One image and, once it is decided or refused, its record."""

    model_config = ConfigDict(extra="allow")

    id: int
    state: str = Field(description="received, screening, decided, refused, delivered or quarantined")
    status: Literal["ok", "refused", "waiting", "error"] = Field(
        description="ok: decided. refused: the film cannot be judged; not a negative. waiting: ask again. "
        "error: it could not be screened, there is no result"
    )
    sop_instance: str
    received: str = Field(description="ISO 8601, UTC")
    decided: str | None = None
    reason: str | None = Field(None, description="of a refusal, from a closed list")
    detail: str = Field("", description="a refusal as a sentence")
    error: str | None = Field(None, description="why it was quarantined")
    doubt: str | None = Field(None, description="why the result is in doubt: its engine failed its next proof")
    findings: list[Finding] = Field([], description="empty unless status is ok")
    links: dict[str, str] = Field({}, description="self and, where there is one, film, heatmap, cam, sr, capture")


class Listing(BaseModel):
    """Some images, and where the next are."""

    results: list[Answer]
    next: str | None = Field(default=None, description="address of the next page")


class Problem(BaseModel):
    """Anything but an answer. Never a result."""

    error: str


class TurnedAway(BaseModel):
    """Equal refusals of one peer before anything of it was an image; no patient data."""

    first: str = Field(description="ISO 8601, UTC")
    last: str = Field(description="ISO 8601, UTC")
    number: int = Field(description="how many from first to last")
    calling_ae: str = Field(description="as the peer called itself; empty where it did not")
    address: str
    answer: str = Field(description="what the peer got: C-STORE 0xA700, rejected, aborted, HTTP 413, ...")
    reason: str


class Status(BaseModel):
    """How the node is."""

    version: str
    ready: bool
    problems: list[str]
    images: dict[str, int] = Field(description="number by state")
    waiting_s: float | None = Field(description="age of the oldest image that waits for screening")
    outstanding: int = Field(description="results not yet delivered")
    quarantined_bytes: int = Field(description="room that quarantined images take; kept until a person decides")
    doubtful: int = Field(description="results in doubt: their engine failed its next proof")
    turned_away_hour: int = Field(description="refused at the door in the last hour, to ten minutes")
    turned_away: list[TurnedAway] = Field(description="the newest that were refused at the door")
    free_bytes: int = Field(description="of the spool's disk")
    engine: str
    precision: str
    model: str
    bundle: str
    proved: str | None = Field(description="when the golden set was last reproduced")
    temperature_c: float | None
    clock_synchronised: bool | None = Field(description="null: the system does not tell")


def answer(image: "Image", result: "Result | None") -> Answer:
    """The answer for an image: a record only where there is a result, an error only where it was quarantined."""
    state = image.state.value
    base: dict[str, Any] = {
        "id": image.id,
        "state": state,
        "sop_instance": image.sop_instance,
        "received": iso(image.received),
        "copy": image.copy,
    }
    links = {"self": f"/v1/results/{image.id}"}
    if result is None or is_shown(result):
        links["film"] = f"{links['self']}/film.png"
    if state == "quarantined":
        return Answer(**base, status="error", error=image.error or "it could not be screened", links=links)
    if result is None:
        return Answer(**base, status="waiting", links=links)
    if image.study_instance:  # without a study there is no place for a DICOM result
        links |= {kind: f"{links['self']}/{kind}.dcm" for kind in ("sr", "capture")}
    if result.status == "ok" and "map" in result.record:  # a listing has no maps, but whether there is one
        links |= {"heatmap": f"{links['self']}/heatmap.png", "cam": f"{links['self']}/cam.npy"}
    told = {"decided": iso(result.decided), "doubt": result.doubt or None}
    return Answer(**{**result.record, **base, **told, "links": links})


def is_shown(result: "Result") -> bool:
    """Whether the film can be drawn: what the reader refused cannot; what only the network refused can."""
    return result.status == "ok" or result.record.get("reason") == RefusalReason.NOT_FRONTAL_CHEST.value


def code_of(found: Answer) -> int:
    """200 decided or refused, 202 waiting, 500 quarantined: a fault is never a result."""
    return {"waiting": 202, "error": 500}.get(found.status, 200)


def iso(when: float) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(when, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
