"""``edgecxr send``: DICOM files to another DICOM application."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecxr.commands.choices import check_inputs, misuse
from edgecxr.commands.terminal import ExitCode, note, print_json, progress, require_node

if TYPE_CHECKING:
    from edgecxr.runtimes.node.lines import Peer
    from edgecxr.runtimes.node.sender import SendResult

__all__ = ["send"]

ADDRESS = re.compile(r"(?P<ae>[^@\\]{1,16})@(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\d{1,5})")


def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.", show_default=False)],
    to: Annotated[str, typer.Option(help="Who gets them: AE@host:port.", show_default=False)],
    calling_ae: Annotated[str, typer.Option(help="Our AE title.")] = "EDGECXR",
    tls_certificate: Annotated[Path | None, typer.Option(help="Use TLS, with this certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The key of the certificate (PEM).")] = None,
    tls_authority: Annotated[
        Path | None, typer.Option(help="Who must have signed the peer's certificate (PEM).  [default: not verified]")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest silence of the peer, in seconds.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end; nothing else.")] = False,
) -> None:
    """Send DICOM files by C-STORE, in the order of their names, and say what became of each.

    Ends with 1 when some were not taken, with 3 when the peer cannot be reached.

    Example: `edgecxr send films/ --to ORTHANC@10.0.0.5:4242`
    """
    from edgecxr.read import find_files

    check_inputs(paths)
    peer, title = _peer(to, tls_certificate, tls_key, tls_authority), _title(calling_ae)
    files = list(find_files(paths))
    if not files:
        misuse(f"no file in {', '.join(map(str, paths))}; give DICOM files or folders of them")
    from edgecxr.runtimes.node.sender import send as send_files

    with progress("sending", len(files), quiet=as_json) as step:

        def tell(result: "SendResult") -> None:
            if not as_json:
                print(_line(result))
            step(result.file.name)

        results = send_files(files, peer, title, progress=tell, timeout_s=timeout)
    sent = sum(result.sent for result in results)
    if as_json:
        print_json({"files": len(results), "sent": sent, "results": [_to_json(result) for result in results]})
    else:
        note(f"{sent} of {len(results)} files are at {peer}")
    if sent < len(results):
        raise typer.Exit(ExitCode.SOME_REFUSED)


def _peer(to: str, certificate: Path | None, key: Path | None, authority: Path | None) -> "Peer":
    """Whom to send to; ends when that is misspelt, and when pynetdicom is not installed."""
    found = ADDRESS.fullmatch(to)
    if found is None or not found["ae"].strip() or not 1 <= int(found["port"]) <= 65535:
        misuse(f"--to {to} is not AE@host:port, such as ORTHANC@10.0.0.5:4242; an AE title has 1 to 16 characters")
    if (certificate is None) != (key is None) or (authority is not None and certificate is None):
        misuse("TLS needs --tls-certificate and --tls-key together")
    require_node("pynetdicom")
    from edgecxr.runtimes.node.config import TlsSection
    from edgecxr.runtimes.node.lines import Peer, tls_context

    tls = None
    if certificate and key:
        tls = tls_context(TlsSection(certificate=certificate, key=key, authority=authority))
    return Peer(found["ae"].strip(), found["host"].strip("[]"), int(found["port"]), tls)


def _title(calling_ae: str) -> str:
    if not calling_ae.strip() or len(calling_ae) > 16 or "\\" in calling_ae or not calling_ae.isascii():
        misuse(f"--calling-ae {calling_ae} is no AE title: 1 to 16 ASCII characters without a backslash")
    return calling_ae


def _line(result: "SendResult") -> str:
    if not result.sent:
        return f"{result.file}  NOT SENT  {result.error}"
    return f"{result.file}  sent" + (f"  {result.error}" if result.error else "")


def _to_json(result: "SendResult") -> dict[str, Any]:
    return {
        "file": str(result.file),
        "sent": result.sent,
        "status": None if result.status is None else f"0x{result.status:04X}",
        "error": result.error or None,
    }
