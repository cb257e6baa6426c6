"""What `edgecxr serve --check` looks at: everything that the node needs, line by line, without serving."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from edgecxr.commands.terminal import ExitCode
from edgecxr.errors import BundleError, ConfigError, EdgeCxrError

if TYPE_CHECKING:
    from edgecxr.runtimes.node.config import DestinationSection, NodeConfig, TlsSection

__all__ = ["Line", "examine", "preflight"]

Verdict = Literal["ok", "warning", "wrong", "cannot"]  # cannot: the machine; wrong: the configuration
MARKS: dict[Verdict, str] = {"ok": "ok     ", "warning": "warning", "wrong": "WRONG  ", "cannot": "CANNOT "}
MEGABYTE = 10**6
ECHO_TIMEOUT_S = 5.0
VERIFICATION = "1.2.840.10008.1.1"


class Line(NamedTuple):
    """One thing that was looked at."""

    topic: str
    verdict: Verdict
    detail: str


def preflight(config: "NodeConfig") -> ExitCode:
    """Print every line; 2 where the configuration is wrong, 3 where the machine cannot, 0 where all is well."""
    verdicts = set()
    for line in examine(config):
        print(f"{MARKS[line.verdict]}  {line.topic:<20} {line.detail}", flush=True)
        verdicts.add(line.verdict)
    if "wrong" in verdicts:
        return ExitCode.MISUSE
    return ExitCode.CANNOT if "cannot" in verdicts else ExitCode.DONE


def examine(config: "NodeConfig") -> Iterator[Line]:
    """Every line, in the order in which the node opens its parts."""
    yield Line("configuration", "ok", "every key is known and in range")
    parts: tuple[Callable[[NodeConfig], Iterator[Line]], ...] = (
        _folder,
        _disk,
        _spool,
        _watched,
        _ports,
        _certificates,
        _bundle,
        _destinations,
    )
    for part in parts:
        yield from part(config)


def _folder(config: "NodeConfig") -> Iterator[Line]:
    yield _writable("folder", config.folder)


def _writable(topic: str, folder: Path) -> Line:
    """Whether files can be made, renamed and removed there; of a folder that is absent, whether it could be made."""
    user = f"user id {os.geteuid()}"
    if not folder.exists():
        parent = _nearest(folder)
        if parent.is_dir() and os.access(
            parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
        ):
            return Line(topic, "ok", f"{folder} is absent; it can be created in {parent} ({user})")
        return Line(topic, "wrong", f"{folder} is absent, and {parent} cannot be written ({user}); create it")
    probe = folder / ".edgecxr-probe"
    try:
        probe.write_bytes(b"probe")
        probe.rename(probe.with_suffix(".renamed")).unlink()
    except OSError as error:
        return Line(topic, "wrong", f"{folder}: {error.strerror or error}; let the user that runs the node write there")
    return Line(topic, "ok", f"{folder} can be written ({user})")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    return next((place for place in (folder, *folder.parents) if place.exists()), Path(folder.anchor))


def _disk(config: "NodeConfig") -> Iterator[Line]:
    place = _nearest(config.folder)
    free, least = shutil.disk_usage(place).free // MEGABYTE, config.spool.refuse_below_mb
    if free < least:
        yield Line("disk", "cannot", f"{free} MB are free, less than spool.refuse_below_mb {least}: nothing is taken")
    elif free < max(config.spool.tidy_below_mb, least + config.spool.max_object_mb):
        yield Line("disk", "warning", f"{free} MB are free: delivered images are removed early, room is short")
    else:
        yield Line("disk", "ok", f"{free} MB are free")


def _spool(config: "NodeConfig") -> Iterator[Line]:
    """Whether no other node works there."""
    from edgecxr.runtimes.node.spool import Spool

    if not (config.folder / "spool" / "node.db").exists():
        yield Line("spool", "ok", "none yet; it is made at the first start")
        return
    try:
        spool = Spool(config.folder / "spool", config.spool)
        counts, outstanding = spool.counts(), spool.outstanding()
        spool.close()
    except EdgeCxrError as error:
        yield Line("spool", "cannot", str(error))
        return
    told = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    yield Line("spool", "ok", f"{told or 'empty'}; {outstanding} results to deliver")


def _watched(config: "NodeConfig") -> Iterator[Line]:
    for section in config.watch:
        line = _writable("watched folder", section.folder)
        if line.verdict == "ok" and not section.folder.exists():
            line = Line(line.topic, "warning", f"{section.folder} is absent; the node waits for it: create it")
        yield _settling(line, section.folder) if line.verdict == "ok" else line


def _settling(line: Line, folder: Path) -> Line:
    """The line, with what waits there longer than `settle_s`: files of which nobody tells who still writes them."""
    from edgecxr.runtimes.node.lease import is_written, tells_of_others
    from edgecxr.runtimes.node.watch import UNTOLD_S

    waits = f"taken when they have not changed for {UNTOLD_S:.0f} s"
    with tempfile.NamedTemporaryFile(prefix=".edgecxr-probe", dir=folder) as probe:
        descriptor = os.open(probe.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            told = is_written(descriptor) is not None
        finally:
            os.close(descriptor)
    if not told:
        why = "the disk does not tell whether a file there is still being written"
        return Line(line.topic, "warning", f"{line.detail}; {why}: files are {waits}")
    if not tells_of_others():
        why = "unless the node has CAP_LEASE, which this check has not"
        return Line(line.topic, "ok", f"{line.detail}; files of other users are {waits}, {why}")
    return line


def _ports(config: "NodeConfig") -> Iterator[Line]:
    if config.dicom is not None:
        yield _port("DICOM port", config.dicom.host, config.dicom.port)
    if config.http is not None and config.http.socket is None:
        yield _port("HTTP port", config.http.host, config.http.port)
    elif config.http is not None and config.http.socket is not None:
        folder = config.http.socket.parent
        there = os.access(folder, os.W_OK)
        yield Line("HTTP socket", "ok" if there else "wrong", f"{folder} {'can' if there else 'cannot'} be written")


def _port(topic: str, host: str, port: int) -> Line:
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(info[0], info[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(info[4])
            probe.listen()
    except OSError as error:
        return Line(topic, "cannot", f"{host} port {port}: {error.strerror or error}; is a node running already?")
    return Line(topic, "ok", f"{host} port {port} is free")


def _certificates(config: "NodeConfig") -> Iterator[Line]:
    from edgecxr.runtimes.node import lines, peers

    sections: list[tuple[str, TlsSection | None, Callable[[TlsSection], object]]] = []
    if config.dicom is not None:
        sections.append(("dicom.tls", config.dicom.tls, partial(peers.tls_context, name="dicom.tls")))
    if config.http is not None:
        sections.append(("http.tls", config.http.tls, partial(peers.tls_context, name="http.tls")))
    sections += [(f"{item.name}.tls", item.tls, lines.tls_context) for item in config.destinations]
    for topic, section, load in sections:
        if section is not None:
            try:
                load(section)
                yield Line(topic, "ok", f"{section.certificate} and its key can be used")
            except (ConfigError, OSError) as error:
                yield Line(topic, "wrong", str(error))


def _bundle(config: "NodeConfig") -> Iterator[Line]:
    """Signature, then the golden set on this machine."""
    from edgecxr.runtimes.node.model import choose
    from edgecxr.runtimes.screener import Screener

    try:
        path = choose(config).path
        yield Line("bundle", "ok", f"{path} is whole and trusted")
    except BundleError as error:
        yield Line("bundle", "wrong", str(error))
        return
    except EdgeCxrError as error:
        yield Line("bundle", "cannot", str(error))
        return
    wanted = config.screening
    try:
        with Screener(path, wanted.engine, wanted.precision, wanted.point, threads=wanted.threads) as screener:
            told = f"{screener.engine.family} {screener.engine.precision}, operating point {screener.point}"
        yield Line("engine", "ok", f"{told}: reproduces the golden set")
    except EdgeCxrError as error:
        yield Line("engine", "cannot", str(error))


def _destinations(config: "NodeConfig") -> Iterator[Line]:
    """C-ECHO to each: an archive that is away now may come back, so this is a warning only."""
    for section in config.destinations:
        topic = f"destination {section.name}"
        try:
            status = _echo(section, "EDGECXR" if config.dicom is None else config.dicom.ae)
        except EdgeCxrError as error:
            yield Line(topic, "warning", f"{error}; results wait until it answers")
            continue
        told = "nothing" if status is None else f"status 0x{status:04X}"
        where = f"{section.ae} at {section.host} port {section.port}"
        yield Line(topic, "ok" if status == 0 else "warning", f"{where} answers C-ECHO with {told}")


def _echo(section: "DestinationSection", calling_ae: str) -> int | None:
    """The status of a C-ECHO (PS3.4 A.5); None where the answer has none. Raises SendError, ConfigError."""
    from pynetdicom.presentation import build_context

    from edgecxr.runtimes.node.caller import Peer, call

    with call(Peer.of(section), calling_ae, [build_context(VERIFICATION)], timeout_s=ECHO_TIMEOUT_S) as line:
        answer = line.association.send_c_echo()
    return int(answer.Status) if "Status" in answer else None
