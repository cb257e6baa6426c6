"""`edgecxr queue` on the spool of a node, beside a process that has it open."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from edgecxr.phantom import chest, write_dicom
from edgecxr.runtimes.node.config import SpoolLimits
from edgecxr.runtimes.node.deliveries import NewDelivery
from edgecxr.runtimes.node.images import Arrival, Outcome, State
from edgecxr.runtimes.node.spool import Spool

Run = Callable[..., Any]
IDENTITY = {"patient_name": "Doe^Jane\x1b[2J", "patient_id": "ID-7", "accession": "A-1"}


@pytest.fixture
def queue(run: Run, tmp_path: Path) -> Run:
    """``queue("list", …)``: the command with the node's configuration."""
    (tmp_path / "node.yaml").write_text("folder: state\n")
    return lambda *arguments: run("queue", *map(str, arguments), "--config", "node.yaml")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """1 decided with a delivery, 2 refused, 3 quarantined, 4 a picture that waits; held by a running node."""
    opened = Spool(tmp_path / "state" / "spool", SpoolLimits(refuse_below_mb=0))
    opened.recover()
    for number in range(3):
        put(opened, write_dicom(chest(number, size=64), tmp_path / f"{number}.dcm"))
        opened.claim()
    findings = [{"name": "pneumonia", "decision": "negative"}, {"name": "covid", "decision": "positive"}]
    new = NewDelivery("pacs", "sr", str(generate_uid()))
    opened.finish(1, Outcome("ok", {"findings": findings}, identity=IDENTITY, proof="p"), [new])
    opened.finish(2, Outcome("refused", {"reason": "no_contrast", "detail": "one flat value"}))
    opened.fail(3, "the decoder crashed")
    opened.claim()
    opened.fail(3, "the decoder crashed")
    with opened.part() as part:
        part.write(b"\x89PNG")
        opened.commit(part, Arrival("", "", "", "http"))
    yield opened
    opened.close()


def put(spool: Spool, path: Path) -> None:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    with spool.part() as part:
        part.write(path.read_bytes())
        syntax = str(header.file_meta.TransferSyntaxUID)
        spool.commit(part, Arrival(str(header.SOPClassUID), str(header.SOPInstanceUID), syntax, "dicom"))


def test_list_shows_every_state(queue: Run, spool: Spool) -> None:
    done = queue("list")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert list(lines) == ["IMAGE", "4", "3", "2", "1"]
    for column in ("STATE", "AGE", "PATIENT ID", "NAME OR FILE", "RESULT"):
        start = lines["IMAGE"].index(f" {column}") + 1
        assert all(line[start - 1] == " " != line[start] for line in lines.values())
    assert "ID-7" in lines["1"]
    assert "covid POSITIVE, pneumonia negative" in lines["1"]
    assert "REFUSED, not screened: one flat value" in lines["2"]
    assert "NO RESULT: the decoder crashed" in lines["3"]
    assert not any("negative" in lines[number] for number in "234")
    assert "received" in lines["4"]
    assert "\x1b" not in done.stdout
    assert "1 results on their way" in done.stderr


def test_refusals_at_the_door_are_listed(queue: Run, spool: Spool) -> None:
    assert queue("refusals").stdout == ""
    spool.door.note("UN\x1b[2JIT", "10.0.0.9", "C-STORE 0xA900", "another instance")
    spool.door.note("", "10.0.0.8", "closed", "no room")
    spool.door.write()
    done = queue("refusals")
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split("  ")[0] == "LAST"
    assert [row.split()[1:4] for row in rows] == [["1", "-", "10.0.0.8"], ["1", "UN�[2JIT", "10.0.0.9"]]
    assert "\x1b" not in done.stdout
    assert "2 refused at the door" in done.stderr
    told = json.loads(queue("refusals", "--json", "--limit", 1).stdout)["refusals"]
    assert [(one["answer"], one["number"]) for one in told] == [("closed", 1)]


