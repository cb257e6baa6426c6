"""`edgecxr calibrate`: thresholds that the site's own films give, for every engine and precision, and nothing stale."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import Bundle
from edgecxr.dataset import load_dataset
from edgecxr.phantom import other, write_dicom
from edgecxr.phantom.opacity import FINDINGS

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def films(tiny_build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films that the tiny model was fitted to: it knows no others well enough for a threshold."""
    folder = tmp_path_factory.mktemp("site")
    rows = ["file,patient,fold,label"]
    for number, film in enumerate(tiny_build.films):
        finding = FINDINGS[number % len(FINDINGS)]
        write_dicom(film, folder / f"{finding}-{number}.dcm")
        rows.append(f"{finding}-{number}.dcm,p{number},{number % 5},{finding}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_every_engine_and_precision_gets_thresholds_of_the_site(
    run: Run, tiny_bundle: Path, films: Path, tmp_path: Path
) -> None:
    done = run("calibrate", tiny_bundle, "--data", films, "--sensitivity", "0.8", "--out", "ours.cxr", "--json")
    assert done.returncode in (0, 1), done.stderr  # 1: the gate refuses some
    told = json.loads(done.stdout)
    before, after = Bundle.open(tiny_bundle), Bundle.open(tmp_path / "ours.cxr")
    after.verify()
    assert told["digest"] == after.digest != before.digest
    chosen = {(p.finding, p.precision, p.engine) for p in after.spec.operating_points if p.name == "screening"}
    assert chosen == {
        (finding, precision, engine)
        for finding in before.spec.findings
        for precision in before.precisions
        for engine in ("openvino-cpu", "onnxruntime-cpu")
    }
    assert all("of the site" in point.rule for point in after.spec.operating_points)
    assert all(point.sensitivity >= 0.8 for point in after.spec.operating_points)
    site = after.manifest.provenance["site"]["screening"]
    assert site["bundle_before"] == before.digest
    assert site["films"] == 72
    assert site["warnings"][0].startswith("cannot tell whether these films taught the bundle")
    for precision in before.precisions:
        assert after.model(precision) == before.model(precision)
    assert "## Thresholds of a site" in after.card()
    assert "cannot tell whether these films taught the bundle" in done.stderr
    shown = run("inspect", "ours.cxr").stdout
    assert "screening: sensitivity >= 0.8, set on 72 films of a site, " in shown
    assert f"refused, from bundle {before.digest[:12]}; warning: cannot tell" in shown
    assert "(of a site's: its own films), on which the thresholds were set" in shown
    assert "of a site" not in run("inspect", tiny_bundle).stdout


def test_the_new_thresholds_decide(run: Run, tiny_bundle: Path, films: Path, tmp_path: Path) -> None:
    done = run("calibrate", tiny_bundle, "--data", films, "--sensitivity", "0.8", "--out", "ours.cxr", "--json")
    assert done.returncode in (0, 1), done.stderr  # 1: the gate refuses some
    wanted = {
        (p.finding): p.threshold
        for p in Bundle.open(tmp_path / "ours.cxr").spec.operating_points
        if (p.precision, p.engine) == ("fp32", "onnxruntime-cpu")
    }
    choice = ("--engine", "onnxruntime", "--precision", "fp32")
    screened = run("screen", films, "--bundle", "ours.cxr", *choice, "--jsonl", "-")
    rows = [json.loads(line) for line in screened.stdout.splitlines()]
    decided = [row for row in rows if row["status"] == "ok"]
    for row in decided:
        assert {item["name"]: item["threshold"] for item in row["findings"]} == wanted
    for finding in wanted:
        own = [row for row in decided if Path(row["file"]).name.startswith(finding)]
        found = sum(
            item["decision"] == "positive" for row in own for item in row["findings"] if item["name"] == finding
        )
        assert found >= 0.8 * len(own)


def test_a_new_point_stands_beside_the_others(run: Run, tiny_bundle: Path, films: Path, tmp_path: Path) -> None:
    chosen = ("--point", "ruling-out", "--sensitivity", "0.75", "--engine", "onnxruntime")
    done = run("calibrate", tiny_bundle, "--data", films, *chosen, "--out", "ours.cxr")
    assert done.returncode in (0, 1), done.stderr  # 1: the gate refuses some
    before, after = Bundle.open(tiny_bundle), Bundle.open(tmp_path / "ours.cxr")
    new = [point for point in after.spec.operating_points if point.name == "ruling-out"]
    assert {point.engine for point in new} == {"onnxruntime-cpu"}
    assert after.spec.operating_points == (*before.spec.operating_points, *new)  # the point to decide by stays
    assert "not signed: edgecxr sign" in done.stdout
    screened = run("screen", films, "--bundle", "ours.cxr", "--engine", "openvino", "--point", "ruling-out")
    assert screened.returncode == 3
    assert "no 'ruling-out' threshold of covid, pneumonia" in screened.stderr


