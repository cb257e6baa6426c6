"""What tests do with a spool."""

from pathlib import Path

from edgecxr.runtimes.node.spool import Arrival, Image, Outcome, Receipt, Spool, SpoolLimits

LIMITS = SpoolLimits(max_object_mb=1, refuse_below_mb=0, tidy_below_mb=0)
CR = "1.2.840.10008.5.1.4.1.1.1"
OK = Outcome("ok", {"findings": []})
REFUSED = Outcome("refused", {"reason": "no_contrast", "findings": []})


def put(spool: Spool, uid: str, data: bytes = b"film", priority: int = 0) -> Receipt:
    with spool.part() as part:
        part.write(data)
        return spool.commit(part, Arrival(CR, uid, "1.2.840.10008.1.2.1", "dicom", "10.0.0.9", priority, "UNIT"))


def claimed(spool: Spool) -> Image:
    image = spool.claim()
    assert image is not None
    return image


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".part", ".dcm", ".bin"))
