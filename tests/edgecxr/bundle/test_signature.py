"""Signatures: only the bundle that was signed, only by a key that is trusted, and always a sentence."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import Bundle, archive, default_bundle_path, signature
from edgecxr.bundle.keys import generate, read_private, read_public
from edgecxr.bundle.signature import PREFIX, SignedBy, check, is_shipped, sign, signers
from edgecxr.errors import BundleError

pytest.importorskip("cryptography", reason="pip install edgecxr[node]: signatures need cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the key pairs `hospital` and `stranger`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("hospital", "stranger"):
        generate(folder / name)
    return folder


@pytest.fixture(scope="module")
def signed(tiny_bundle: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle signed by `hospital`. Do not write to it."""
    path = tmp_path_factory.mktemp("signed") / "tiny.cxr"
    shutil.copy(tiny_bundle, path)
    sign(path, read_private(keys / "hospital.key"))
    return path


@pytest.fixture(scope="module")
def other(tiny_build: Any, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another bundle signed by `hospital`."""
    path: Path = tiny_build.write(tmp_path_factory.mktemp("other") / "other.cxr", card="# another\n")
    sign(path, read_private(keys / "hospital.key"))
    return path


def members(path: Path) -> dict[str, bytes]:
    return archive.unpack(path.read_bytes(), str(path))


def refused(content: dict[str, bytes] | bytes, keys: Path, match: str, folder: Path) -> None:
    path = folder / "altered.cxr"
    path.write_bytes(content if isinstance(content, bytes) else archive.pack(content))
    with pytest.raises(BundleError, match=match) as caught:
        check(path, [keys / "hospital.pub"])
    assert "\n" not in str(caught.value)


def entry(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(members(path)["signature"])["signatures"][0]
    return found


def listing(*entries: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"version": 1, "signatures": entries} | more).encode()


def test_a_signed_bundle_names_who_signed_it(signed: Path, keys: Path) -> None:
    key_id = read_public(keys / "hospital.pub").key_id
    assert check(signed, [keys / "stranger.pub", keys / "hospital.pub"]) == SignedBy("hospital", key_id)
    assert check(Bundle.open(signed), [keys / "hospital.pub"], allow_unsigned=True) == SignedBy("hospital", key_id)
    assert signers(Bundle.open(signed)) == (key_id,)


def test_a_signature_changes_no_digest_and_no_other_member(tiny_bundle: Path, signed: Path) -> None:
    assert Bundle.open(signed).digest == Bundle.open(tiny_bundle).digest
    with_signature = members(signed)
    assert list(with_signature)[-1] == "signature"
    del with_signature["signature"]
    assert archive.pack(with_signature) == tiny_bundle.read_bytes()
    Bundle.open(signed).verify()


def test_openssl_agrees(signed: Path, keys: Path, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    (tmp_path / "message").write_bytes(PREFIX + members(signed)["manifest.json"])
    (tmp_path / "value").write_bytes(base64.b64decode(entry(signed)["value"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys / "hospital.pub"), "-rawin"]
    done = subprocess.run(
        [*command, "-in", "message", "-sigfile", "value"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "Signature Verified Successfully" in done.stdout, done.stderr


def test_an_unsigned_bundle_is_refused_unless_allowed(tiny_bundle: Path, keys: Path) -> None:
    with pytest.raises(BundleError, match=r"tiny.cxr: is not signed; sign it \(edgecxr sign\), or allow unsigned"):
        check(tiny_bundle, [keys / "hospital.pub"])
    with pytest.raises(BundleError, match="is not signed"):
        check(tiny_bundle, [])
    assert check(tiny_bundle, [keys / "hospital.pub"], allow_unsigned=True) is None


def test_an_unknown_key_is_named_with_what_to_do(signed: Path, keys: Path) -> None:
    key_id = read_public(keys / "hospital.pub").key_id[:12]
    sentence = rf"signed by key {key_id}, not one of the 1 trusted here; if you trust its owner, get the public key"
    with pytest.raises(BundleError, match=sentence):
        check(signed, [keys / "stranger.pub"])
    with pytest.raises(BundleError, match=f"signed by key {key_id}, no key is trusted here"):
        check(signed, [])
    assert check(signed, [keys / "stranger.pub"], allow_unsigned=True) is None  # no better than unsigned, no worse


def test_a_flipped_bit_in_any_member_is_refused(signed: Path, keys: Path, tmp_path: Path) -> None:
    whole = members(signed)
    for name, content in whole.items():
        altered = bytearray(content)
        altered[len(altered) // 2] ^= 1
        refused(
            {**whole, name: bytes(altered)}, keys, "not JSON|damaged or altered|manifest.json|signature|key", tmp_path
        )


def test_every_bit_of_the_signature_counts(signed: Path, keys: Path, tmp_path: Path) -> None:
    whole, told = members(signed), entry(signed)
    value = base64.b64decode(told["value"])
    for bit in range(0, len(value) * 8, 7):
        altered = bytearray(value)
        altered[bit // 8] ^= 1 << bit % 8
        wrong = listing({**told, "value": base64.b64encode(altered).decode()})
        refused({**whole, "signature": wrong}, keys, "signature of hospital .* does not belong to this", tmp_path)


def test_no_flipped_byte_of_the_file_goes_unnoticed(signed: Path, keys: Path, tmp_path: Path) -> None:
    whole = signed.read_bytes()
    places = [*range(60), *range(len(whole) - 900, len(whole), 3), *range(0, len(whole), 9973)]
    for place in places:
        refused(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :], keys, "altered.cxr", tmp_path)


def test_a_truncated_or_lengthened_file_is_refused(signed: Path, keys: Path, tmp_path: Path) -> None:
    whole = signed.read_bytes()
    for length in [0, 100, len(whole) // 2, len(whole) - 200, len(whole) - 1]:
        refused(whole[:length], keys, "not a whole bundle", tmp_path)
    for longer in (whole + b"\0", b"\0" + whole, whole + whole):
        refused(longer, keys, "not a whole bundle", tmp_path)


def test_the_signature_of_another_bundle_is_refused(signed: Path, other: Path, keys: Path, tmp_path: Path) -> None:
    moved = {**members(signed), "signature": members(other)["signature"]}
    refused(moved, keys, "does not belong to this bundle; it was altered, so it is not used", tmp_path)


def test_a_strangers_signature_under_a_trusted_id_is_refused(
    tiny_bundle: Path, signed: Path, keys: Path, tmp_path: Path
) -> None:
    stranger = read_private(keys / "stranger.key")
    value = base64.b64encode(stranger.sign(PREFIX + members(tiny_bundle)["manifest.json"])).decode()
    forged = listing({**entry(signed), "value": value})
    refused({**members(tiny_bundle), "signature": forged}, keys, "does not belong to this bundle", tmp_path)


def test_a_signature_without_the_prefix_is_refused(signed: Path, keys: Path, tmp_path: Path) -> None:
    whole, key = members(signed), read_private(keys / "hospital.key")
    bare = listing({**entry(signed), "value": base64.b64encode(key.sign(whole["manifest.json"])).decode()})
    refused({**whole, "signature": bare}, keys, "does not belong to this bundle", tmp_path)


def test_a_wrong_signature_beside_a_right_one_is_refused(signed: Path, other: Path, keys: Path, tmp_path: Path) -> None:
    both = listing(entry(signed), entry(other))
    refused({**members(signed), "signature": both}, keys, "does not belong to this bundle", tmp_path)


def test_a_wrong_signature_is_refused_where_unsigned_is_allowed(
    signed: Path, other: Path, keys: Path, tmp_path: Path
) -> None:
    path = tmp_path / "moved.cxr"
    path.write_bytes(archive.pack({**members(signed), "signature": members(other)["signature"]}))
    with pytest.raises(BundleError, match="does not belong to this bundle"):
        check(path, [keys / "hospital.pub"], allow_unsigned=True)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "its signature is not as EdgeCXR writes it; sign it again"),
        (b"\xff\xfe\x00garbage", "its signature is not as EdgeCXR writes it"),
        (b"null", "its signature is not as EdgeCXR writes it"),
        (b"[1, 2]", "its signature is not as EdgeCXR writes it"),
        (b"{}", "its signature is not as EdgeCXR writes it"),
        (b"[" * 60_000, "its signature is not as EdgeCXR writes it"),
        (b'{"signatures": 5}', "its signature is not as EdgeCXR writes it"),
        (b'{"signatures": []}', "its signature: signatures: Tuple should have at least 1 item"),
        (b'{"signatures": ["a"]}', "its signature: signatures.0: Input should be a valid dictionary"),
        (listing({"algorithm": "ed25519", "key": "abc", "value": ""}), "signatures.0.key: String should match"),
        (listing({"algorithm": "ed25519", "key": "0" * 64, "value": "!"}), "signatures.0.value: String should match"),
        (listing(version=2), "its signature is of version 2, this EdgeCXR reads 1; install a newer EdgeCXR"),
        (listing({"algorithm": "ml-dsa-65", "key": "0" * 64, "value": "AAAA"}), "signed with ml-dsa-65, which this"),
        (bytes(70_000), "its signature has 70000 bytes, more than 65536; take the bundle again"),
        (bytes(20 * 2**20), "its signature has 20971520 bytes, more than 65536"),
    ],
)
def test_a_signature_that_is_none_is_refused(
    content: bytes, match: str, tiny_bundle: Path, keys: Path, tmp_path: Path
) -> None:
    refused({**members(tiny_bundle), "signature": content}, keys, match, tmp_path)


@pytest.mark.parametrize("value", ["", "AAAA", "A", "A" * 88])
def test_a_value_of_another_length_is_refused(value: str, signed: Path, keys: Path, tmp_path: Path) -> None:
    refused(
        {**members(signed), "signature": listing({**entry(signed), "value": value})}, keys, "does not belong", tmp_path
    )


def test_a_signature_of_a_kind_to_come_stands_beside_ours(signed: Path, keys: Path, tmp_path: Path) -> None:
    later = {"algorithm": "ml-dsa-65", "key": "0" * 64, "value": "AAAA"}
    path = tmp_path / "both.cxr"
    path.write_bytes(archive.pack({**members(signed), "signature": listing(later, entry(signed))}))
    found = check(path, [keys / "hospital.pub"])
    assert found is not None
    assert found.name == "hospital"


def test_two_may_sign_and_each_once(tiny_bundle: Path, keys: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.cxr"
    shutil.copy(tiny_bundle, path)
    for name in ("hospital", "stranger", "hospital"):
        sign(path, read_private(keys / f"{name}.key"))
    assert sorted(signers(Bundle.open(path))) == sorted(
        read_public(keys / f"{name}.pub").key_id for name in ("hospital", "stranger")
    )
    for name in ("hospital", "stranger"):
        found = check(path, [keys / f"{name}.pub"])
        assert found is not None
        assert found.name == name


def test_no_more_than_16_may_sign(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "many.cxr"
    shutil.copy(tiny_bundle, path)
    many = [generate(tmp_path / f"k{number}") for number in range(17)]
    for key in many[:16]:
        sign(path, key)
    before = path.read_bytes()
    with pytest.raises(BundleError, match=r"many.cxr: signatures: Tuple should have at most 16 items"):
        sign(path, many[16])
    assert path.read_bytes() == before


def test_what_is_damaged_is_not_signed(signed: Path, keys: Path, tmp_path: Path) -> None:
    path, key = tmp_path / "damaged.cxr", read_private(keys / "hospital.key")
    for content in (archive.pack({**members(signed), "card.md": b"# other\n"}), b"none", signed.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"damaged.cxr: (member 'card.md' has digest|not a whole bundle)"):
            sign(path, key)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tiny_bundle: Path, keys: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_bundle, tmp_path / "real.cxr")
    (tmp_path / "link.cxr").symlink_to("real.cxr")
    sign(tmp_path / "link.cxr", read_private(keys / "hospital.key"))
    assert (tmp_path / "link.cxr").is_symlink()
    assert check(tmp_path / "real.cxr", [keys / "hospital.pub"]) is not None


def test_the_packages_own_bundle_needs_no_signature(keys: Path, tmp_path: Path) -> None:
    own = default_bundle_path()
    if not own.exists():
        pytest.skip("the package has no bundle here")
    assert check(own, []) is None
    assert check(shutil.copy(own, tmp_path / "copy.cxr"), [keys / "hospital.pub"]) is None
    with pytest.raises(BundleError, match="is not signed"):
        check(own, [keys / "hospital.pub"], shipped=False)
    altered = {**members(own), "card.md": b"# altered\n"}
    manifest = json.loads(altered["manifest.json"])
    manifest["members"]["card.md"] = "6bff8b9ef6d8d8d5ce2a4f1f7a6b1dca2ab8e2d5d8ed0b2ae0f7ff9c3a36c0b4"
    refused({**altered, "manifest.json": json.dumps(manifest).encode()}, keys, "card.md' has digest", tmp_path)


def test_another_bundle_is_not_the_packages_own(tiny_bundle: Path) -> None:
    assert not is_shipped(Bundle.open(tiny_bundle))


def test_a_package_whose_bundle_is_not_the_recorded_one_is_not_believed(tiny_bundle: Path, tmp_path: Path) -> None:
    """A wheel's record names the digest of its bundle: laid out like one, with a right and a wrong record."""
    source = Path(signature.__file__).parents[1]
    package = tmp_path / "edgecxr"
    shutil.copytree(source, package, symlinks=False, ignore=shutil.ignore_patterns("models", "__pycache__", "*.so"))
    (package / "models").mkdir()
    shutil.copy(tiny_bundle, package / "models" / "covid3.cxr")
    info = tmp_path / "edgecxr-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgecxr\nVersion: 0.1.0\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edgecxr.bundle import Bundle, default_bundle_path\n"
        "from edgecxr.bundle import signature; print(signature.__file__)\n"
        "print(signature.is_shipped(Bundle.open(default_bundle_path())))"
    )
    right = base64.urlsafe_b64encode(hashlib.sha256(tiny_bundle.read_bytes()).digest()).rstrip(b"=").decode()
    for digest, believed in ((right, "True"), ("A" * 43, "False")):
        (info / "RECORD").write_text(f"edgecxr/models/covid3.cxr,sha256={digest},1\n")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [str(package / "bundle" / "signature.py"), believed], done.stderr


def test_without_cryptography_there_is_a_sentence(signed: Path, keys: Path, tmp_path: Path) -> None:
    """A machine without the extra: an import of cryptography finds a module that raises ImportError."""
    (tmp_path / "cryptography.py").write_text("raise ImportError('not installed')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edgecxr.bundle.signature import check\n"
        "from edgecxr.errors import EngineError\n"
        f"print(check({str(signed)!r}, [], allow_unsigned=True))\n"
        f"try:\n    check({str(signed)!r}, [{str(keys / 'hospital.pub')!r}])\nexcept EngineError as error:\n"
        "    print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "None",
        'signatures need cryptography: pip install "edgecxr[node]"',
    ]
