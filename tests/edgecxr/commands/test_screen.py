"""`edgecxr screen` where another engine is being compiled: it is told of, and never waited for."""

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import Bundle
from edgecxr.commands.screen import write_pictures
from edgecxr.errors import EngineError
from edgecxr.phantom import chest, write_dicom
from edgecxr.report import write_report
from edgecxr.runtimes.compiler import Candidate
from edgecxr.runtimes.ort import OrtCpu
from edgecxr.runtimes.screener import Screener
from edgecxr.runtimes.tensorrt_api import Progress
from edgecxr.spec import ModelSpec

Run = Callable[..., Any]


def never_done(bundle: Bundle) -> Sequence[Candidate]:
    def never(progress: Progress) -> None:
        while progress("tactics", 3, 40):
            threading.Event().wait(0.01)
        raise EngineError("compiling was cancelled")

    return [Candidate(OrtCpu, "fp16", lambda: OrtCpu(bundle, "fp16"), never)]


def test_what_is_being_compiled_is_told_of_and_not_waited_for(
    run: Run, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(chest(1, size=128), tmp_path / "a.dcm")
    monkeypatch.setitem(Screener.__init__.__kwdefaults__, "successors", never_done)
    done = run("screen", "a.dcm", "--bundle", tiny_bundle)
    assert done.returncode == 0
    assert "onnxruntime fp16: compiling" in done.stderr
    assert "onnxruntime fp16: dropped (compiling was cancelled)" in done.stderr
    assert "1 film: " in done.stderr
    assert "; openvino-cpu int8, bundle " in done.stderr


def test_a_machine_that_reads_the_output_is_told_nothing_of_it(
    run: Run, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(chest(1, size=128), tmp_path / "a.dcm")
    monkeypatch.setitem(Screener.__init__.__kwdefaults__, "successors", never_done)
    done = run("screen", "a.dcm", "--bundle", tiny_bundle, "--json")
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--jsonl", "a.dcm", "b.dcm"],
            "a.dcm holds something else than results of this kind, and is not written over",
        ),
        (["--html", "a.dcm", "b.dcm"], "a.dcm holds something else than results"),
        (["b.dcm", "--jsonl", "b.dcm"], "b.dcm is one of the films to screen"),
        ([".", "--html", "./sub/../b.dcm"], "b.dcm is one of the films to screen"),
        ([".", "--jsonl", "link.jsonl"], "link.jsonl is one of the films to screen"),
        (["b.dcm", "--jsonl", "page.html"], "page.html holds something else than results"),
        (
            ["b.dcm", "--json", "--jsonl", "-"],
            "--json and --jsonl - both write to standard output; give --jsonl a file",
        ),
        (["b.dcm", "--jsonl", "new", "--html", "./sub/../new"], "new is named for two outputs, and the second would"),
        (["b.dcm", "--jsonl", "new", "--html", "dangling"], "dangling is named for two outputs"),
        (["b.dcm", "--html", "new", "--heatmaps", "new"], "new is named for two outputs"),
        ([".", "--heatmaps", "sub"], "sub holds films to screen, and a picture could take the place of one"),
    ],
)
def test_no_film_is_written_over(
    run: Run, tiny_bundle: Path, tmp_path: Path, arguments: Sequence[str], sentence: str
) -> None:
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(("a.dcm", "b.dcm", "sub/c.dcm"), start=1):
        write_dicom(chest(number, size=128), tmp_path / name)
    (tmp_path / "link.jsonl").symlink_to("a.dcm")
    (tmp_path / "dangling").symlink_to("new")
    (tmp_path / "page.html").write_text("<!DOCTYPE html>")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run("screen", *arguments, "--bundle", tiny_bundle)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert not (tmp_path / "new").exists()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(sys.platform != "linux", reason="its file names are bytes")
