"""Reading a bundle: nothing is used before every digest matches."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecxr.bundle import archive, arrays
from edgecxr.bundle.golden import Golden
from edgecxr.bundle.manifest import MODELS, parse, refuse_newer
from edgecxr.errors import BundleError, StatisticsError
from edgecxr.spec import ModelSpec, Precision

if TYPE_CHECKING:
    from edgecxr.refusal import EmbeddingGate

__all__ = ["Bundle"]


class Bundle:
    """A verified bundle, held in memory. Make one with `open`."""

    def __init__(self, members: Mapping[str, bytes], source: str) -> None:
        """Check every digest; `members` holds name -> content. Raises BundleError, one sentence."""
        if "manifest.json" not in members:
            raise BundleError(f"{source}: has no manifest.json, so it is not a bundle")
        self.source = source
        self.digest = hashlib.sha256(members["manifest.json"]).hexdigest()
        self.manifest = parse(members["manifest.json"], source)
        self._members = dict(members)
        self._verify()

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Read the file once (64 MB at most) and verify every digest. Raises BundleError."""
        data, source = archive.read_bytes(Path(path)), str(path)
        try:
            return cls(archive.unpack(data, source), source)
        except BundleError:
            if (manifest := archive.loose_member(data, "manifest.json")) is not None:
                refuse_newer(manifest, source)  # of a schema to come, whose container may be another, too
            raise

    def _verify(self) -> None:
        promised, present = self.manifest.members, self._members.keys() - {"manifest.json", "signature"}
        for name in sorted(present - promised.keys()):
            raise BundleError(
                f"{self.source}: member {name!r} is not in the manifest; it was altered, so it is not used"
            )
        for name, digest in promised.items():
            if name not in present:
                raise BundleError(f"{self.source}: member {name!r} is missing; copy the file again")
            got = hashlib.sha256(self._members[name]).hexdigest()
            if got != digest:
                raise BundleError(
                    f"{self.source}: member {name!r} has digest {got[:12]}, the manifest says {digest[:12]}; "
                    "it was damaged or altered, so it is not used"
                )

    @property
    def manifest_bytes(self) -> bytes:
        """`manifest.json` as stored: what `digest` names and a signature covers."""
        return self._members["manifest.json"]

    @property
    def signature(self) -> bytes | None:
        """The member `signature` as stored, None where there is none; `edgecxr.bundle.signature` checks it."""
        return self._members.get("signature")

    @property
    def spec(self) -> ModelSpec:
        """What the model is."""
        return self.manifest.model

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that are packed, the most exact first."""
        return self.manifest.precisions

    def model(self, precision: Precision) -> bytes:
        """The ONNX file of one precision. Raises BundleError when it is not packed."""
        if precision not in self.precisions:
            raise BundleError(f"{self.source}: {precision} is not packed; choose {' or '.join(self.precisions)}")
        return self._members[MODELS[precision]]

    def golden(self) -> Golden:
        """The golden set, checked against the spec."""
        golden = Golden.from_bytes(self._members["golden.npz"])
        golden.check(self.spec, self.precisions)
        return golden

    def gate(self, precision: Precision) -> "EmbeddingGate":
        """The gate that refuses what is not a frontal chest film, fitted to this precision's embeddings."""
        from edgecxr.refusal import EmbeddingGate  # SciPy is loaded when a gate is asked for, not before

        stored = arrays.load(self._members["gates.npz"], "gates.npz")
        prefix = f"{precision}."
        chosen = {name.removeprefix(prefix): values for name, values in stored.items() if name.startswith(prefix)}
        if not chosen:
            raise BundleError(f"{self.source}: gates.npz has no gate for {precision}; build the bundle again")
        try:
            return EmbeddingGate.from_arrays(chosen)
        except StatisticsError as error:
            raise BundleError(f"{self.source}: gate of {precision}: {error}; build the bundle again") from error

    def evaluation(self) -> dict[str, Any]:
        """Every metric that was measured when the bundle was built, with its interval."""
        try:
            evaluation = json.loads(self._members["evaluation.json"])
        except (ValueError, RecursionError) as error:
            raise BundleError(
                f"{self.source}: evaluation.json is not JSON ({error}); build the bundle again"
            ) from error
        if not isinstance(evaluation, dict):
            raise BundleError(f"{self.source}: evaluation.json holds a {type(evaluation).__name__}, wanted an object")
        for name in ("models", "gate", "agreement", "precisions"):
            rows = evaluation.get(name, [])
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise BundleError(
                    f"{self.source}: evaluation.json: {name!r} is no list of objects; build the bundle again"
                )
        return evaluation

    def card(self) -> str:
        """The model card, Markdown."""
        try:
            return self._members["card.md"].decode()
        except UnicodeDecodeError as error:
            raise BundleError(f"{self.source}: card.md is not UTF-8 ({error}); build the bundle again") from error

    def verify(self) -> None:
        """Read every member for its meaning too: golden set, gates, evaluation and card. Raises BundleError."""
        self.golden()
        for precision in self.precisions:
            self.gate(precision)
        self.evaluation()
        self.card()
