"""The manifest: what a bundle says about itself, and the digests that every other member must match."""

import json
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError

from edgecxr.errors import BundleError
from edgecxr.spec import IN_FULL, ModelSpec, Precision, Strict

__all__ = ["MODELS", "REQUIRED", "SCHEMA_VERSION", "Manifest", "describe", "parse", "schema_of"]

SCHEMA_VERSION = (
    2  # 2: the model may declare `reading`, without which its films would be read otherwise than in training
)
MODELS: dict[Precision, str] = {"fp32": "model.fp32.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
REQUIRED = ("golden.npz", "gates.npz", "evaluation.json", "card.md")
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(Strict):
    """`manifest.json` of a bundle."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = 1
    model: ModelSpec
    chain: Sha256  # digest of the preprocessing chain that the model was trained and evaluated with
    members: dict[str, Sha256]  # SHA-256 of every other member
    provenance: dict[str, JsonValue]  # recipe, data digest, commit, library versions
    tolerance: Annotated[float, Field(gt=0, le=1)]  # largest |probability| difference allowed on the golden set

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that are packed, the most exact first."""
        return tuple(precision for precision, name in MODELS.items() if name in self.members)


def schema_of(model: ModelSpec) -> int:
    """The oldest schema that can say everything about the model, so that older versions read what they can."""
    return 1 if model.reading == IN_FULL else SCHEMA_VERSION


def parse(data: bytes, source: str) -> Manifest:
    """The manifest of these bytes, consistent in itself. Raises BundleError, one sentence."""
    refuse_newer(data, source)
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(f"{source}: manifest.json: {describe(error)}; build the bundle again") from error
    _check(manifest, source)
    return manifest


def refuse_newer(data: bytes, source: str) -> None:
    """Raises BundleError for a manifest of a newer schema, and for what is no JSON at all."""
    try:
        raw: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{source}: manifest.json is not JSON ({error}); build the bundle again") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{source}: written in schema {version}, this EdgeCXR reads up to {SCHEMA_VERSION}; install a newer EdgeCXR"
        )


def describe(error: ValidationError) -> str:
    """Where the first fault is, and what it is."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'manifest'}: {first['msg']}"


def _check(manifest: Manifest, source: str) -> None:
    if manifest.chain != manifest.model.preprocess.digest:
        raise BundleError(
            f"{source}: built by another version of the preprocessing chain ({manifest.chain[:12]}, this EdgeCXR has "
            f"{manifest.model.preprocess.digest[:12]}); build the bundle again with this version"
        )
    if manifest.schema_version < schema_of(manifest.model):
        raise BundleError(
            f"{source}: manifest.json: model.reading is of schema {SCHEMA_VERSION}, the manifest says schema "
            f"{manifest.schema_version}; build the bundle again"
        )
    if not manifest.precisions:
        raise BundleError(f"{source}: holds no model; wanted at least one of {', '.join(MODELS.values())}")
    for name in REQUIRED:
        if name not in manifest.members:
            raise BundleError(f"{source}: member {name!r} is missing from the manifest; build the bundle again")
    for name in manifest.members:
        if name not in REQUIRED and name not in MODELS.values():
            raise BundleError(
                f"{source}: unknown member {name!r} in the manifest; this version does not know its meaning"
            )
    for precision in manifest.precisions:
        if precision not in manifest.model.temperatures:
            raise BundleError(f"{source}: no temperature for {precision}, which is packed; build the bundle again")