def test_what_went_into_quarantine_after_its_decision_has_no_result(queue: Run, spool: Spool) -> None:
    spool.path(spool.get(1)).unlink()
    spool.recover()
    line = queue("list", "--state", "quarantined").stdout.splitlines()[-1]
    assert "NO RESULT" in line
    assert "covid" not in line
    assert "result" not in json.loads(queue("show", 1, "--json").stdout)


def test_list_selects_by_state_and_search(queue: Run, spool: Spool) -> None:
    value = json.loads(queue("list", "--state", "quarantined", "--state", "decided", "--json").stdout)
    assert [image["id"] for image in value["images"]] == [3, 1]
    assert value["counts"]["quarantined"] == 1
    value = json.loads(queue("list", "--search", "doe", "--json").stdout)
    assert [image["id"] for image in value["images"]] == [1]
    assert [image["id"] for image in json.loads(queue("list", "--limit", 2, "--json").stdout)["images"]] == [4, 3]


def test_show_tells_what_is_still_to_be_delivered(queue: Run, spool: Spool) -> None:
    value = json.loads(queue("show", 1, "--json").stdout)
    assert value["deliveries"] == [{"destination": "pacs", "kind": "sr", "attempts": 0, "error": ""}]
    assert value["result"]["findings"][1]["name"] == "covid"
    assert Path(value["path"]).exists()
    shown = queue("show", 3).stdout
    assert "error: the decoder crashed" in shown
    shown = queue("show", 1).stdout
    assert re.search(r"^received: \d{4}-\d\d-\d\dT[\d:]{8}[+-]\d\d:\d\d$", shown, re.MULTILINE)
    assert "    name covid, decision positive\n" in shown
    assert "{" not in shown
    assert "\x1b" not in shown


def test_a_result_in_doubt_says_so_and_is_screened_again_by_hand(queue: Run, spool: Spool) -> None:
    assert "DOUBT" not in queue("list").stdout
    assert queue("retry", 1).returncode == 1
    spool.doubts.mark("p", "the engine that gave it failed its next proof", lambda *record: "2.25.1")
    assert "IN DOUBT: covid POSITIVE" in queue("list", "--state", "decided").stdout
    assert "doubt: the engine that gave it failed its next proof\n" in queue("show", 1).stdout
    assert json.loads(queue("show", 1, "--json").stdout)["doubt"].startswith("the engine")
    assert queue("retry", 1).returncode == 0
    assert (spool.get(1).state, spool.result(1)) == (State.RECEIVED, None)


def test_what_is_in_doubt_is_listed_and_retried_as_a_whole(queue: Run, spool: Spool) -> None:
    assert json.loads(queue("list", "--doubt", "--json").stdout)["images"] == []
    nothing = queue("retry", "--doubt")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "say which images: their numbers or --doubt" in queue("retry").stderr
    spool.doubts.mark("p", "logits differ", lambda *record: "2.25.1")
    spool.doubts.mark("", "logits differ", lambda *record: "2.25.2")
    found = json.loads(queue("list", "--doubt", "--json").stdout)["images"]
    assert [(image["id"], image["doubt"]) for image in found] == [(2, "logits differ"), (1, "logits differ")]
    done = queue("retry", 1, "--doubt")
    assert done.stdout.splitlines() == ["1  waits for screening", "2  waits for screening"]
    assert (spool.get(1).state, spool.get(2).state, spool.doubts.count()) == (State.RECEIVED, State.RECEIVED, 0)


def test_a_film_of_a_watched_folder_is_called_by_its_file(queue: Run, spool: Spool) -> None:
    with spool.part() as part:
        part.write(b"film")
        spool.commit(part, Arrival("", "", "", "folder", "ward/film\x1b.png"))
    assert "  -           ward/film\ufffd.png" in queue("list", "--limit", 1).stdout


