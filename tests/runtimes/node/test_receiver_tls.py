"""TLS (BCP 195): who is spoken to, and who is not."""

import datetime
import ipaddress
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pynetdicom import AE

VERIFICATION = "1.2.840.10008.1.1"
PATIENCE_S = 60


def a_key_and_certificate(folder: Path, name: str, issuer: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(
        issuer_name=issuer[1].subject if issuer else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(hours=1),
        not_valid_after=now + datetime.timedelta(days=1),
    ).add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(names, False).sign(issuer[0] if issuer else key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(private)
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
    return key, certificate


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with authority, node, modality (both signed by it) and stranger (signed by itself): .pem and .key."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    authority = a_key_and_certificate(folder, "authority")
    for name in ("node", "modality"):
        a_key_and_certificate(folder, name, authority)
    a_key_and_certificate(folder, "stranger")
    return folder


def tls_section(folder: Path, *, authority: bool) -> dict[str, Any]:
    section = {"certificate": folder / "node.pem", "key": folder / "node.key"}
    return section | ({"authority": folder / "authority.pem"} if authority else {})


def a_client(folder: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "authority.pem")
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def test_an_echo_over_tls(listening: Callable[..., Any], certificates: Path) -> None:
    node = listening(tls=tls_section(certificates, authority=False))
    caller = AE(ae_title="TLS")
    caller.add_requested_context(VERIFICATION)
    association = caller.associate("127.0.0.1", node.port, tls_args=(a_client(certificates, None), "127.0.0.1"))
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
    assert association.is_released


@pytest.mark.parametrize(("name", "may"), [("modality", True), ("stranger", False), (None, False)])
def test_with_an_authority_a_certificate_is_asked_for(
    listening: Callable[..., Any], certificates: Path, name: str | None, may: bool
) -> None:
    node = listening(tls=tls_section(certificates, authority=True))
    with node.peer() as peer:
        try:
            with a_client(certificates, name).wrap_socket(peer.sock, server_hostname="127.0.0.1") as peer.sock:
                peer.associate()
                assert peer.echo() == 0
            served = True
        except (OSError, AssertionError):
            served = False
    assert served is may


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_old_tls_and_plain_text_are_not_spoken_to(listening: Callable[..., Any], certificates: Path) -> None:
    node = listening(tls=tls_section(certificates, authority=False))
    old = a_client(certificates, None)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with node.peer() as peer, pytest.raises(OSError, match=r"(?i)protocol|alert|reset|version"):
        old.wrap_socket(peer.sock, server_hostname="127.0.0.1")
    with node.peer() as plain:
        plain.send(plain.request())
        kind, _ = plain.answer()
        assert kind not in (2, 4)
    assert node.receiver.statistics()["associations"] == 0


def echoscu(*words: Any) -> subprocess.CompletedProcess[str]:
    command = ["echoscu", "-v", *map(str, words[:-1]), "127.0.0.1", str(words[-1])]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.peers
def test_dcmtk_echoes_over_tls(listening: Callable[..., Any], certificates: Path) -> None:
    node = listening(tls=tls_section(certificates, authority=True))
    keys = ("+tls", certificates / "modality.key", certificates / "modality.pem", "+cf", certificates / "authority.pem")
    answer = echoscu(*keys, node.port)
    assert answer.returncode == 0, answer.stderr
    assert echoscu("+tla", "-ic", node.port).returncode != 0
