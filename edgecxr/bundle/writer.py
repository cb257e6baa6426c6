"""Writing a bundle: whole or not at all, and never one that would not open again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from pydantic import ValidationError

from edgecxr.bundle import archive, arrays
from edgecxr.bundle.golden import Golden
from edgecxr.bundle.manifest import MODELS, Manifest, describe, schema_of
from edgecxr.bundle.reader import Bundle
from edgecxr.durable import write_atomically
from edgecxr.errors import BundleError
from edgecxr.spec import ModelSpec, Precision

if TYPE_CHECKING:
    from edgecxr.refusal import EmbeddingGate

__all__ = ["write_bundle"]


def write_bundle(
    path: str | Path,
    *,
    model: ModelSpec,
    models: Mapping[Precision, bytes],
    golden: Golden,
    gates: Mapping[Precision, "EmbeddingGate"],
    evaluation: Mapping[str, Any],
    card: str,
    provenance: Mapping[str, Any],
    tolerance: float,
) -> Path:
    """Write a bundle whole or not at all; the same content gives the same bytes. Raises BundleError.

    `tolerance` is the largest difference of a calibrated probability that an engine may show on the golden set.
    """
    members = {MODELS[precision]: models[precision] for precision in MODELS if precision in models}
    members["golden.npz"] = golden.to_bytes()
    members["gates.npz"] = arrays.dump(_gate_arrays(gates))
    members["evaluation.json"] = _json(evaluation, "evaluation")
    members["card.md"] = card.encode()
    try:
        manifest = Manifest(
            schema_version=schema_of(model),
            model=model,
            chain=model.preprocess.digest,
            members={name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
            provenance=dict(provenance),
            tolerance=tolerance,
        )
    except ValidationError as error:
        raise BundleError(f"{path}: {describe(error)}") from error
    data = archive.pack({"manifest.json": _json(manifest.model_dump(mode="json"), "manifest"), **members})
    if len(data) > archive.LIMIT_BYTES:
        raise BundleError(f"{path}: {len(data)} bytes is more than the {archive.LIMIT_BYTES} that a bundle may have")
    Bundle(archive.unpack(data, str(path)), str(path)).verify()
    write_atomically(Path(path), data)
    return Path(path)


def _gate_arrays(gates: Mapping[Precision, "EmbeddingGate"]) -> dict[str, NDArray[Any]]:
    return {f"{name}.{key}": values for name, gate in gates.items() for key, values in gate.to_arrays().items()}


def _json(value: Mapping[str, Any], what: str) -> bytes:
    try:
        return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"{what} cannot be written as JSON: {error}") from error
