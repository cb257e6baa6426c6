"""The node's log: one JSON object, or one line of text, per event on standard error.

No patient's name or ID is ever logged: messages speak of images by their number in the spool, and of an exception that
is not one of ours only the type and the place are told, because foreign messages quote what they could not read.
"""

import json
import logging
import sys
import traceback
import warnings
from datetime import datetime, timezone
from types import TracebackType
from typing import IO, Any, Literal

from edgecxr.errors import EdgeCxrError

__all__ = ["LEVELS", "configure"]

LEVELS = ("debug", "info", "warning", "error")
QUIET = ("pydicom", "pynetdicom", "highdicom", "dicomanonymizer")  # their records quote data sets
LOUDEST = {"uvicorn.access": logging.CRITICAL, "uvicorn": logging.WARNING, "asyncio": logging.WARNING}
STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def configure(
    level: str = "info", form: Literal["json", "text"] = "json", stream: IO[str] | None = None
) -> logging.Handler:
    """Send every record to `stream` (standard error unless given) in one form; what was configured before is undone."""
    if level not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; choose {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = False
        logging.getLogger(name).addHandler(logging.NullHandler())
    for name, most in LOUDEST.items():
        logging.getLogger(name).setLevel(most)
    for package in QUIET:
        warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")  # they quote values too
    return handler


def _content(record: logging.LogRecord) -> dict[str, Any]:
    content: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "part": record.name.rpartition(".")[2],
        "event": record.getMessage(),
    }
    content.update({key: value for key, value in vars(record).items() if key not in STANDARD})
    if record.exc_info and record.exc_info[1] is not None:
        content["error"], content["at"] = _error(*record.exc_info[1:])
    return content


def _error(error: BaseException, trace: TracebackType | None) -> tuple[str, list[str]]:
    """What it was, in words only where they are ours or the operating system's, and the places it passed."""
    ours = isinstance(error, (EdgeCxrError, OSError))
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
    return f"{type(error).__name__}: {error}" if ours else type(error).__name__, places


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_content(record), ensure_ascii=False, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        content = _content(record)
        head = " ".join(str(content.pop(key)) for key in ("time", "level", "part", "event"))
        return " ".join([head, *(f"{key}={value}" for key, value in content.items())]).replace("\n", " | ")
