"""The pages: worklist, one result, health, login. Rendered here, live where the browser runs scripts."""

import asyncio
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, BackgroundTasks, HTTPException, Query, Request
from fastapi import Path as PathParameter
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from edgecxr import __version__
from edgecxr.errors import SpoolError
from edgecxr.runtimes.node.results.record import most_urgent
from edgecxr.runtimes.node.spool import Image, Result
from edgecxr.runtimes.node.web import worklist
from edgecxr.runtimes.node.web.access import Access, client_address
from edgecxr.runtimes.node.web.answers import is_shown
from edgecxr.runtimes.node.web.api import find_image
from edgecxr.runtimes.node.web.operation import status_of
from edgecxr.runtimes.node.web.stream import events
from edgecxr.runtimes.node.web.view import Node, NodeView, result_of
from edgecxr.runtimes.node.web.worklist import Query as ListQuery

__all__ = ["message", "router"]

FORM_LIMIT = 4096  # bytes of a login form
FORM_S = 15.0  # for all of it to come
TITLES = {401: "A password is needed", 403: "Not allowed", 404: "Not here", 405: "Not possible"}
router = APIRouter(include_in_schema=False)
ImageId = Annotated[int, PathParameter(ge=1, lt=1 << 63)]


@router.get("/")
def worklist_page(request: Request, node: Node) -> Response:
    """The newest or most urgent images."""
    return _page("worklist.html", request, **_listed(request, node))


@router.get("/rows")
def rows(request: Request, node: Node) -> Response:
    """The part of the worklist that changes."""
    return _page("_live.html", request, **_listed(request, node))


@router.get("/health")
def health_page(request: Request, node: Node) -> Response:
    """Queue, disk, engine, model, last proof, temperature and problems."""
    return _page("health.html", request, status=status_of(node), now=time.time())


@router.get("/events")
async def stream(request: Request) -> Response:
    """Server-sent events: something has changed."""
    return StreamingResponse(
        events(request.app.state.changes), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


@router.get("/results/{image}")
def result_page(
    request: Request, node: Node, after: BackgroundTasks, image: ImageId, finding: Annotated[str, Query()] = ""
) -> Response:
    """One image with its film, heatmap, scores and history."""
    found = find_image(node, image)
    result = result_of(node, found)
    if result is not None:
        after.add_task(node.spool.fetched, [image])
    content = _told(node, found, result)
    names = [bar.name for bar in content["line"].bars]
    worst = most_urgent(result.record) if result is not None else None
    shown = finding if finding in names else "" if worst is None else worst["name"]
    return _page("result.html", request, **content, shown=shown, status=status_of(node))


@router.post("/results/{image}/retry")
def retry(node: Node, image: ImageId) -> Response:
    """Screen a quarantined or refused image again."""
    find_image(node, image)
    try:
        node.spool.retry(image)
    except SpoolError as error:
        raise HTTPException(409, str(error)) from error
    return RedirectResponse(f"/results/{image}", 303)


@router.get("/login")
def login_page(request: Request, next: str = "/") -> Response:
    """The form."""
    return _page("login.html", request, next=_local(next), problem="")


@router.post("/login")
async def login(request: Request) -> Response:
    """Check the password; open a session and go where the browser wanted to go."""
    try:
        body = await asyncio.wait_for(_form(request), FORM_S)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"the form did not come within {FORM_S:g} s; send it again") from None
    form = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    access: Access = request.app.state.access
    waiting = access.check(form.get("password", ""), client_address(request.scope))
    target = _local(form.get("next", "/"))
    if waiting is None:
        response: Response = RedirectResponse(target, 303)
        access.open_session(response)
        return response
    told = f"Too many wrong passwords: wait {int(waiting) + 1} s." if waiting else "That is not the password."
    return await run_in_threadpool(_page, "login.html", request, 429 if waiting else 401, next=target, problem=told)


async def _form(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_LIMIT:
            raise HTTPException(413, f"the form has more than {FORM_LIMIT} bytes; a password is shorter")
    return body


@router.post("/logout")
def logout(request: Request) -> Response:
    """Close the session of this browser."""
    response = RedirectResponse("/login", 303)
    request.app.state.access.close_session(request.headers, response)
    return response


def message(request: Request, status: int, detail: str) -> Response:
    """A page that says what is wrong."""
    return _page("message.html", request, status, title=TITLES.get(status, "Something is wrong"), detail=detail)


def _listed(request: Request, node: NodeView) -> dict[str, Any]:
    query = ListQuery.of(request.query_params)
    found, more = query.rows(node.spool)
    return {
        "query": query,
        "lines": worklist.lines(found),
        "following": query.address(before=found[-1][0].id) if more else None,
        "status": status_of(node),
        "findings": worklist.findings(node.spool),
        "delivers": bool(node.config.destinations),
        "stages": tuple(worklist.STAGES),
        "periods": {"day": "last 24 hours", "week": "last 7 days"},
    }


def _told(node: NodeView, image: Image, result: Result | None) -> dict[str, Any]:
    record = {} if result is None else result.record
    return {
        "line": worklist.line(image, result),
        "image": image,
        "result": result,
        "record": record,
        "delivers": bool(node.config.destinations),
        "deliveries": node.spool.deliveries(image.id),
        "mapped": result is not None and result.cam is not None,
        "drawn": result is None or is_shown(result),
        "notes": [worklist.plain(str(note)) for note in record.get("notes", ())],
    }


def _local(address: str) -> str:
    """The address if it leads to a page of ours, else the first page."""
    good = address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable() and "\\" not in address
    return address if good else "/"


def _page(template: str, request: Request, status_code: int = 200, **content: Any) -> Response:
    access: Access = request.app.state.access
    node: NodeView = request.app.state.node
    html = ENVIRONMENT.get_template(template).render(
        **content,
        zone=_zone(node.config.results.timezone),
        version=__version__,
        logout=access.password is not None and template != "login.html",
    )
    return HTMLResponse(html, status_code)


def _zone(offset: str | None) -> timezone | None:
    """Of `results.timezone`, as +0545; None is the machine's own."""
    if offset is None:
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return timezone(timedelta(minutes=-minutes if offset.startswith("-") else minutes))


@pass_context
def _clock(context: Context, when: float | str) -> str:
    """Time of day in the node's zone, with the date where that is not today."""
    moment = _parsed(when).astimezone(context["zone"])
    today = moment.date() == datetime.now(context["zone"]).date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


@pass_context
def _moment(context: Context, when: float) -> str:
    """Date and time in the node's zone with its offset: what a printed sheet needs."""
    return _parsed(when).astimezone(context["zone"]).strftime("%Y-%m-%d %H:%M:%S %z")


def _parsed(when: float | str) -> datetime:
    if isinstance(when, str):
        return datetime.fromisoformat(when.replace("Z", "+00:00"))
    return datetime.fromtimestamp(when, timezone.utc)


def _amount(count: float) -> str:
    """Bytes as people read them."""
    if count < 1e6:
        return f"{count / 1e3:.1f} kB" if count < 1e4 else f"{count / 1e3:.0f} kB"
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _span(seconds: float) -> str:
    """A duration in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _date(text: str) -> str:
    """A DA value (PS3.5 6.2) as ISO 8601; anything else as it is."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdecimal() else worklist.plain(text)


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {
    "clock": _clock,
    "moment": _moment,
    "amount": _amount,
    "span": _span,
    "date": _date,
    "plain": worklist.plain,
}