def test_retry_by_number(queue: Run, spool: Spool) -> None:
    done = queue("retry", 3, 1, 99)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "3  waits for screening"
    assert [line.split("  ")[1] for line in done.stdout.splitlines()[1:]] == ["NOT RETRIED", "NOT RETRIED"]
    assert spool.get(3).state is State.RECEIVED
    assert queue("retry", 2).returncode == 0


def test_forget_gives_up_what_waits_for_a_destination_that_is_gone(queue: Run, spool: Spool, tmp_path: Path) -> None:
    known = "folder: state\ndestinations: [{name: pacs, ae: PACS, host: 127.0.0.1, port: 104}]\n"
    (tmp_path / "node.yaml").write_text(known)
    refused = queue("forget", "pacs")
    assert refused.returncode == 2
    assert "names the destination pacs: take it out first" in " ".join(refused.stderr.split())
    assert spool.outstanding() == 1
    (tmp_path / "node.yaml").write_text("folder: state\n")
    unknown = queue("forget", "pasc")
    assert unknown.returncode == 2
    assert "no result waits for a destination pasc; waiting: 1 for pacs" in " ".join(unknown.stderr.split())
    done = queue("forget", "pacs")
    assert (done.returncode, done.stdout.split()) == (0, ["1", "1", "given", "up", "delivered"])
    assert "1 results for pacs were given up" in done.stderr
    assert (spool.get(1).state, spool.outstanding()) == (State.DELIVERED, 0)


def test_export_as_received(queue: Run, spool: Spool, tmp_path: Path) -> None:
    done = queue("export", "out", "--image", 1, "--state", "received")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000001.dcm", "000004.bin"]
    assert (tmp_path / "out" / "000001.dcm").read_bytes() == (tmp_path / "0.dcm").read_bytes()
    again = queue("export", "out", 1)
    assert (again.returncode, "000001.dcm is there already" in again.stdout) == (1, True)


def test_export_without_identity(queue: Run, spool: Spool, tmp_path: Path) -> None:
    pytest.importorskip("dicomanonymizer", reason="pip install edgecxr[node]: de-identification needs dicom-anonymizer")
    done = queue(
        "export", "out", "--deidentify", "--state", "decided", "--state", "delivered", "--state", "received", "--json"
    )
    value = json.loads(done.stdout)
    assert (done.returncode, value["images"], value["exported"]) == (1, 3, 2)
    assert "only a sound DICOM file" in value["results"][2]["error"]
    made = [pydicom.dcmread(path) for path in (tmp_path / "out").iterdir()]
    assert [one.PatientIdentityRemoved for one in made] == ["YES", "YES"]
    assert all(f"{one.SOPInstanceUID}.dcm" in {item["file"] for item in value["results"]} for one in made)
    assert not any(b"Phantom^" in path.read_bytes() for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("list", "--state", "lost"), "there is no state lost"),
        (("show", "99"), "there is no image 99"),
        (("export", "out"), "say which images"),
        (("export", "out", "--state", "decided", "--allow-burned-in"), "belongs to --deidentify"),
    ],
)
def test_misuse_ends_with_2(queue: Run, spool: Spool, arguments: tuple[str, ...], sentence: str) -> None:
    done = queue(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_node_that_never_ran_is_said_and_nothing_is_made(queue: Run, tmp_path: Path) -> None:
    done = queue("list")
    assert done.returncode == 2
    assert "has the node run?" in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_wrong_configuration_is_said_with_its_line(queue: Run, tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("folder: state\nspol: {}\n")
    done = queue("list")
    assert done.returncode == 2
    assert "node.yaml:2" in done.stderr


@pytest.mark.parametrize("verb", ["list", "show", "retry", "export", "forget"])
def test_help_has_an_example(queue: Run, verb: str) -> None:
    done = queue(verb, "--help")
    assert done.returncode == 0
    assert f"edgecxr queue {verb}" in " ".join(done.stdout.split())
