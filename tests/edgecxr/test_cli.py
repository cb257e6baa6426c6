"""The command line as a user meets it, a process of its own: exit codes, streams, and the lines that machines read."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecxr.commands.screen import ending
from edgecxr.errors import RefusalReason
from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.screening import Screening

Run = Callable[..., subprocess.CompletedProcess[str]]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run("screen", …)``: the command in an empty folder, its streams as text."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgecxr", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    return call


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good films and one that is cut short."""
    folder = tmp_path_factory.mktemp("films")
    write_dicom(chest(1, "normal", 256), folder / "a.dcm")
    write_dicom(chest(2, "covid", 256), folder / "b.dcm", monochrome1=True)
    data = (folder / "a.dcm").read_bytes()
    (folder / "c.dcm").write_bytes(data[: len(data) // 2])
    return folder


def test_help_loads_no_heavy_library() -> None:
    heavy = ("torch", "onnx", "openvino", "scipy", "pydicom", "matplotlib")
    code = f"import sys, edgecxr.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_screen_writes_one_object_per_film_and_ends_with_1(run: Run, films: Path, tiny_bundle: Path) -> None:
    done = run("screen", films, "--bundle", tiny_bundle, "--jsonl", "-")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [Path(row["file"]).name for row in rows] == ["a.dcm", "b.dcm", "c.dcm"]
    assert [row["status"] for row in rows] == ["ok", "ok", "refused"]
    keys = {
        "file",
        "status",
        "reason",
        "detail",
        "findings",
        "engine",
        "precision",
        "kernel",
        "bundle",
        "milliseconds",
        "notes",
    }
    assert all(set(row) == keys for row in rows)
    assert set(rows[0]["findings"][0]) == {"name", "probability", "threshold", "decision"}
    assert set(rows[0]["milliseconds"]) == {"read", "preprocess", "infer"}
    assert rows[2]["reason"] == "truncated"
    assert rows[2]["findings"] == []


def test_screen_of_good_films_ends_with_0_and_reads_for_a_person(run: Run, films: Path, tiny_bundle: Path) -> None:
    done = run("screen", films / "a.dcm", films / "b.dcm", "--bundle", tiny_bundle)
    assert done.returncode == 0
    assert "a.dcm" in done.stdout
    assert "2 films" in done.stderr
    assert "Research use only" in done.stderr


def test_screen_json_is_one_document(run: Run, films: Path, tiny_bundle: Path) -> None:
    done = run("screen", films, "--bundle", tiny_bundle, "--json", "--precision", "fp32", "--engine", "onnxruntime")
    told = json.loads(done.stdout)
    assert (told["films"], told["decided"], told["refused"]) == (3, 2, 1)
    assert {(row["engine"], row["precision"]) for row in told["results"]} == {("onnxruntime-cpu", "fp32")}


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_results_reach_their_file_also_where_a_terminal_shows_the_bar(
    films: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    import pty

    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "edgecxr", "screen", str(films), "--bundle", str(tiny_bundle)]
    with (tmp_path / "out.txt").open("wb") as out:
        process = subprocess.Popen(command, env={**ENVIRONMENT, "TERM": "xterm"}, stdout=out, stderr=end)
    os.close(end)
    said = _read_all(terminal)
    assert process.wait() == 1
    names = [Path(line.partition("  ")[0]).name for line in (tmp_path / "out.txt").read_text("utf-8").splitlines()]
    assert names == ["a.dcm", "b.dcm", "c.dcm"]
    assert "screening" in said  # the bar
    assert "REFUSED" not in said


def _read_all(terminal: int) -> str:
    """What is written to a terminal until its last writer has gone."""
    parts = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # how Linux ends it
        pass
    os.close(terminal)
    return b"".join(parts).decode()


def test_screen_writes_a_report_and_pictures(run: Run, films: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = run("screen", films, "--bundle", tiny_bundle, "--html", "report.html", "--heatmaps", "maps")
    assert done.returncode == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a.dcm" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    names = [path.name for path in sorted((tmp_path / "maps").iterdir())]
    assert names[0].startswith("00001-a.")
    assert not any("c." in name.partition("-")[2] for name in names)


def test_misuse_is_a_sentence_and_ends_the_process_with_2(run: Run) -> None:
    """The other sentences: tests/edgecxr/commands/test_usage.py."""
    done = run("inspect", "absent.cxr")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgecxr: absent.cxr: cannot be read")
    assert done.stderr.count("\n") == 1


def test_screen_enters_no_linked_folder(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_dicom(chest(1, "normal", 128), tmp_path / "films" / "a.dcm")
    (tmp_path / "films" / "back").symlink_to(tmp_path / "films", target_is_directory=True)
    rows = run("screen", "films", "--bundle", tiny_bundle, "--jsonl", "-").stdout.splitlines()
    assert [Path(json.loads(row)["file"]).name for row in rows] == ["a.dcm", "back"]


def test_a_fault_of_ours_outweighs_refused_films(capsys: pytest.CaptureFixture[str]) -> None:
    cut = Screening("a", "refused", "e", "int8", "numpy", "0", RefusalReason.TRUNCATED, "cut short")
    fault = Screening("b", "refused", "e", "int8", "numpy", "0", RefusalReason.UNREADABLE, "internal error: KeyError")
    assert (ending([]), ending([cut]), ending([cut, fault])) == (0, 1, 70)
    assert "a fault of ours on 1 of 2 films" in capsys.readouterr().err


def test_doctor_says_what_is_there(run: Run) -> None:
    done = run("doctor", "--json")
    topics = {row["topic"]: row for row in json.loads(done.stdout)}
    assert {"python", "kernel in use", "engine openvino", "engine onnxruntime", "default bundle", "NVIDIA GPU"} <= set(
        topics
    )
    assert all(row["state"] in ("ok", "absent", "fault") and row["detail"] for row in topics.values())
    assert "kernel in use" in run("doctor").stdout


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_doctor_lists_everything_where_the_kernel_asked_for_is_absent(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "edgecxr", "doctor", *arguments]
    environment = {**ENVIRONMENT, "EDGECXR_KERNELS": "nonsense"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    sentence = "no kernel 'nonsense'; EDGECXR_KERNELS and kernel= take cpp or numpy"
    if arguments:
        topics = {row["topic"]: row for row in json.loads(done.stdout)}
        assert topics["kernel in use"] == {"topic": "kernel in use", "state": "fault", "detail": sentence}
        assert topics["golden openvino int8"]["detail"] == sentence
        assert topics["default bundle"]["state"] == "fault"
        assert "NVIDIA GPU" in topics
    else:
        assert f"FAULT   kernel in use                {sentence}" in done.stdout
        assert "NVIDIA GPU" in done.stdout


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@FULL
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [[], ["--json"], ["--jsonl", "-"]])
def test_results_that_find_no_room_are_a_sentence(
    films: Path, tiny_bundle: Path, arguments: list[str], unbuffered: str
) -> None:
    command = [sys.executable, "-m", "edgecxr", "screen", str(films), "--bundle", str(tiny_bundle), *arguments]
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.count("edgecxr: cannot write the output: No space left on device; ") == 1


@FULL
def test_a_file_of_results_that_finds_no_room_is_told_of_once(run: Run, films: Path, tiny_bundle: Path) -> None:
    done = run("screen", films, "--bundle", tiny_bundle, "--jsonl", "/dev/full")
    assert done.returncode == 2
    assert done.stderr == (
        "edgecxr: cannot write /dev/full: No space left on device; name a place that can be written\n"
    )


@pytest.mark.skipif(os.name != "posix", reason="closes a stream of a shell's")
def test_without_standard_output_nothing_is_begun(films: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgecxr", "screen", str(films), "--bundle", str(tiny_bundle), "--jsonl", "a"]

    def end(closed: str) -> tuple[int, str, str]:
        shell = ["sh", "-c", f'"$@" {closed}', "sh", *command]
        done = subprocess.run(shell, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    code, _, said = end(">&-")
    assert (code, said.partition(", ")[0]) == (2, "edgecxr: standard output is closed")
    assert said.count("\n") == 1
    assert end(">&- 2>&-") == (2, "", "")
    assert not (tmp_path / "a").exists()
    code, results, _ = end("2>&-")
    assert code == 1
    assert len(results.splitlines()) == 3  # and none of the notes


def test_a_reader_that_leaves_is_no_error(films: Path, tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "edgecxr", "screen", str(films), "--bundle", str(tiny_bundle), "--jsonl", "-"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141
    assert "Traceback" not in said


def test_ctrl_c_ends_with_130_and_no_trace(tiny_bundle: Path, tmp_path: Path) -> None:
    film = write_dicom(chest(1, "normal", 256), tmp_path / "a.dcm")
    for number in range(400):
        (tmp_path / f"b{number:03d}.dcm").hardlink_to(film)
    command = [sys.executable, "-m", "edgecxr", "screen", str(tmp_path), "--bundle", str(tiny_bundle), "--jsonl", "-"]
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith('{"file"')
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