def test_two_points_that_change_places_are_told_of(run: Run, tiny_bundle: Path, films: Path, tmp_path: Path) -> None:
    before, told = tiny_bundle, []
    for number, chosen in enumerate((("wide", "--sensitivity"), ("close", "--specificity"), ("wide", "--specificity"))):
        share = "0.8" if number < 2 else "0.6"
        place = ("--point", chosen[0], chosen[1], share, "--engine", "onnxruntime", "--out", f"{number}.cxr", "--json")
        done = run("calibrate", before, "--data", films, *place)
        assert done.returncode in (0, 1), done.stderr  # 1: the gate refuses some
        before = tmp_path / f"{number}.cxr"
        told.append([line for line in json.loads(done.stdout)["site"]["warnings"] if "lies above" in line])
    assert told[:2] == [[], []]
    assert told[2]
    assert all("now, and was below it before (" in line and f"warning: {line}" in done.stderr for line in told[2])
    site = Bundle.open(before).manifest.provenance["site"]["wide"]
    assert [line for line in site["warnings"] if "lies above" in line] == told[2]


def test_an_engine_that_was_not_calibrated_has_no_threshold_left(
    run: Run, tiny_bundle: Path, films: Path, tmp_path: Path
) -> None:
    """Twice, so that the first site's thresholds of the other engine go as those of the build did."""
    for engine, left, name in (("onnxruntime", "openvino", "one.cxr"), ("openvino", "onnxruntime", "two.cxr")):
        before = tiny_bundle if name == "one.cxr" else tmp_path / "one.cxr"
        chosen = ("--sensitivity", "0.8", "--engine", engine)
        assert run("calibrate", before, "--data", films, *chosen, "--out", name).returncode in (0, 1)
        screened = run("screen", films, "--bundle", name, "--engine", left)
        assert screened.returncode == 3
        assert "no 'screening' threshold of covid, pneumonia" in screened.stderr
        card = Bundle.open(tmp_path / name).card()
        assert card.count("## Thresholds of a site") == 1
        assert f"{left}-cpu" not in card.partition("## Thresholds of a site")[2]


def test_films_that_the_bundle_refuses_take_no_part_and_are_told(
    run: Run, tiny_bundle: Path, films: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(films, folder)
    for number in range(4):
        write_dicom(other(number, "checkerboard"), folder / f"board{number}.dcm")
    rows = "".join(f"board{number}.dcm,board{number},0,covid\n" for number in range(4))
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text() + rows)
    chosen = ("--sensitivity", "0.8", "--engine", "onnxruntime")
    plain = run("calibrate", tiny_bundle, "--data", films, *chosen, "--out", "plain.cxr", "--json")
    mixed = run("calibrate", tiny_bundle, "--data", folder, *chosen, "--out", "mixed.cxr", "--json")
    assert mixed.returncode == 1
    wanted, told = (json.loads(done.stdout) for done in (plain, mixed))
    for precision in ("fp32", "fp16", "int8"):
        key = f"{precision} onnxruntime-cpu"
        assert told["site"]["refused"][key] == wanted["site"]["refused"][key] + 4
    assert [row["threshold"] for row in told["points"]] == [row["threshold"] for row in wanted["points"]]
    assert [row["rule"] for row in told["points"]] == [row["rule"] for row in wanted["points"]]


def test_the_films_that_taught_the_bundle_set_no_threshold(
    run: Run, tiny_build: Any, films: Path, tmp_path: Path
) -> None:
    origin = {
        "data_digest": load_dataset(films).digest,
        "recipe_text": "data: {folds: {train: [0, 1], validate: [2], test: [3, 4]}}",
    }
    own = tiny_build.write(tmp_path / "own.cxr", provenance=origin)
    done = run("calibrate", own, "--data", films, "--sensitivity", "0.8", "--out", "ours.cxr")
    assert done.returncode == 2
    assert "fold 0, 1 of these films taught the bundle" in done.stderr
    assert not (tmp_path / "ours.cxr").exists()
    done = run("calibrate", own, "--data", films, "--folds", "2,3,4", "--specificity", "0.7", "--out", "ours.cxr")
    assert "fold 2 served to validate this bundle" in done.stderr
    earlier = {"recipe_text": "{data: {folds: {train: [0], validate: [2], test: [3, 4]}}, pretrain: {folds: [0, 1]}}"}
    own = tiny_build.write(tmp_path / "two.cxr", provenance=origin | earlier)
    done = run("calibrate", own, "--data", films, "--folds", "1,2,3", "--specificity", "0.7", "--out", "two-ours.cxr")
    assert "fold 1 of these films taught the bundle" in done.stderr
    assert not (tmp_path / "two-ours.cxr").exists()


