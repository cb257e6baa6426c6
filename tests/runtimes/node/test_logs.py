"""The log: one object or line per event, and nothing that foreign messages quote."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from edgecxr.errors import EngineError
from edgecxr.runtimes.node import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    with warnings.catch_warnings():
        yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(level)


def test_json(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    logging.getLogger("edgecxr.runtimes.node.worker").info("screened", extra={"image": 7, "status": "ok"})
    logging.getLogger("edgecxr").debug("not shown")
    content = json.loads(stream.getvalue())
    assert content.pop("time").endswith("+00:00")
    assert content == {"level": "info", "part": "worker", "event": "screened", "image": 7, "status": "ok"}


def test_text_is_one_line(stream: io.StringIO) -> None:
    logs.configure("info", "text", stream)
    logging.getLogger("edgecxr.node").error("no engine\nat all", extra={"worker": "worker-1"})
    assert stream.getvalue().count("\n") == 1
    assert "error node no engine | at all worker=worker-1" in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_foreign_error_is_told_without_its_words(stream: io.StringIO, form: str) -> None:
    logs.configure("info", form, stream)  # type: ignore[arg-type]
    try:
        raise ValueError("invalid value for PN: 'Waldvogel^Ottilie'")
    except ValueError:
        logging.getLogger("edgecxr.node").exception("a fault of ours")
    assert "ValueError" in stream.getvalue()
    assert "test_logs.py" in stream.getvalue()
    assert "Waldvogel" not in stream.getvalue()


def test_our_errors_keep_their_words(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    try:
        raise EngineError("no engine can run this bundle here")
    except EngineError:
        logging.getLogger("edgecxr.node").exception("no engine")
    assert json.loads(stream.getvalue())["error"] == "EngineError: no engine can run this bundle here"


def test_libraries_that_quote_data_sets_are_silent(stream: io.StringIO) -> None:
    logs.configure("debug", "text", stream)
    for name in ("pydicom", "pynetdicom.acse", "uvicorn.access", "highdicom"):
        logging.getLogger(name).error("Waldvogel^Ottilie")
    assert stream.getvalue() == ""


def test_an_unknown_level() -> None:
    with pytest.raises(ValueError, match="unknown log level 'loud'; choose debug, info"):
        logs.configure("loud")
