"""The application: API, pages and their guard around one node."""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from edgecxr import __version__
from edgecxr.errors import DrawingError, ObjectTooLarge, ResultError, SpoolFull
from edgecxr.runtimes.node.config import HttpSection
from edgecxr.runtimes.node.storage import NO_ROOM, TOO_LARGE
from edgecxr.runtimes.node.web.access import Access, Guard, client_address
from edgecxr.runtimes.node.web.api import router as api
from edgecxr.runtimes.node.web.operation import router as operation
from edgecxr.runtimes.node.web.pages import message
from edgecxr.runtimes.node.web.pages import router as pages
from edgecxr.runtimes.node.web.server import WebServer
from edgecxr.runtimes.node.web.stream import Changes
from edgecxr.runtimes.node.web.view import HealthView, NodeView, ObjectKind

__all__ = ["HealthView", "NodeView", "ObjectKind", "WebServer", "create_app"]

DESCRIPTION = """
Chest radiographs in, decisions out. **Research use only: a decision is a score on a threshold, not a diagnosis.**

`POST /v1/screen` takes the bytes of one DICOM, PNG, TIFF or JPEG file as its body. The image is durable before it is
screened: once an id was given, it survives a power cut. A film that cannot be judged is answered with 200 and `status`
"refused"; a refusal is not a negative. An error (`{"error": …}`, 4xx and 5xx) is never a result.

Where a password is configured: `Authorization: Bearer PASSWORD`, or Basic with any user name.
"""
DRAWING = 2  # threads that draw, or wait for a drawing; the others have nothing to do with it
STATUS = {SpoolFull: 507, ObjectTooLarge: 413, ResultError: 409, DrawingError: 500}
# films, in the words that DICOM peers get
TURNED_AWAY: dict[type[Exception], str] = {SpoolFull: NO_ROOM, ObjectTooLarge: TOO_LARGE}


def create_app(node: NodeView) -> FastAPI:
    """The application of one node; `WebServer` serves it."""
    app = FastAPI(
        title="EdgeCXR node",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        license_info={"name": "Apache-2.0"},
    )
    section = node.config.http or HttpSection()
    app.state.node = node
    app.state.drawing = asyncio.Semaphore(DRAWING)
    app.state.changes = Changes(node.spool)
    app.state.access = Access(section)
    app.include_router(api)
    app.include_router(operation)
    app.include_router(pages)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app.add_middleware(Guard, access=app.state.access)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misused)
    for kind in STATUS:
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(Exception, _fault)
    return app


def _refused(request: Request, error: Exception) -> Response:
    """An error page for a browser, a sentence for a program."""
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
    headers = getattr(error, "headers", None)
    if _wants_page(request):
        return message(request, status, detail)
    return JSONResponse({"error": detail}, status, headers=headers)


def _wants_page(request: Request) -> bool:
    return not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", "")


def _misused(request: Request, error: Exception) -> Response:
    problems: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    told = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in problems)
    if _wants_page(request):
        return message(request, 400, f"the address has a mistake: {told}")
    return JSONResponse({"error": told}, 400)


def _known(request: Request, error: Exception) -> Response:
    status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    if request.url.path == "/v1/screen" and type(error) in TURNED_AWAY:
        node: NodeView = request.app.state.node
        node.spool.door.note("", client_address(request.scope), f"HTTP {status}", TURNED_AWAY[type(error)])
    return JSONResponse({"error": str(error)}, status)


def _fault(request: Request, error: Exception) -> Response:
    """What nobody foresaw: logged with its stack trace by the server, and told without details."""
    told = f"internal error ({type(error).__name__}); the node's log has more"
    return message(request, 500, told) if _wants_page(request) else JSONResponse({"error": told}, 500)
