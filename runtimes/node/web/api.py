"""``/v1``: post a film, read results."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import quote, urlencode

import numpy as np
from fastapi import APIRouter, BackgroundTasks, HTTPException, Query, Request
from fastapi import Path as PathParameter
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from edgecxr.errors import Refusal, SpoolError
from edgecxr.runtimes.node.results.record import heatmap as heatmap_of
from edgecxr.runtimes.node.results.record import most_urgent
from edgecxr.runtimes.node.spool import Arrival, Image, State
from edgecxr.runtimes.node.web import pictures
from edgecxr.runtimes.node.web.access import client_address
from edgecxr.runtimes.node.web.answers import Answer, Listing, Problem, answer, code_of
from edgecxr.runtimes.node.web.intake import EmptyBody, SlowBody, check_length, take
from edgecxr.runtimes.node.web.view import Node, NodeView, ObjectKind, result_of

if TYPE_CHECKING:
    from edgecxr.runtimes.node.drawing_process import Picture
    from edgecxr.runtimes.node.web.stream import Changes

__all__ = ["find_image", "router"]

PNG, NPY, DICOM = "image/png", "application/octet-stream", "application/dicom"
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
Responses = dict[int | str, dict[str, Any]]
BODY = {"requestBody": {"required": True, "content": {DICOM: {}, "image/png": {}, "image/tiff": {}, "image/jpeg": {}}}}
ANSWERS: Responses = {
    202: {"model": Answer, "description": "Durable, but not decided yet; ask at Location"},
    500: {"model": Answer, "description": "It could not be screened and is in quarantine; there is no result"},
}
REFUSALS: Responses = {
    400: {"model": Problem, "description": "No film in the body"},
    401: {"model": Problem, "description": "A password is needed"},
    408: {"model": Problem, "description": "The body stopped half-way; nothing was kept"},
    413: {"model": Problem, "description": "Larger than spool.max_object_mb; nothing was kept"},
    415: {"model": Problem, "description": "A form, where the file's own bytes are wanted"},
    507: {"model": Problem, "description": "No room; nothing was taken"},
}
ABSENT: Responses = {404: {"model": Problem, "description": "There is no such image, or it has none of these"}}
DRAWN: Responses = ABSENT | {
    500: {"model": Problem, "description": "Drawing the film crashed or stalled; twice, and it is not tried again"},
    503: {"model": Problem, "description": "Other films are being drawn; ask again after Retry-After"},
}
TURN_S = 15.0  # longest wait for a turn to draw

router = APIRouter(prefix="/v1")
ImageId = Annotated[int, PathParameter(ge=1, lt=1 << 63, description="id of the image")]


@router.post(
    "/screen", response_model=Answer, responses=ANSWERS | REFUSALS, openapi_extra=BODY, summary="Screen a film"
)
async def screen(
    request: Request,
    node: Node,
    after: BackgroundTasks,
    wait: Annotated[float | None, Query(ge=0, description="seconds; at most, and by default, http.wait_s")] = None,
    priority: Annotated[int, Query(ge=-5, le=5, description="higher first")] = 0,
) -> Response:
    """Keep the file in the body, screen it, and answer with its record.

    Sent again, the same file is not screened twice: the answer is that of the first.
    """
    promised = int(length) if (length := request.headers.get("content-length", "")).isdecimal() else None
    check_length(promised, node.config.spool.max_object_mb)
    if (kind := request.headers.get("content-type", "").partition(";")[0]) in FORMS[:1]:
        raise HTTPException(415, f"the body is {kind}; send the file's own bytes (curl --data-binary @film.dcm)")
    arrival = Arrival("", "", "", source="http", peer=client_address(request.scope), priority=priority)
    try:
        receipt = await take(node.spool, aiter_of(request), promised, arrival)
    except EmptyBody as error:
        raise HTTPException(400, str(error)) from error
    except SlowBody as error:
        raise HTTPException(408, str(error)) from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the connection was closed; nothing was kept") from error
    section = node.config.http
    longest = section.wait_s if section is not None else 0.0
    found = await _decided(node, receipt.image, request, min(longest, longest if wait is None else wait))
    if not await request.is_disconnected():
        note_fetched(node, after, [found])
    headers = {"location": found.links["self"], "x-edgecxr-copy": receipt.copy}
    return JSONResponse(found.model_dump(mode="json"), code_of(found), headers=headers)


def aiter_of(request: Request) -> Any:
    """The body, chunk by chunk, as it comes."""
    return request.stream().__aiter__()


async def _decided(node: NodeView, image: int, request: Request, wait_s: float) -> Answer:
    """The answer as soon as there is one; as it is when the time is over or the server stops."""
    changes: Changes = request.app.state.changes
    until = time.monotonic() + wait_s
    while True:
        seen = changes.count
        found = await run_in_threadpool(_answer, node, image)
        left = until - time.monotonic()
        if found.status != "waiting" or left <= 0 or changes.closed:
            return found
        await changes.wait(seen, min(left, 1.0))  # another process may have moved it: look once a second


def _answer(node: NodeView, image: int) -> Answer:
    result = node.spool.result(image)  # first: an image that was read before it may not have been decided yet
    found = node.spool.get(image)
    return answer(found, None if found.state is State.QUARANTINED else result)


@router.get("/results", summary="Find images")
def results(
    node: Node,
    after: BackgroundTasks,
    sop_instance: Annotated[str, Query(max_length=64)] = "",
    state: Annotated[list[State] | None, Query(description="may be repeated")] = None,
    finding: Annotated[str | None, Query(max_length=64, description="positive for it")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, lt=1 << 63, description="images with a smaller id")] = None,
) -> Listing:
    """Images by SOP Instance UID, or all, newest first, by state and finding."""
    if sop_instance:
        found = [image for image in node.spool.find(sop_instance) if not state or image.state in state]
        answers = [_answer(node, image.id) for image in found]
        note_fetched(node, after, answers)
        return Listing(results=answers)
    rows = node.spool.listing(states=state, finding=finding, limit=limit, before=before, order="newest")
    more: list[tuple[str, str | int]] = [("state", item.value) for item in state or ()]
    more += [("finding", finding)] if finding else []
    following = urlencode([*more, ("limit", limit), ("before", rows[-1][0].id)]) if len(rows) == limit else None
    answers = [answer(image, result) for image, result in rows]
    note_fetched(node, after, answers)
    return Listing(
        results=answers,
        next=None if following is None else f"/v1/results?{following}",
    )


@router.get("/results/{image}", response_model=Answer, responses=ANSWERS | ABSENT, summary="One image")
def one_result(node: Node, after: BackgroundTasks, image: ImageId) -> Response:
    """200 decided or refused, 202 waiting, 500 quarantined."""
    find_image(node, image)
    found = _answer(node, image)
    note_fetched(node, after, [found])
    return JSONResponse(found.model_dump(mode="json"), code_of(found))


@router.get("/results/{image}/film.png", response_class=Response, responses=DRAWN, summary="Preview of the film")
async def film(request: Request, node: Node, image: ImageId) -> Response:
    """The film as its header says it is displayed, at most 1024 pixels a side."""
    return await _in_turn(request, lambda: _film(node, image))


def _film(node: NodeView, image: int) -> Response:
    return Response(pictures.film_png(_picture(node, find_image(node, image))), media_type=PNG)


@router.get("/results/{image}/heatmap.png", response_class=Response, responses=DRAWN, summary="Origin of a score")
async def heatmap(
    request: Request,
    node: Node,
    image: ImageId,
    finding: Annotated[str | None, Query(description="the most urgent one unless given")] = None,
    film: Annotated[bool, Query(description="laid over the film; else colours with an alpha channel alone")] = False,
) -> Response:
    """The heatmap of one finding, as large as film.png."""
    return await _in_turn(request, lambda: _heatmap(node, image, finding, film))


def _heatmap(node: NodeView, image: int, finding: str | None, film: bool) -> Response:
    found = find_image(node, image)
    result = _with_map(node, found)
    entries = {entry["name"]: entry for entry in result.record["findings"]}
    entry = entries.get(finding) if finding else most_urgent(result.record)
    if entry is None:
        raise HTTPException(404, f"no finding of that name was decided on; there is {', '.join(entries)}")
    picture = _picture(node, found)
    rows, columns = picture.gray.shape
    strength = heatmap_of(result.record, result.map, entry, (rows, columns))
    return Response((pictures.blend_png if film else pictures.overlay_png)(picture, strength), media_type=PNG)


@router.get("/results/{image}/cam.npy", response_class=Response, responses=ABSENT, summary="The map as numbers")
def cam(node: Node, image: ImageId) -> Response:
    """(C, h, w) float32, NumPy format; the names of the C classes are in the header X-Classes, percent-encoded."""
    result = _with_map(node, find_image(node, image))
    classes = [name for head in result.record["map"]["heads"] for name in head["classes"]]
    headers = {"x-classes": ",".join(quote(name, safe=" ") for name in classes)}
    return Response(pictures.cam_npy(result.map), media_type=NPY, headers=headers)


@router.get("/results/{image}/{kind}.dcm", response_class=Response, responses=DRAWN, summary="The result as DICOM")
async def result_object(
    request: Request, node: Node, after: BackgroundTasks, image: ImageId, kind: ObjectKind
) -> Response:
    """`sr`: Structured Report; `capture`: Secondary Capture with the heatmap. 409 where none can be made."""
    if kind == "capture":
        answer = await _in_turn(request, lambda: _object(node, image, kind))
    else:
        answer = await run_in_threadpool(_object, node, image, kind)
    after.add_task(node.spool.fetched, [image])
    return answer


def _object(node: NodeView, image: int, kind: ObjectKind) -> Response:
    if result_of(node, find_image(node, image)) is None:
        raise HTTPException(404, "the image has no result: it waits, or could not be screened")
    name = f'attachment; filename="edgecxr-{image}-{kind}.dcm"'
    return Response(node.result_object(kind, image), media_type=DICOM, headers={"content-disposition": name})


def note_fetched(node: NodeView, after: BackgroundTasks, found: Sequence[Answer]) -> None:
    """Let the spool know, once they have been sent, whose results somebody has; see `Spool.expire`."""
    if decided := [one.id for one in found if one.status in ("ok", "refused")]:
        after.add_task(node.spool.fetched, decided)


def find_image(node: NodeView, image: int) -> Image:
    """The image. Raises HTTPException 404."""
    try:
        return node.spool.get(image)
    except (KeyError, SpoolError) as error:
        raise HTTPException(404, f"there is no image {image}; it was never here, or is no longer kept") from error


class Mapped(NamedTuple):
    """A result that has a map (C, h, w)."""

    record: dict[str, Any]
    map: NDArray[np.float32]


def _with_map(node: NodeView, image: Image) -> Mapped:
    result = result_of(node, image)
    if result is None or result.cam is None:
        raise HTTPException(404, "the image has no heatmap: it waits, was refused, or could not be screened")
    return Mapped(result.record, result.cam)


async def _in_turn(request: Request, draw: Callable[[], Response]) -> Response:
    """What `draw` gives, in one of few threads: whoever waits for a film that stalls holds no other request up."""
    turn: asyncio.Semaphore = request.app.state.drawing
    try:
        await asyncio.wait_for(turn.acquire(), TURN_S)
    except asyncio.TimeoutError:
        told = f"other films have been drawn for {TURN_S:g} s; ask again"
        raise HTTPException(503, told, headers={"retry-after": f"{TURN_S:.0f}"}) from None
    try:
        return await run_in_threadpool(draw)
    finally:
        turn.release()


def _picture(node: NodeView, image: Image) -> "Picture":
    try:
        return node.picture(image)
    except Refusal as error:
        raise HTTPException(404, f"the film cannot be shown: {error}") from error
    except OSError as error:
        raise HTTPException(404, "the film is no longer kept") from error
