"""Two small data sets of phantoms, laid out differently, that share films."""

import csv
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from edgecxr.phantom import chest, write_dicom

FINDINGS = ("covid", "normal", "pneumonia")
MAPPING = """
labels: [covid, normal, pneumonia]
columns: [Effusion, Edema]
folds: 2
sources:
  - name: hospital
    folder: hospital
    layout: table
    table: films.csv
    file: name
    patient: who
    label: findings
    separator: "|"
    below: films
    suffix: .png
    labels: {COVID-19: covid, No Finding: normal, Pneumonia: pneumonia, Effusion: Effusion, Rotated: leave out}
  - name: web
    folder: web
    layout: folders
    patient: each film
    labels: {Corona: covid, Healthy: normal}
"""

OTHER = """  - name: other
    folder: web
    layout: table
    table: t.csv
    file: f
    patient: p
    label: l
    labels: {COVID-19: covid, Mass: leave out, Scar: ignore, Both: [covid, normal]}
"""


def squeezed(seed: int, finding: str) -> bytes:
    """The film as a web collection has it: 8 bits, a narrower window, square though it was not, JPEG."""
    pixels = chest(seed, finding, 192).pixels.astype(np.float64)
    low, high = np.percentile(pixels, (1, 99))
    gray = np.clip((pixels - low) / (high - low), 0, 1)[::2, ::2] ** 0.8
    return imagecodecs.jpeg8_encode(np.ascontiguousarray(np.rint(gray * 255).astype(np.uint8)), level=85)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sets` is a copy of."""
    folder = tmp_path_factory.mktemp("sets")
    _draw(folder)
    return folder


@pytest.fixture
def sets(drawn: Path, tmp_path: Path) -> Path:
    """Folder with `hospital` (12 films of 6 patients and two rows to leave out), `web` (5 films) and map.yaml.

    web/Corona/again.jpg is hospital film 0 (of patient p0), web/Corona/wrong.jpg is film 1, a normal one (of p0 too).
    """
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def other(sets: Path) -> Path:
    """`sets` with a table t.csv over web, the source `other` of map.yaml in place of `web`.

    Its patient x has Corona/new.jpg, which is kept, and Corona/again.jpg, the hospital's film 0, which is left out.
    """
    text = (sets / "map.yaml").read_text()
    (sets / "map.yaml").write_text(text[: text.index("  - name: web")] + OTHER)
    (sets / "web" / "t.csv").write_text("f,p,l\nCorona/new.jpg,x,COVID-19\nCorona/again.jpg,x,Mass\n")
    return sets


def _draw(folder: Path) -> None:
    names = {"covid": "COVID-19", "normal": "No Finding", "pneumonia": "Pneumonia|Effusion"}
    films = folder / "hospital" / "films"
    films.mkdir(parents=True)
    rows = [("name", "who", "findings", "fold")]
    for number in range(14):
        film = chest(number, FINDINGS[number % 3], 192)
        (films / f"{number}.png").write_bytes(imagecodecs.png_encode(film.pixels << np.uint16(16 - film.bits_stored)))
        label = "Rotated" if number == 12 else "Effusion|Rotated" if number == 13 else names[FINDINGS[number % 3]]
        rows.append((str(number), f"p{number // 2}", label, str(number // 2 % 2)))
    with open(folder / "hospital" / "films.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    web = folder / "web"
    for name in ("Corona", "Healthy"):
        (web / name).mkdir(parents=True)
    (web / "Corona" / "again.jpg").write_bytes(squeezed(0, "covid"))
    (web / "Corona" / "wrong.jpg").write_bytes(squeezed(1, "normal"))
    (web / "Corona" / "new.jpg").write_bytes(squeezed(50, "covid"))
    write_dicom(chest(51, "normal", 192), web / "Healthy" / "51.dcm", monochrome1=True)
    (web / "Healthy" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "map.yaml").write_text(MAPPING)