def test_a_name_that_is_no_text_stops_nothing(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    names = [b"R\xf6ntgen.dcm", b"two\nlines.dcm", b"z.dcm", b"z" * 240 + b".dcm"]
    for name in names:
        write_dicom(chest(1, size=128), tmp_path / "one.dcm")
        os.replace(tmp_path / "one.dcm", os.fsencode(folder) + b"/" + name)
    targets = ("--jsonl", "a.jsonl", "--html", "a.html", "--heatmaps", "maps")
    done = run("screen", "films", "--bundle", tiny_bundle, *targets)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(r"films/R\udcf6ntgen.dcm  ")
    assert done.stdout.splitlines()[2].startswith("films/z.dcm  ")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert sorted(os.fsencode(Path(row["file"]).name) for row in rows) == sorted(names)  # the very files
    assert r"R\udcf6ntgen.dcm" in (tmp_path / "a.html").read_text("utf-8")
    assert len(list((tmp_path / "maps").iterdir())) >= 4


def test_a_link_that_leads_to_itself_is_one_refused_film(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_dicom(chest(1, size=128), tmp_path / "films" / "a.dcm")
    (tmp_path / "films" / "self").symlink_to("self")
    done = run("screen", "films", "--bundle", tiny_bundle, "--jsonl", "a.jsonl", "--html", "a.html")
    assert done.returncode == 1
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert [(row["file"], row["status"]) for row in rows] == [("films/a.dcm", "ok"), ("films/self", "refused")]


@pytest.mark.parametrize("option", ["--jsonl", "--html", "--heatmaps"])
def test_a_target_that_leads_to_itself_is_misuse(run: Run, tiny_bundle: Path, tmp_path: Path, option: str) -> None:
    write_dicom(chest(1, size=128), tmp_path / "a.dcm")
    (tmp_path / "self").symlink_to("self")
    done = run("screen", "a.dcm", "--bundle", tiny_bundle, option, "self")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot write self: " in done.stderr


def test_a_finding_with_a_slash_in_its_name_has_a_picture(
    run: Run, tiny_bundle: Path, tiny_build: Any, tmp_path: Path
) -> None:
    told = tiny_build.spec.model_dump_json().replace('"covid"', '"Nodule/Mass"').replace('"pneumonia"', '"../b"')
    tiny_build.write(tmp_path / "slash.cxr", model=ModelSpec.model_validate_json(told))
    write_dicom(chest(1, size=128), tmp_path / "a.dcm")
    done = run("screen", "a.dcm", "--bundle", "slash.cxr", "--heatmaps", "maps")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert names
    assert names <= {"00001-a.Nodule_Mass.jpg", "00001-a..._b.jpg"}


def test_no_picture_is_of_another_film_than_was_decided(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A unit that writes each film to the same name may write the next one while the folder is screened."""
    for number, name in enumerate(("current.dcm", "kept.dcm", "gone.dcm")):
        write_dicom(chest(number, size=128), tmp_path / name)
    with Screener(tiny_bundle) as screener:
        results = list(screener.screen_folder(tmp_path))
        assert [result.status for result in results] == ["ok"] * 3
        write_dicom(chest(4, size=128), tmp_path / "next.dcm")
        os.replace(tmp_path / "next.dcm", tmp_path / "current.dcm")
        (tmp_path / "gone.dcm").unlink()
        write_pictures(screener, results, tmp_path / "maps")
        page = write_report(
            tmp_path / "page.html", title="t", screenings=results, manifest=screener.bundle.manifest
        ).read_text("utf-8")
        assert screener.screen(tmp_path / "current.dcm").stamp not in (None, results[0].stamp)
    assert {path.name.partition(".")[0] for path in (tmp_path / "maps").iterdir()} == {"00003-kept"}
    said = capsys.readouterr().err
    assert said.count("the file is gone, or not as it was when it was screened") == 2
    assert f"no picture of {tmp_path / 'current.dcm'}: " in said
    assert page.count("No picture: the file is gone, or not as it was when it was screened.") == 2
    assert 'alt="film kept.dcm"' in page
    assert 'alt="film current.dcm"' not in page


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_page_takes_the_place_of_no_pipe_and_of_no_link(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    write_dicom(chest(1, size=128), tmp_path / "a.dcm")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("page")
    done = run("screen", "a.dcm", "--bundle", tiny_bundle, "--html", "pipe")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pipe is no file but a device, a pipe or a socket, and is not replaced by one; name a file" in done.stderr
    assert (tmp_path / "pipe").is_fifo()
    for _ in range(2):
        assert run("screen", "a.dcm", "--bundle", tiny_bundle, "--html", "link").returncode == 0
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "page").read_text("utf-8").startswith("<!doctype html>")


def test_earlier_results_are_written_over(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_dicom(chest(1, size=128), tmp_path / "films" / "a.dcm")
    targets = ("--jsonl", "a.jsonl", "--html", "a.html", "--heatmaps", "maps")
    for _ in range(2):
        assert run("screen", "films", "--bundle", tiny_bundle, *targets).returncode == 0
        assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1
