"""`edgecxr calibrate`: thresholds that the site's own films give, for every engine and precision, and nothing stale."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import Bundle
from edgecxr.phantom import write_dataset

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("site"), 14, seed=5, size=128)


def test_every_engine_and_precision_gets_thresholds_of_the_site(
    run: Run, tiny_bundle: Path, films: Path, tmp_path: Path
) -> None:
    done = run("calibrate", tiny_bundle, "--data", films, "--sensitivity", "0.8", "--out", "ours.cxr", "--json")
    assert done.returncode == 0, done.stderr
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
    site = after.manifest.provenance["site"]
    assert site["bundle_before"] == before.digest
    assert site["films"] == 42
    for precision in before.precisions:
        assert after.model(precision) == before.model(precision)
    assert "## Thresholds of a site" in after.card()
    assert "cannot tell whether these films taught the bundle" in done.stderr
    shown = run("inspect", "ours.cxr").stdout
    assert f"sensitivity >= 0.8, set on 42 films of a site, from bundle {before.digest[:12]}" in shown
    assert "(of a site's: its own films), on which the thresholds were set" in shown
    assert "of a site" not in run("inspect", tiny_bundle).stdout


def test_the_new_thresholds_decide(run: Run, tiny_bundle: Path, films: Path, tmp_path: Path) -> None:
    done = run("calibrate", tiny_bundle, "--data", films, "--sensitivity", "0.8", "--out", "ours.cxr", "--json")
    assert done.returncode == 0, done.stderr
    wanted = {
        (p.finding): p.threshold
        for p in Bundle.open(tmp_path / "ours.cxr").spec.operating_points
        if (p.precision, p.engine) == ("fp32", "onnxruntime-cpu")
    }
    choice = ("--engine", "onnxruntime", "--precision", "fp32")
    screened = run("screen", films / "images", "--bundle", "ours.cxr", *choice, "--jsonl", "-")
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
    chosen = ("--point", "ruling-out", "--specificity", "0.75", "--engine", "onnxruntime")
    done = run("calibrate", tiny_bundle, "--data", films, *chosen, "--out", "ours.cxr")
    assert done.returncode == 0, done.stderr
    before, after = Bundle.open(tiny_bundle), Bundle.open(tmp_path / "ours.cxr")
    new = [point for point in after.spec.operating_points if point.name == "ruling-out"]
    assert {point.engine for point in new} == {"onnxruntime-cpu"}
    assert set(after.spec.operating_points) - set(new) == set(before.spec.operating_points)
    assert "not signed: edgecxr sign" in done.stdout
    screened = run("screen", films / "images", "--bundle", "ours.cxr", "--engine", "openvino", "--point", "ruling-out")
    assert screened.returncode == 3
    assert "no 'ruling-out' threshold of covid, pneumonia" in screened.stderr


def test_too_few_films_say_nothing_about_a_share(run: Run, tiny_bundle: Path, films: Path, tmp_path: Path) -> None:
    done = run("calibrate", tiny_bundle, "--data", films, "--sensitivity", "0.98", "--out", "ours.cxr")
    assert done.returncode == 2
    assert re.search(
        r"covid: 1\d positive and 2\d negative films; sensitivity >= 0.98 wants at least 50 positive", done.stderr
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


def test_neither_the_bundle_nor_a_film_is_written_over(run: Run, tiny_bundle: Path, films: Path) -> None:
    chosen = ("--data", films, "--sensitivity", "0.8")
    done = run("calibrate", tiny_bundle, *chosen, "--out", tiny_bundle)
    assert done.returncode == 2
    assert "is the bundle that was given, and stays as it is" in done.stderr
    done = run("calibrate", tiny_bundle, *chosen, "--out", films / "labels.csv")
    assert done.returncode == 2
    assert "is not written over; name another file" in done.stderr
