"""Images of a node as text for a terminal: a table of many, everything about one."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecxr.runtimes.node.door import TurnedAway
    from edgecxr.runtimes.node.images import Image, Result

__all__ = ["details", "refusals_table", "table"]

HEADER = ("IMAGE", "STATE", "AGE", "PATIENT ID", "NAME OR FILE", "RESULT")
REFUSALS_HEADER = ("LAST", "TIMES", "CALLING AE", "ADDRESS", "ANSWER", "REASON")
LACKING = "-"
MOMENTS = ("received", "decided")  # Unix seconds
BULKY = ("map",)  # how the heatmap is to be read: for programs


def table(rows: Sequence[tuple["Image", "Result | None"]]) -> Iterator[str]:
    """A header and a line for each row, in columns; nothing where there is no row."""
    yield from _columns([HEADER, *(_cells(image, result) for image, result in rows)] if rows else [])


def refusals_table(rows: Sequence["TurnedAway"]) -> Iterator[str]:
    """What was turned away at the door, in columns; nothing where nothing was."""
    cells = [
        (
            datetime.fromtimestamp(one.last).astimezone().isoformat(timespec="seconds"),
            str(one.number),
            *(_safe(word) or LACKING for word in (one.calling_ae, one.address, one.answer, one.reason)),
        )
        for one in rows
    ]
    yield from _columns([REFUSALS_HEADER, *cells] if cells else [])


def _columns(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for each row, every cell as wide as the widest of its column."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = (word + " " * (width - cell_len(word)) for word, width in zip(line, widths, strict=True))
        yield "  ".join(padded).rstrip()


def details(value: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """A line for each value that there is; what has parts is indented below its name."""
    indent = "  " * depth
    for key, item in value.items():
        if item in (None, "", [], {}, ()) or (depth and key in BULKY):
            continue
        if isinstance(item, Mapping):
            yield f"{indent}{_safe(key)}:"
            yield from details(item, depth + 1)
        elif isinstance(item, list | tuple) and isinstance(item[0], Mapping):
            yield f"{indent}{_safe(key)}:"
            yield from (f"{indent}  {_safe(_inline(part))}" for part in item)
        else:
            yield f"{indent}{_safe(key)}: {_safe(_scalar(key, item))}"


def _inline(part: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_scalar(key, item)}" for key, item in part.items() if item not in (None, "", []))


def _scalar(key: str, item: Any) -> str:
    if key in MOMENTS and isinstance(item, int | float):
        return datetime.fromtimestamp(item).astimezone().isoformat(timespec="seconds")
    if isinstance(item, list | tuple):
        return ", ".join(map(str, item))
    return f"{item:.4g}" if isinstance(item, float) else str(item)


def _cells(image: "Image", result: "Result | None") -> tuple[str, ...]:
    """The words of a row; what is not known yet is a dash, so that each stays in its column."""
    name = image.patient_name or (image.peer if image.source == "folder" else "")
    told = (
        str(image.id),
        image.state.value,
        _age(time.time() - image.received),
        image.patient_id,
        name,
        _outcome(image, result),
    )
    return tuple(_safe(word) or LACKING for word in told)


def _outcome(image: "Image", result: "Result | None") -> str:
    if image.state.value == "quarantined":
        return f"NO RESULT: {image.error}"
    if result is not None:
        told = _decision(result.record) if result.status == "ok" else _refusal(result.record)
        return f"IN DOUBT: {told}" if result.doubt else told
    return f"tried before: {image.error}" if image.error else ""


def _decision(record: Mapping[str, Any]) -> str:
    positive = [finding["name"] for finding in record["findings"] if finding["decision"] == "positive"]
    negative = [finding["name"] for finding in record["findings"] if finding["decision"] == "negative"]
    return ", ".join([f"{name} POSITIVE" for name in positive] + [f"{name} negative" for name in negative])


def _refusal(record: Mapping[str, Any]) -> str:
    return f"REFUSED, not screened: {record.get('detail') or record.get('reason')}"


def _safe(text: str) -> str:
    """Without control characters: a patient's name must not command the terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _age(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h`` or ``8 d``."""
    for limit, divisor, form in ((120, 1, "{:.0f} s"), (7200, 60, "{:.0f} min"), (172_800, 3600, "{:.1f} h")):
        if seconds < limit:
            return form.format(max(0.0, seconds) / divisor)
    return f"{seconds / 86_400:.0f} d"
