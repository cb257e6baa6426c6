"""Probes and metrics: for those who run the node."""

import time

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from edgecxr import __version__
from edgecxr.runtimes.node.door import HOUR_S
from edgecxr.runtimes.node.web.answers import Status, TurnedAway, iso
from edgecxr.runtimes.node.web.view import Node, NodeView

__all__ = ["router", "status_of"]

NEWEST = 50  # rows of what was turned away
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
router = APIRouter()


@router.get("/v1/status", summary="How the node is")
def status(node: Node) -> Status:
    """Queue, disk, engine, model, last proof, temperature and problems."""
    return status_of(node)


@router.get("/healthz", response_class=PlainTextResponse, summary="The process answers")
def healthz() -> str:
    """Always 200: nothing but that the server lives."""
    return "ok\n"


@router.get("/readyz", summary="Images are taken and screened")
def readyz(node: Node) -> Response:
    """200, or 503 with what stands in the way."""
    ready, problems = node.ready()
    return JSONResponse({"ready": ready, "problems": problems}, 200 if ready else 503)


@router.get("/metrics", response_class=PlainTextResponse, summary="Prometheus metrics")
def metrics(node: Node) -> Response:
    """Text format 0.0.4; no patient data."""
    return Response(node.metrics(), media_type=PROMETHEUS)


def status_of(node: NodeView) -> Status:
    """The node's state now."""
    health, (ready, obstacles) = node.health(), node.ready()
    spool = node.spool
    return Status(
        version=__version__,
        ready=ready,
        problems=list(dict.fromkeys([*obstacles, *health.problems])),
        images={state.value: count for state, count in spool.counts().items()},
        waiting_s=spool.waiting_s(),
        outstanding=spool.outstanding(),
        quarantined_bytes=spool.quarantined()[1],
        doubtful=spool.doubts.count(),
        turned_away_hour=spool.door.count(time.time() - HOUR_S),
        turned_away=[
            TurnedAway(**{**vars(one), "first": iso(one.first), "last": iso(one.last)})
            for one in spool.door.newest(NEWEST)
        ],
        free_bytes=spool.free_bytes(),
        engine=health.engine,
        precision=health.precision,
        model=health.model,
        bundle=health.bundle,
        proved=None if health.proved is None else iso(health.proved),
        temperature_c=health.temperature_c,
        clock_synchronised=health.clock_synchronised,
    )