def test_labels_that_are_swapped_give_no_threshold(run: Run, tiny_bundle: Path, films: Path, tmp_path: Path) -> None:
    folder = tmp_path / "swapped"
    shutil.copytree(films, folder)
    table = (folder / "labels.csv").read_text()
    turned = dict(zip(FINDINGS, FINDINGS[1:] + FINDINGS[:1], strict=True))
    swapped = re.sub(r",(\w+)$", lambda found: f",{turned.get(found[1], found[1])}", table, flags=re.MULTILINE)
    (folder / "labels.csv").write_text(swapped)
    done = run("calibrate", tiny_bundle, "--data", folder, "--specificity", "0.5", "--out", "ours.cxr")
    assert done.returncode == 2
    assert re.search(r"specificity >= 0.5 .* no better than chance; look whether the labels are", done.stderr)
    assert not (tmp_path / "ours.cxr").exists()


def test_the_signature_goes_and_the_films_are_known_again(
    run: Run, tiny_build: Any, films: Path, tmp_path: Path
) -> None:
    signed = tiny_build.write(tmp_path / "signed.cxr")
    assert run("keygen", "hospital").returncode == 0
    assert run("sign", signed, "--key", "hospital.key").returncode == 0
    run("calibrate", signed, "--data", films, "--sensitivity", "0.8", "--out", "ours.cxr")
    assert Bundle.open(signed).signature is not None
    assert Bundle.open(tmp_path / "ours.cxr").signature is None
    assert run("verify", "ours.cxr", "--trusted", "hospital.pub").returncode == 2
    done = run("evaluate", "ours.cxr", "--data", films, "--html", "page.html")
    seen = "a site set the thresholds of the bundle on exactly these films"
    assert seen in done.stderr
    page = (tmp_path / "page.html").read_text("utf-8")
    assert seen in page
    assert "those of screening excepted: a site set these on films of its own" in page


def test_too_few_films_say_nothing_about_a_share(run: Run, tiny_bundle: Path, films: Path, tmp_path: Path) -> None:
    done = run("calibrate", tiny_bundle, "--data", films, "--sensitivity", "0.98", "--out", "ours.cxr")
    assert done.returncode == 2
    assert re.search(
        r"covid: 2\d positive and 4\d negative films; sensitivity >= 0.98 wants at least 50 positive", done.stderr
    )
    assert not (tmp_path / "ours.cxr").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "got no target; give exactly one of --sensitivity and --specificity"),
        (["--sensitivity", "0.9", "--specificity", "0.9"], "got sensitivity and specificity; give exactly one"),
        (["--sensitivity", "1"], "--sensitivity is 1; wanted a share between 0 and 1"),
        (["--sensitivity", "0.8", "--engine", "abacus"], "unknown engine 'abacus'"),
    ],
)
def test_a_wrong_choice_is_a_sentence(
    run: Run, tiny_bundle: Path, films: Path, arguments: list[str], words: str
) -> None:
    done = run("calibrate", tiny_bundle, "--data", films, "--out", "ours.cxr", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_nothing_but_a_bundle_is_written_over(run: Run, tiny_bundle: Path, films: Path, tmp_path: Path) -> None:
    chosen = ("--data", films, "--sensitivity", "0.8")
    done = run("calibrate", tiny_bundle, *chosen, "--out", tiny_bundle)
    assert done.returncode == 2
    assert "is the bundle that was given, and stays as it is" in done.stderr
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.writestr("film.dcm", b"a film")
    for place in (films / "labels.csv", tmp_path / "films.zip"):
        done = run("calibrate", tiny_bundle, *chosen, "--out", place)
        assert done.returncode == 2
        assert "holds something else than a bundle, and is not written over" in done.stderr
    done = run("calibrate", tiny_bundle, *chosen, "--out", films)
    assert done.returncode == 2
    assert "is a folder; name the file to write" in done.stderr
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "self").symlink_to("self")
    for name, words in (("pipe", "pipe is no file but a device, a pipe or a socket"), ("self", "cannot write self: ")):
        done = run("calibrate", tiny_bundle, *chosen, "--out", name)
        assert done.returncode == 2
        assert words in done.stderr
