"""The record of an image: what the spool keeps, the API returns and every result object is made from.

It is the object of ``edgecxr screen --jsonl`` and, beside it, what a reader needs years later, when the bundle that
decided may be gone: who decided with which rule, when, and how the map is to be read.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecxr.heatmap import evidence, relevance, upsample
from edgecxr.runtimes.screening import Screening
from edgecxr.spec import Head, ModelSpec, PreprocessSpec, class_names

__all__ = ["heatmap", "most_urgent", "to_record", "urgency"]


class Taken(Protocol):
    """What is known of an image before it is screened (a `runtimes.node.images.Image`)."""

    @property
    def id(self) -> int: ...
    @property
    def sop_class(self) -> str: ...
    @property
    def sop_instance(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def received(self) -> float: ...
    @property
    def copy(self) -> str: ...


def to_record(screening: Screening, image: Taken, spec: ModelSpec, point: str, decided: float) -> dict[str, Any]:
    """Plain JSON values: `Screening.to_json()`, with these keys beside it.

    ``image`` (the spool's number), ``sop_class``, ``sop_instance``, ``source``, ``copy``, ``received`` and ``decided``
    (Unix seconds), ``model`` {``name``, ``version``}, ``operating_point`` (`point`), ``urgency`` (see `urgency`), and
    ``map`` {``heads``, ``temperatures``, ``size``, ``aspect``}, which `heatmap` reads. ``file`` is a name without its
    folder.
    """
    record = screening.to_json()
    record |= {
        "file": Path(screening.file).name,
        "image": image.id,
        "sop_class": image.sop_class,
        "sop_instance": image.sop_instance,
        "source": image.source,
        "copy": image.copy,
        "received": image.received,
        "decided": decided,
        "model": {"name": spec.name, "version": spec.version},
        "operating_point": point,
        "map": {
            "heads": [head.model_dump(mode="json") for head in spec.heads],
            "temperatures": list(_temperatures(spec, screening.precision)),
            "size": spec.preprocess.size,
            "aspect": spec.preprocess.aspect,
        },
    }
    return record | {"urgency": urgency(record)}


def most_urgent(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The finding with the largest odds against its own threshold's; None for a refused image."""
    findings: list[dict[str, Any]] = record["findings"]
    return max(findings, key=_margin) if findings else None


def urgency(record: Mapping[str, Any]) -> float:
    """In [0, 1], for sorting: p(1-t) / (p(1-t) + t(1-p)) of the most urgent finding, whose threshold is at 0.5.

    0 for a refused image: nothing was found in it, and nothing was cleared.
    """
    finding = most_urgent(record)
    return 0.0 if finding is None else 1 / (1 + math.exp(-_margin(finding)))


def heatmap(
    record: Mapping[str, Any], cam: NDArray[np.float32], finding: Mapping[str, Any], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """(H, W) in [0, 1]: how much each pixel of a film of `shape` (H, W) speaks for `finding`, one of the record's.

    `cam` is (C, h, w) as the engine gave it. Raises EngineError when it does not fit the record's heads.
    """
    reading = record["map"]
    heads = [Head.model_validate(head) for head in reading["heads"]]
    classes = class_names(heads)
    cells = evidence(cam, heads, reading["temperatures"])[classes.index(finding["name"])]
    strength = relevance(cells, finding["threshold"])
    box = PreprocessSpec(size=reading["size"], aspect=reading["aspect"]).placement(*shape)
    return upsample(strength, box, reading["size"], shape)


def _temperatures(spec: ModelSpec, precision: str) -> tuple[float, ...]:
    return next(values for name, values in spec.temperatures.items() if name == precision)


def _margin(finding: Mapping[str, Any]) -> float:
    """Log-odds of the score above those of the threshold, within ±28."""
    return _log_odds(finding["probability"]) - _log_odds(finding["threshold"])


def _log_odds(probability: float) -> float:
    inside = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))
