"""Who made a bundle: Ed25519 signatures over its manifest, which holds the SHA-256 of every other member.

The member ``signature`` is JSON: ``{"version": 1, "signatures": [{"algorithm", "key", "value"}]}``. `key` is the
SHA-256 of the raw public key (32 bytes), `value` the signature in base64. It is not in the manifest, so adding one
changes no digest that thresholds and results refer to.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, files
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError

from edgecxr.bundle import archive
from edgecxr.bundle.manifest import Sha256, describe
from edgecxr.bundle.reader import Bundle
from edgecxr.durable import write_atomically
from edgecxr.errors import BundleError
from edgecxr.spec import Strict

if TYPE_CHECKING:
    from edgecxr.bundle.keys import PrivateKey, PublicKey

__all__ = ["SignedBy", "check", "is_shipped", "sign", "signers"]

PREFIX = b"edgecxr bundle manifest, version 1\x00"  # so that no signature of anything else can pass for one of these
MEMBER = "signature"
LIMIT_BYTES = 64 * 1024
ED25519 = "ed25519"


class SignedBy(NamedTuple):
    """Whose signature was checked: the trusted key's file name without its ending, and the key's id (64 hex)."""

    name: str
    key_id: str


class _Signature(Strict):
    algorithm: Annotated[str, Field(min_length=1, max_length=32)]  # others than Ed25519 are passed over
    key: Sha256
    value: Annotated[str, Field(max_length=16384, pattern="^[A-Za-z0-9+/]*={0,2}$")]


class _Signatures(Strict):
    version: Literal[1] = 1
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=16)]


def check(
    bundle: Bundle | str | Path, trusted: Sequence[str | Path], allow_unsigned: bool = False, *, shipped: bool = True
) -> SignedBy | None:
    """Whose trusted signature the bundle bears; None where it needs none.

    A bundle without a trusted signature is taken when `allow_unsigned`, or (`shipped`) when it is the one that came
    with the package: who runs the package's code trusts it. A wrong signature of a trusted key is refused always.

    Raises BundleError, one sentence; EngineError where `cryptography` is not installed and a key must be read.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    signatures = _read(opened)
    keys = _trusted(trusted)
    found = [_checked(opened, signature, keys) for signature in signatures]
    signed = next((by for by in found if by is not None), None)
    if signed is None and not allow_unsigned and not (shipped and is_shipped(opened)):
        raise BundleError(_unsigned(opened, signatures, len(keys)))
    return signed


def signers(bundle: Bundle) -> tuple[str, ...]:
    """The key ids that the bundle names; nothing is checked. Raises BundleError where the member cannot be read."""
    return tuple(signature.key for signature in _read(bundle))


def sign(path: str | Path, key: "PrivateKey") -> str:
    """Add this key's signature to the file (or replace it), whole or not at all. Gives the bundle's digest.

    Raises BundleError where the file is no whole bundle or cannot be written.
    """
    target = Path(realpath(path))  # Path.resolve() fails on a link that leads to itself
    members = archive.unpack(archive.read_bytes(target), str(path))
    bundle = Bundle(members, str(path))
    bundle.verify()
    value = base64.b64encode(key.sign(PREFIX + bundle.manifest_bytes)).decode()
    others = (signature for signature in _read(bundle) if signature.key != key.key_id)
    members[MEMBER] = _dump((*others, _Signature(algorithm=ED25519, key=key.key_id, value=value)), str(path))
    data = archive.pack(members)
    if len(data) > archive.LIMIT_BYTES:
        raise BundleError(f"{path}: {len(data)} bytes when signed, more than the {archive.LIMIT_BYTES} it may have")
    try:
        write_atomically(target, data)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}; it is as it was") from error
    return bundle.digest


