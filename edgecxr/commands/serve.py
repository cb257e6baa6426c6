"""``edgecxr serve``: the node, until it is told to stop."""

import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgecxr.commands.choices import misuse
from edgecxr.commands.terminal import ExitCode, require_node

if TYPE_CHECKING:
    from edgecxr.runtimes.node.node import Node

__all__ = ["serve"]

logger = logging.getLogger(__name__)
WATCH_S = 1.0


def serve(
    config: Annotated[Path, typer.Option("--config", help="The node's configuration (YAML).", show_default=False)],
    check: Annotated[bool, typer.Option("--check", help="Say what is right and wrong; do not serve.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Log lines for people instead of JSON.")] = False,
    level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    grace_s: Annotated[float, typer.Option(min=0, help="How long work in hand may take to finish at the end.")] = 30.0,
) -> None:
    """Receive films (DICOM, watched folders, HTTP), screen them, deliver the results, until SIGTERM or Ctrl-C.

    What is in hand is finished then; a second Ctrl-C ends at once. Nothing that was acknowledged is lost either way.
    With `--check`: ends with 2 when the configuration is wrong, with 3 when the machine cannot.

    Example: `edgecxr serve --config node.yaml`
    """
    require_node("pynetdicom", "fastapi", "uvicorn", "prometheus_client", "highdicom")
    from edgecxr.runtimes.node import logs
    from edgecxr.runtimes.node.config import load_config

    if level not in logs.LEVELS:
        misuse(f"unknown --level {level!r}; choose {', '.join(logs.LEVELS)}")
    settings = load_config(config)
    if check:
        from edgecxr.commands.preflight import preflight

        raise typer.Exit(preflight(settings))
    form: Literal["json", "text"] = "text" if text else "json"
    logs.configure(level, form)
    settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    from edgecxr.runtimes.node.node import Node

    stop = _stop_on_signals()
    node = Node(settings)
    node.start()
    try:
        print(_addresses(node), flush=True)
        _watch(node, stop)
    finally:
        node.stop(grace_s)
    logger.info("stopped")


def _stop_on_signals() -> threading.Event:
    """Set by SIGTERM or SIGINT; a second SIGINT ends the process on the spot, as a power cut would."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            os._exit(ExitCode.INTERRUPTED)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop


def _watch(node: "Node", stop: threading.Event) -> None:
    """Log when the node becomes ready or stops being so, until told to stop."""
    told: tuple[bool, list[str]] | None = None
    while not stop.wait(WATCH_S if told and told[0] else 0.1):
        now = node.ready()
        if now != told:
            if now[0]:
                logger.info("ready")
            else:
                logger.warning("not ready", extra={"problems": now[1]})
            told = now


def _addresses(node: "Node") -> str:
    """One line: where it listens."""
    config, places = node.config, []
    if node.receiver is not None and config.dicom is not None:
        secured = " with TLS" if config.dicom.tls else ""
        places.append(f"DICOM {config.dicom.ae} at {config.dicom.host} port {node.receiver.port}{secured}")
    if node.web is not None and config.http is not None:
        scheme = "https" if config.http.tls else "http"
        where = config.http.socket or f"{scheme}://{config.http.host}:{node.web.port}"
        places.append(f"page and API at {where}")
    places += [f"folder {section.folder}" for section in config.watch]
    return f"edgecxr serves: {', '.join(places) or 'nothing'}. Research use only."
