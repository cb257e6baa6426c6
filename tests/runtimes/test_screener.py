"""The screener: films in, decisions or refusals out, in order, whatever lies between them."""

import csv
import itertools
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecxr import kernels
from edgecxr.bundle import Bundle
from edgecxr.errors import BundleError, EngineError, RefusalReason
from edgecxr.export.pack import verify
from edgecxr.phantom import FINDINGS, chest, other, write_dicom
from edgecxr.radiograph import Radiograph
from edgecxr.read import find_files, read_radiograph
from edgecxr.runtimes.screener import Screener
from edgecxr.scores import probabilities
from edgecxr.spec import ReadingSpec


@pytest.fixture(scope="module")
def screener(tiny_bundle: Path) -> Iterator[Screener]:
    with Screener(tiny_bundle, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five films and five files that cannot be screened, in two folders."""
    top = tmp_path_factory.mktemp("films")
    (top / "ward").mkdir()
    for index, finding in enumerate(("normal", "covid", "pneumonia", "normal", "covid")):
        place = top / "ward" if index % 2 else top
        write_dicom(chest(index, finding, size=128), place / f"{index}.dcm")
    whole = (top / "0.dcm").read_bytes()
    (top / "5-cut.dcm").write_bytes(whole[: len(whole) // 2])
    (top / "6-text.dcm").write_text("not a film")
    (top / "7-empty.dcm").write_bytes(b"")
    write_dicom(Radiograph(np.full((128, 128), 5, np.uint16), 12), top / "8-flat.dcm")
    write_dicom(other(1, "checkerboard", size=128), top / "9-board.dcm")
    return top


def test_the_decision_is_the_threshold_on_the_calibrated_score(screener: Screener, tiny_build: Any) -> None:
    for film in tiny_build.films[:4]:
        screening = screener.screen(film)
        output = screener.engine.run([film])[0]
        scores = probabilities(output.logits, tiny_build.spec.heads, (1.0,))
        points = {point.finding: point for point in tiny_build.spec.operating_points if point.precision == "int8"}
        assert screening.status == "ok"
        assert [finding.name for finding in screening.findings] == ["covid", "pneumonia"]
        for finding in screening.findings:
            assert finding.probability == pytest.approx(scores[FINDINGS.index(finding.name)], abs=1e-6)
            assert finding.threshold == points[finding.name].threshold
            assert finding.decision == ("positive" if finding.probability >= finding.threshold else "negative")
        np.testing.assert_allclose(screening.cam, output.cam, atol=1e-5)


def test_the_result_says_where_it_comes_from(screener: Screener, tiny_bundle: Path) -> None:
    screening = screener.screen(replace(chest(0, size=128), notes=("two photometric interpretations",)))
    assert (screening.engine, screening.precision) == ("openvino-cpu", "int8")
    assert screening.kernel == kernels.active()
    assert screening.bundle == Bundle.open(tiny_bundle).digest
    assert screening.notes == ("two photometric interpretations",)
    assert screening.file == "phantom normal 0"


def test_a_file_and_its_radiograph_give_the_same_result(screener: Screener, folder: Path) -> None:
    from_file = screener.screen(folder / "0.dcm")
    assert from_file.file == str(folder / "0.dcm")
    assert from_file.findings == screener.screen(chest(0, "normal", size=128)).findings
    assert all(isinstance(spent, float) and spent > 0 for spent in from_file.milliseconds.values())


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        (Radiograph(np.full((99, 90), 1000, np.uint16), 12), RefusalReason.NO_CONTRAST),
        (Radiograph(chest(0, "covid", size=128).pixels[::16, ::16].copy(), 12), RefusalReason.TOO_SMALL),
        (other(0, "checkerboard", size=128), RefusalReason.NOT_FRONTAL_CHEST),
        (other(0, "noise", size=128), RefusalReason.NOT_FRONTAL_CHEST),
    ],
)
def test_a_film_that_cannot_be_judged_has_a_reason_and_no_score(
    film: Radiograph, reason: RefusalReason, screener: Screener
) -> None:
    screening = screener.screen(film)
    assert (screening.status, screening.reason) == ("refused", reason)
    assert screening.findings == ()
    assert screening.cam is None
    assert screening.detail


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_folder_goes_on_past_bad_files_in_order(workers: int, screener: Screener, folder: Path) -> None:
    screenings = list(screener.screen_folder(folder, workers=workers))
    names = [Path(screening.file).name for screening in screenings]
    assert [screening.file for screening in screenings] == [s.file for s in screener.screen_folder([folder])]
    assert sorted(names) == sorted(path.name for path in folder.rglob("*.dcm"))
    reasons = {Path(s.file).name: s.reason.value for s in screenings if s.reason is not None}
    assert reasons == {
        "5-cut.dcm": "truncated",
        "6-text.dcm": "unreadable",
        "7-empty.dcm": "unreadable",
        "8-flat.dcm": "no_contrast",
        "9-board.dcm": "not_frontal_chest",
    }
    for screening in screenings:
        told = json.loads(json.dumps(screening.to_json(), allow_nan=False))
        assert bool(told["findings"]) == (told["status"] == "ok")


def test_a_folder_gives_what_single_films_give(screener: Screener, folder: Path) -> None:
    for screening in screener.screen_folder(folder, workers=2):
        alone = screener.screen(screening.file)
        assert (alone.status, alone.findings, alone.reason) == (screening.status, screening.findings, screening.reason)


def test_reading_runs_only_a_little_ahead(screener: Screener, tmp_path: Path) -> None:
    write_dicom(chest(0, size=64), tmp_path / "0.dcm")
    for index in range(1, 30):
        shutil.copy(tmp_path / "0.dcm", tmp_path / f"{index}.dcm")
    taken: list[Path] = []
    counted = (taken.append(path) or path for path in sorted(tmp_path.iterdir()))  # type: ignore[func-returns-value]
    results = screener.screen_files(counted, workers=2)
    next(results)
    assert len(taken) <= 4  # two workers and two films that wait
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgecxr-read")]


def test_a_fault_of_our_own_in_one_film_is_recorded_and_the_folder_goes_on(
    screener: Screener, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = screener.engine.run

    def faulty(frames: Any) -> Any:
        if next(calls) == 1:
            raise IndexError("a slip in the code")
        return real(frames)

    calls = itertools.count()
    monkeypatch.setattr(screener.engine, "run", faulty)
    with caplog.at_level(logging.ERROR, logger="edgecxr"):
        screenings = list(screener.screen_folder(folder))
    broken = [screening for screening in screenings if screening.detail.startswith("internal error")]
    assert [(s.status, s.reason, s.detail) for s in broken] == [
        ("refused", RefusalReason.UNREADABLE, "internal error: IndexError: a slip in the code")
    ]
    assert sum(screening.status == "ok" for screening in screenings) == 4
    assert "Traceback" in caplog.text


def test_an_engine_at_fault_stops_everything(tiny_bundle: Path, folder: Path) -> None:
    screener = Screener(tiny_bundle)
    results = screener.screen_folder(folder)
    next(results)
    screener.close()
    with pytest.raises(EngineError, match="this engine is closed"):
        list(results)


def test_threads_may_share_a_screener(screener: Screener, tiny_build: Any) -> None:
    films = tiny_build.films[:6]
    alone = [screener.screen(film).findings for film in films]
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(lambda film: screener.screen(film).findings, films * 2))
    assert shared == alone * 2


def test_a_bundle_without_thresholds_does_not_open(tiny_build: Any, tmp_path: Path) -> None:
    spec = tiny_build.spec.model_copy(update={"operating_points": ()})
    path = tiny_build.write(tmp_path / "bare.cxr", model=spec)
    with pytest.raises(EngineError, match="tiny has no operating point: nothing can be decided"):
        Screener(path)


def test_the_point_is_the_first_of_the_bundle_unless_named(tiny_build: Any, tmp_path: Path) -> None:
    points = tiny_build.spec.operating_points
    early = tuple(point.model_copy(update={"name": "early"}) for point in points)
    late = tuple(point.model_copy(update={"name": "late", "threshold": 1.0}) for point in points)
    spec = tiny_build.spec.model_copy(update={"operating_points": early + late})
    path = tiny_build.write(tmp_path / "renamed.cxr", model=spec)
    with Screener(path) as first, Screener(path, point="late") as second:
        assert (first.point, second.point) == ("early", "late")
        assert first.screen(tiny_build.films[0]).findings[0].threshold < 1
        assert {item.threshold for item in second.screen(tiny_build.films[0]).findings} == {1.0}
    with pytest.raises(EngineError, match="unknown operating point 'screening'; the bundle has early, late"):
        Screener(path, point="screening")
    assert verify(path)[1].endswith("reproduces the golden set")


def test_a_link_to_the_parent_is_not_entered(screener: Screener, tmp_path: Path) -> None:
    write_dicom(chest(0, size=128), tmp_path / "0.dcm")
    (tmp_path / "back").symlink_to(tmp_path, target_is_directory=True)
    files = list(find_files([tmp_path]))
    for results in (screener.screen_folder(tmp_path), screener.screen_files(files)):
        told = [(Path(result.file).name, result.status) for result in results]
        assert told == [("0.dcm", "ok"), ("back", "refused")]


def test_a_model_of_nan_does_not_open(tiny_module: ModuleType, tiny_build: Any, tmp_path: Path) -> None:
    weights = {**tiny_build.weights, "bias": np.full(3, np.nan, np.float32)}
    path = tiny_build.write(
        tmp_path / "nan.cxr",
        models={"fp32": tiny_module.float_model(weights)},
        gates={"fp32": tiny_build.gates["fp32"]},
    )
    with pytest.raises(EngineError, match=r"(?s)openvino fp32: .*NaN or infinite.*onnxruntime fp32: .*NaN or infinite"):
        Screener(path)


def test_what_is_not_a_bundle_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "x.cxr"
    path.write_bytes(b"x")
    with pytest.raises(BundleError, match=r"x\.cxr: not a whole bundle"):
        Screener(path)


def test_a_negative_number_of_workers_is_refused(screener: Screener, folder: Path) -> None:
    with pytest.raises(ValueError, match="workers is -1; wanted 0"):
        screener.screen_folder(folder, workers=-1)


def test_a_film_is_read_as_the_bundle_declares_and_the_result_says_so(tiny_build: Any, tmp_path: Path) -> None:
    film = write_dicom(chest(3, "covid", size=256), tmp_path / "film.dcm", syntax="jpeg2000")
    results = {}
    for how in ("full", "reduced"):
        model = tiny_build.spec.model_copy(update={"reading": ReadingSpec(jpeg2000=how)})
        with Screener(tiny_build.write(tmp_path / f"{how}.cxr", model=model), threads=1) as opened:
            results[how] = opened.screen(film).to_json()
            assert next(opened.screen_folder([film])).to_json()["findings"] == results[how]["findings"]
    told = "JPEG 2000 was decoded at 1/2 of its resolution, as the model declares: 128 x 128 of 256 x 256 pixels"
    assert (results["full"]["notes"], results["reduced"]["notes"]) == ([], [told])
    assert results["full"]["status"] == results["reduced"]["status"] == "ok"
    for one, less in zip(results["full"]["findings"], results["reduced"]["findings"], strict=True):
        assert one["decision"] == less["decision"]
        assert 0 < abs(one["probability"] - less["probability"]) < 0.1


def grown(film: Radiograph) -> Radiograph:
    """The film with four times the pixels along each side, 12 bits and the grain of a detector."""
    image = Image.fromarray(film.pixels.astype(np.float32) * (16 if film.bits_stored == 8 else 1))
    large = np.asarray(image.resize((4 * image.width, 4 * image.height), Image.Resampling.BICUBIC))
    grain = np.random.default_rng(0).standard_normal(large.shape, dtype=np.float32) * 16
    return replace(film, pixels=np.clip(large + grain, 0, 4095).astype(np.uint16), bits_stored=12)


@pytest.mark.shared_data
def test_real_films_are_decided_alike_from_a_quarter_of_their_resolution(shared_films: Path, tmp_path: Path) -> None:
    with open(shared_films / "labels.csv", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["fold"] == "4"]
    chosen = [row["file"] for label in FINDINGS for row in [row for row in rows if row["label"] == label][:2]]
    with Screener(threads=1) as opened:
        for name in chosen:
            film = write_dicom(grown(read_radiograph(shared_films / name)), tmp_path / "film.dcm", syntax="jpeg2000")
            coarse = read_radiograph(film, reduced_for=opened.bundle.spec.preprocess)
            assert "decoded at 1/4 of its resolution" in coarse.notes[0]
            full, reduced = opened.screen(read_radiograph(film)), opened.screen(coarse)
            assert (full.status, full.reason) == (reduced.status, reduced.reason)
            for one, less in zip(full.findings, reduced.findings, strict=True):
                assert one.decision == less.decision
                assert abs(one.probability - less.probability) < 0.05