def is_shipped(bundle: Bundle) -> bool:
    """Whether the bundle is, member for member, the package's own, and that is as the installer recorded it.

    A wheel's record holds the SHA-256 of the file; where there is no record (a checkout), the file itself counts.
    """
    from edgecxr.bundle import default_bundle_path

    path = default_bundle_path()
    try:
        data = archive.read_bytes(path)
        own = Bundle(archive.unpack(data, str(path)), str(path))
    except BundleError:
        return False
    recorded = _recorded(path)
    found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return own.digest == bundle.digest and recorded in (None, found)


def _recorded(path: Path) -> str | None:
    try:
        installed = files("edgecxr") or []
    except PackageNotFoundError:
        return None
    for file in installed:
        if file.name == path.name and file.hash is not None and Path(str(file.locate())).resolve() == path.resolve():
            return file.hash.value if file.hash.mode == "sha256" else None
    return None


def _read(bundle: Bundle) -> tuple[_Signature, ...]:
    data = bundle.signature
    if data is None:
        return ()
    if len(data) > LIMIT_BYTES:
        raise BundleError(
            f"{bundle.source}: its signature has {len(data)} bytes, more than {LIMIT_BYTES}; "
            "take the bundle again from who signed it"
        )
    try:
        version = raw.get("version") if isinstance(raw := json.loads(data), dict) else None
        if isinstance(version, int) and version > 1:
            raise BundleError(
                f"{bundle.source}: its signature is of version {version}, this EdgeCXR reads 1; install a newer EdgeCXR"
            )
        return _Signatures.model_validate(raw | {"signatures": tuple(raw["signatures"])}).signatures
    except ValidationError as error:
        raise BundleError(f"{bundle.source}: its signature: {describe(error)}; sign it again") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleError(f"{bundle.source}: its signature is not as EdgeCXR writes it; sign it again") from error


def _dump(signatures: Iterable[_Signature], source: str) -> bytes:
    try:
        listed = _Signatures(signatures=tuple(signatures))
    except ValidationError as error:
        raise BundleError(f"{source}: {describe(error)}; take the bundle without its signatures") from error
    return json.dumps(listed.model_dump(mode="json"), indent=1, sort_keys=True).encode()


def _trusted(paths: Sequence[str | Path]) -> dict[str, tuple[str, "PublicKey"]]:
    if not paths:
        return {}
    from edgecxr.bundle.keys import read_public

    keys = [(Path(path).stem, read_public(path)) for path in paths]
    return {key.key_id: (name, key) for name, key in keys}


def _checked(bundle: Bundle, signature: _Signature, keys: dict[str, tuple[str, "PublicKey"]]) -> SignedBy | None:
    """Whose it is; None for a key that is not trusted. Raises BundleError for a trusted key's wrong signature."""
    if signature.algorithm != ED25519 or signature.key not in keys:
        return None
    name, key = keys[signature.key]
    try:
        right = key.verifies(base64.b64decode(signature.value, validate=True), PREFIX + bundle.manifest_bytes)
    except binascii.Error:
        right = False
    if not right:
        raise BundleError(
            f"{bundle.source}: the signature of {name} (key {signature.key[:12]}) does not belong to this bundle; "
            "it was altered, so it is not used: take it again from who signed it"
        )
    return SignedBy(name, signature.key)


def _unsigned(bundle: Bundle, signatures: Sequence[_Signature], trusted: int) -> str:
    known = [signature.key[:12] for signature in signatures if signature.algorithm == ED25519]
    if not signatures:
        return (
            f"{bundle.source}: is not signed; sign it (edgecxr sign), or allow unsigned bundles (allow_unsigned) "
            "where nobody else can put files"
        )
    if not known:
        kinds = ", ".join(sorted({signature.algorithm for signature in signatures}))
        return f"{bundle.source}: signed with {kinds}, which this EdgeCXR does not know; install a newer EdgeCXR"
    keys = "no key is trusted here" if not trusted else f"not one of the {trusted} trusted here"
    return (
        f"{bundle.source}: signed by key {', '.join(known)}, {keys}; if you trust its owner, "
        "get the public key from them and add it to trusted_keys"
    )
