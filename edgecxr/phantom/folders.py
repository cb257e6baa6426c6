"""Folders of phantoms: a labelled training set, and a day's films as a clinic has them, bad ones included."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom

from edgecxr.errors import RefusalReason
from edgecxr.phantom.chest import chest
from edgecxr.phantom.misfits import other
from edgecxr.phantom.objects import write_dicom
from edgecxr.phantom.opacity import FINDINGS

__all__ = ["FieldFile", "write_dataset", "write_field_folder"]

FOLDS = 5
SEEDS = 1_000_000  # seeds of one folder; the next folder's start after them
SYNTAX_OF_FILM = ("explicit", "jpeg_lossless", "implicit", "rle", "jpeg2000", "jpegls", "deflated", "big")


@dataclass(frozen=True)
class FieldFile:
    """One file of a clinic's folder, and what is true of it."""

    path: Path
    finding: str | None  # one of FINDINGS; None where there is nothing to screen
    refusal: RefusalReason | None  # why it cannot be screened; None for a good film


def write_dataset(
    folder: str | Path, count_per_finding: int = 40, seed: int = 0, size: int = 256, *, columns: Sequence[str] = ()
) -> Path:
    """Write 16-bit PNG films and labels.csv (file, patient, label, fold, then `columns`), and return the folder.

    `count_per_finding` films of (size, size) for each finding. Every fifth patient has two films; folds 0..4 go by
    patient. `columns` say 0 or 1: one that is named like a finding, whatever its case, is true of the film; any other
    is 1 for one film in ten, by chance: for recipes that read more than drawn films can show. The same arguments give
    the same bytes. Raises ValueError for a count below 1.
    """
    if count_per_finding < 1:
        raise ValueError(f"count_per_finding {count_per_finding}: write at least one film of each finding")
    target = Path(folder)
    (target / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index, finding in enumerate(FINDINGS):
        for number in range(count_per_finding):
            patient = number - (number + 1) // 6  # films 4 and 5, 10 and 11, … share a patient
            name = f"images/{finding}_{number:04d}.png"
            film = chest(seed * SEEDS + index * (SEEDS // 10) + number, finding, size)
            (target / name).write_bytes(imagecodecs.png_encode(film.pixels << np.uint16(16 - film.bits_stored)))
            marks = [_mark(column, finding, SEEDS * seed + number) for column in columns]
            rows.append((name, f"{finding}-{patient:04d}", finding, patient % FOLDS, *marks))
    with open(target / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "patient", "label", "fold", *columns), *rows])
    return target


def _mark(column: str, finding: str, seed: int) -> int:
    """What a column of 0 and 1 says of a film."""
    if column.lower() in FINDINGS:
        return int(column.lower() == finding)
    return int(np.random.default_rng([seed, *f"{column} {finding}".encode()]).random() < 0.1)


def write_field_folder(folder: str | Path, seed: int = 0, size: int = 512) -> tuple[FieldFile, ...]:
    """Write a day's DICOM files as a screening clinic has them, and return what is true of each.

    Sixteen frontal chest films, eight of them with a finding, in eight transfer syntaxes and both polarities, from
    two kinds of unit; and eight files that must be refused.
    """
    target = Path(folder)
    for day in ("day-1", "day-2", "doubtful"):
        (target / day).mkdir(parents=True, exist_ok=True)
    files = [_good(target, seed, number, size) for number in range(16)]
    return (*files, *_wrong_pictures(target / "doubtful", seed, size), *_broken(target / "doubtful", seed, size))


def _good(folder: Path, seed: int, number: int, size: int) -> FieldFile:
    """One film of the day: every second one has a finding, every third one is MONOCHROME1."""
    finding = ("normal", "pneumonia", "normal", "covid")[number % 4]
    path = folder / ("day-1" if number < 8 else "day-2") / f"film-{number + 1:02d}.dcm"
    write_dicom(
        chest(seed * SEEDS + SEEDS // 2 + number, finding, size),
        path,
        syntax=SYNTAX_OF_FILM[number % len(SYNTAX_OF_FILM)],
        monochrome1=number % 3 == 2,
        modality="CR" if number % 5 == 4 else "DX",
    )
    return FieldFile(path, finding, None)


def _wrong_pictures(folder: Path, seed: int, size: int) -> list[FieldFile]:
    """Whole files whose picture is not one frontal chest film; the hip and the lateral claim that they are."""
    hand = write_dicom(other(seed, "hand", size), folder / "hand.dcm", body_part="HAND")
    hip = write_dicom(other(seed, "hip", size), folder / "hip-called-chest.dcm", syntax="jpeg_lossless")
    lateral = write_dicom(other(seed, "lateral", size), folder / "lateral-called-chest.dcm", modality="CR")
    slice_ = write_dicom(chest(seed, size=size), folder / "ct.dcm", modality="CT")
    return [
        FieldFile(hand, None, RefusalReason.NOT_A_CHEST),
        FieldFile(hip, None, RefusalReason.NOT_FRONTAL_CHEST),
        FieldFile(lateral, None, RefusalReason.NOT_FRONTAL_CHEST),
        FieldFile(slice_, None, RefusalReason.NOT_A_RADIOGRAPH),
        FieldFile(_colour(folder / "colour.dcm", seed, size), None, RefusalReason.NOT_GRAYSCALE),
    ]


def _colour(path: Path, seed: int, size: int) -> Path:
    """A chest film that a screen grabber stored as RGB."""
    film = chest(seed, size=size)
    file = pydicom.dcmread(write_dicom(film, path))
    gray = (film.pixels >> np.uint16(film.bits_stored - 8)).astype(np.uint8)
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 8, 8, 7
    del file.PresentationLUTShape
    file.add_new("PixelData", "OB", np.repeat(gray[:, :, None], 3, axis=2).tobytes() + b"\0" * (gray.size % 2))
    file.save_as(path)
    return path


def _broken(folder: Path, seed: int, size: int) -> list[FieldFile]:
    """Files that are cut short, empty, or something else."""
    whole = write_dicom(chest(seed + 1, "covid", size), folder / "truncated.dcm")
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) * 6 // 10])
    empty, note = folder / "empty.dcm", folder / "note.txt"
    empty.write_bytes(b"")
    note.write_text("Unit 2 was down from 10:40 to 11:15.\n", encoding="utf-8")
    return [
        FieldFile(whole, None, RefusalReason.TRUNCATED),
        FieldFile(empty, None, RefusalReason.UNREADABLE),
        FieldFile(note, None, RefusalReason.UNREADABLE),
    ]
