"""The node's configuration: one YAML file, checked to the last key before anything is opened."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgecxr.errors import ConfigError
from edgecxr.repeats import repeated
from edgecxr.settings import read_settings
from edgecxr.spec import Strict

__all__ = [
    "BundleSection",
    "DestinationSection",
    "DicomSection",
    "HealthSection",
    "HttpSection",
    "NodeConfig",
    "PeerSection",
    "ResultSection",
    "ScreeningSection",
    "SpoolLimits",
    "TlsSection",
    "WatchSection",
    "load_config",
]

AeTitle = Annotated[
    str, Field(min_length=1, max_length=16, pattern=r"^[^\\\x00-\x1f\x7f]*[^\\\x00-\x20\x7f][^\\\x00-\x1f\x7f]*$")
]
Port = Annotated[int, Field(ge=0, le=65535, description="0 takes a free port")]
Seconds = Annotated[float, Field(gt=0)]
Megabytes = Annotated[int, Field(ge=1)]


class SpoolLimits(Strict):
    """How much the spool takes, and how long it keeps what was delivered."""

    max_object_mb: Megabytes = 256
    max_waiting: Annotated[int, Field(ge=1, description="images that may wait for screening")] = 2000
    refuse_below_mb: Annotated[int, Field(ge=0, description="free disk under which nothing is taken")] = 512
    tidy_below_mb: Annotated[int, Field(ge=0, description="free disk under which delivered images are removed")] = 2048
    keep_days: Annotated[float, Field(ge=0, description="age at which delivered images are removed")] = 30


class TlsSection(Strict):
    """Certificates in PEM (BCP 195: TLS 1.2 or newer). With `authority`, the other side must show one it signed."""

    certificate: Path
    key: Path
    authority: Path | None = None


class PeerSection(Strict):
    """One DICOM application that may call, by its AE title and address."""

    ae: AeTitle
    host: str | None = Field(default=None, description="address or network (10.0.0.0/24) it calls from")
    port: Annotated[int, Field(ge=1, le=65535, description="where it listens, for storage commitment")] | None = None
    priority: Annotated[int, Field(ge=-5, le=5, description="added to the priority of its images")] = 0


class DicomSection(Strict):
    """The DICOM receiver."""

    ae: AeTitle = "EDGECXR"
    host: str = "0.0.0.0"
    port: Port = 11112
    check_called_ae: bool = Field(default=False, description="refuse callers that call us by another AE title")
    peers: tuple[PeerSection, ...] = Field(default=(), description="who may call; anyone, where empty")
    tls: TlsSection | None = None
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 32
    max_associations_per_peer: Annotated[int, Field(ge=1, le=1000)] = 8
    max_connections: Annotated[int, Field(ge=1, le=4000, description="open sockets, associated or not")] = 128
    request_timeout_s: Seconds = Field(default=10.0, description="ARTIM: from connection to A-ASSOCIATE-RQ")
    idle_timeout_s: Seconds = Field(default=60.0, description="silence on an association after which it is aborted")
    transfer_timeout_s: Seconds = Field(default=20.0, description="silence in the middle of an object")
    max_pdu: Annotated[int, Field(ge=4096, le=1 << 24, description="bytes")] = 1 << 18

    @model_validator(mode="after")
    def _roomy(self) -> "DicomSection":
        if self.max_connections <= self.max_associations:
            raise ValueError(
                f"max_connections {self.max_connections} leaves no room beside max_associations "
                f"{self.max_associations} for a peer that is about to associate: make it larger"
            )
        return self


class WatchSection(Strict):
    """A folder into which files are put; each is taken when it has stopped growing, then removed from there."""

    folder: Path
    settle_s: Annotated[float, Field(ge=0)] = 2.0
    poll_s: Seconds = 1.0
    priority: Annotated[int, Field(ge=-5, le=5)] = 0


class HttpSection(Strict):
    """The page and the API."""

    host: str = "127.0.0.1"
    port: Port = 8080
    socket: Path | None = Field(default=None, description="a Unix socket instead of host and port")
    password: str | None = Field(default=None, min_length=8, description="asked of every browser and program")
    tls: TlsSection | None = None
    wait_s: Seconds = Field(default=60.0, description="longest wait of POST /v1/screen")

    @model_validator(mode="after")
    def _guarded(self) -> "HttpSection":
        local = self.socket is not None or self.host in ("127.0.0.1", "::1", "localhost")
        if not local and self.password is None:
            raise ValueError(
                f"host {self.host} can be reached from the network: set a password (and tls), or 127.0.0.1"
            )
        return self


class DestinationSection(Strict):
    """A PACS that results are sent to."""

    name: Annotated[str, Field(pattern=r"^[\w-]+$")]
    ae: AeTitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    send: tuple[Literal["sr", "capture"], ...] = ("sr", "capture")
    tls: TlsSection | None = None


class ResultSection(Strict):
    """What is written into result objects."""

    institution: Annotated[str, Field(max_length=64)] = ""
    station: Annotated[str, Field(max_length=16)] = ""
    device_serial: Annotated[str, Field(max_length=64)] = "0"
    timezone: str | None = Field(
        default=None, description="offset from UTC, as +0545 (DICOM 0008,0201); the machine's own unless given"
    )

    @field_validator("timezone")
    @classmethod
    def _offset(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[+-](0\d|1[0-4])[0-5]\d", value):
            raise ValueError(f"got {value!r}, wanted an offset from UTC as '+0545'")
        return value


class ScreeningSection(Strict):
    """How images are screened."""

    engine: str = "auto"
    precision: str = "auto"
    point: str | None = Field(default=None, description="operating point; the bundle's first unless given")
    workers: Annotated[int, Field(ge=1, le=16)] = 1
    threads: Annotated[int, Field(ge=0, description="inference threads of a worker; 0 is all cores")] = 0
    timeout_s: Seconds = Field(default=60.0, description="after which a worker counts as stuck and is replaced")


class BundleSection(Strict):
    """Which model, and whose signature is trusted."""

    path: Path | None = Field(default=None, description="else the installed one, else the package's own")
    trusted_keys: tuple[Path, ...] = Field(default=(), description="public keys (PEM, Ed25519) of who may sign bundles")
    allow_unsigned: bool = False


class HealthSection(Strict):
    """How often the node proves itself, and what is no problem here."""

    prove_every_s: Seconds = 3600.0
    clock_by_hand: bool = Field(default=False, description="the clock is set by hand; nothing else can keep it")


class NodeConfig(Strict):
    """Everything that `edgecxr serve` needs to know."""

    folder: Path = Field(description="where spool, installed bundles and logs live")
    bundle: BundleSection = BundleSection()
    screening: ScreeningSection = ScreeningSection()
    spool: SpoolLimits = SpoolLimits()
    dicom: DicomSection | None = DicomSection()
    watch: tuple[WatchSection, ...] = ()
    http: HttpSection | None = HttpSection()
    destinations: tuple[DestinationSection, ...] = ()
    results: ResultSection = ResultSection()
    health: HealthSection = HealthSection()

    @model_validator(mode="after")
    def _distinct(self) -> "NodeConfig":
        names = [destination.name for destination in self.destinations]
        if twice := repeated(names):
            raise ValueError(f"two destinations are named {twice[0]!r}; each needs a name of its own")
        return self


def load_config(path: str | Path) -> NodeConfig:
    """The configuration in a YAML file; relative paths in it are relative to the file.

    Raises ConfigError: every problem as one sentence ``<file>:<line>: …``.
    """
    config = read_settings(path, NodeConfig, ConfigError, "configuration")
    return _placed(config, Path(path).resolve().parent)


def _placed(value: NodeConfig, root: Path) -> NodeConfig:
    return NodeConfig.model_validate(_absolute(value.model_dump(), root))


def _absolute(value: object, root: Path) -> object:
    if isinstance(value, Path):
        return root / value
    if isinstance(value, dict):
        return {key: _absolute(item, root) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_absolute(item, root) for item in value)
    return value
