"""Stages are run once for the same inputs, and a folder without `.partial` is whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgecxr.errors import StageError
from edgecxr.export.libraries import versions
from edgecxr.export.stages import DONE, Outcome, Stage, Workshop, code_of, digest_of, sole_user

LATER = ("content", "sources")  # of done.json


def write(text: str):
    return lambda folder: (folder / "result.txt").write_text(text)


def test_a_stage_runs_once_for_the_same_inputs(tmp_path: Path) -> None:
    told: list[Outcome] = []
    first = Workshop(tmp_path, told.append).run(Stage("count", write("1"), {"epochs": 1}))
    again = Workshop(tmp_path, told.append).run(Stage("count", write("2"), {"epochs": 1}))
    assert first == again
    assert (first / "result.txt").read_text() == "1"
    assert [outcome.how for outcome in told] == ["ran", "cached"]
    assert str(told[1]) == "count: cached"


def test_other_inputs_make_another_folder_and_change_what_is_downstream(tmp_path: Path) -> None:
    folders = []
    for epochs in (1, 2):
        workshop = Workshop(tmp_path)
        workshop.run(Stage("teach", write("t"), {"epochs": epochs}))
        folders.append(workshop.run(Stage("fuse", write("f"), upstream=("teach",))))
    assert folders[0] != folders[1]


def test_done_json_says_what_the_result_came_from(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    workshop.run(Stage("teach", write("t"), {"epochs": 3}))
    done = json.loads((workshop.run(Stage("fuse", write("f"), {"kind": "equal"}, ("teach",))) / DONE).read_text())
    assert done["inputs"]["inputs"] == {"kind": "equal"}
    assert done["inputs"]["upstream"] == {"teach": workshop.outcomes["teach"].digest}
    assert done["files"] == {"result.txt": 1}


def test_a_result_says_with_which_libraries_it_was_made(tmp_path: Path) -> None:
    """A training of last year is taken up, and not said to be of the library of today."""
    first = Workshop(tmp_path)
    place = first.run(Stage("teach", write("t")))
    assert first.outcomes["teach"].libraries == versions()
    done = json.loads((place / DONE).read_text())
    for told in ({**versions(), "numpy": "1.0"}, {}):
        (place / DONE).write_text(json.dumps({**done, "libraries": told}))
        later = Workshop(tmp_path)
        later.run(Stage("teach", write("t")))
        assert later.outcomes["teach"].how == "cached"
        assert later.outcomes["teach"].libraries == told


def test_a_damaged_result_is_made_anew(tmp_path: Path) -> None:
    folder = Workshop(tmp_path).run(Stage("teach", write("whole")))
    (folder / "result.txt").write_text("ha")
    Workshop(tmp_path).run(Stage("teach", write("whole")))
    assert (folder / "result.txt").read_text() == "whole"


@pytest.mark.parametrize(("anew", "downstream"), [("other weights", "ran"), ("weights", "cached")])
def test_what_came_from_a_result_that_was_made_anew_is_too_unless_it_is_the_same(
    tmp_path: Path, anew: str, downstream: str
) -> None:
    def build(weights: str) -> dict[str, str]:
        workshop = Workshop(tmp_path)
        workshop.run(Stage("teach", write(weights)))
        workshop.run(Stage("fuse", lambda folder: write(f"of {weights}")(folder), upstream=("teach",)))
        workshop.run(Stage("pack", lambda folder: write(f"of {weights}")(folder), upstream=("fuse",)))
        return {name: outcome.how for name, outcome in workshop.outcomes.items()}

    build("weights")
    shutil.rmtree(next(tmp_path.glob("teach-*")))
    assert build(anew) == {"teach": "ran", "fuse": downstream, "pack": downstream}
    assert set(build(anew).values()) == {"cached"}


@pytest.mark.parametrize(("anew", "how"), [("other weights", "ran"), ("weights", "resumed")])
def test_a_stage_that_was_cut_off_goes_on_only_with_what_it_was_begun_with(tmp_path: Path, anew: str, how: str) -> None:
    def build(weights: str, *, cut: bool) -> str:
        def run(folder: Path) -> None:
            with (folder / "log.txt").open("a") as log:
                log.write(f"of {weights};")
            if cut:
                raise KeyboardInterrupt

        workshop = Workshop(tmp_path)
        workshop.run(Stage("teach", write(weights)))
        place = workshop.run(Stage("distill", run, upstream=("teach",), resumable=True))
        assert workshop.outcomes["distill"].how == how
        assert sorted(path.name for path in place.iterdir()) == [DONE, "log.txt"]
        return (place / "log.txt").read_text()

    with pytest.raises(KeyboardInterrupt):
        build("weights", cut=True)
    shutil.rmtree(next(tmp_path.glob("teach-*")))
    assert build(anew, cut=False) == ("of weights;of weights;" if anew == "weights" else "of other weights;")


def test_a_result_without_what_it_came_from_is_taken_up(tmp_path: Path) -> None:
    """Those of before are whole, and hours of training."""
    for again in (False, True):
        workshop = Workshop(tmp_path)
        workshop.run(Stage("teach", write("t")))
        workshop.run(Stage("fuse", write("f"), upstream=("teach",)))
        assert workshop.outcomes["fuse"].how == ("cached" if again else "ran")
        for path in tmp_path.glob("*/done.json"):
            kept = {name: value for name, value in json.loads(path.read_text()).items() if name not in LATER}
            path.write_text(json.dumps(kept))


def test_a_stage_that_fails_leaves_no_result(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise StageError("out of luck")

    with pytest.raises(StageError, match="out of luck"):
        Workshop(tmp_path).run(Stage("teach", fail))
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    assert not (Workshop(tmp_path).run(Stage("teach", write("t"))) / "half.txt").exists()


def test_a_disk_that_refuses_is_one_sentence(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from edgecxr.errors import StageError
        from edgecxr.export.stages import Stage, Workshop

        workshop = Workshop(Path(sys.argv[1]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            workshop.run(Stage("teach", lambda folder: (folder / "weights").write_bytes(bytes(5000))))
        except StageError as error:
            print(error)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(
        f"stage 'teach' could not go on in {tmp_path}: File too large; see to that, and build"
    )


def test_a_killed_build_keeps_finished_stages_and_resumes_the_one_it_was_in(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from edgecxr.export.stages import Stage, Workshop

        def epochs(folder):
            for epoch in range(3):
                mark = folder / f"epoch{epoch}"
                if mark.exists():
                    continue
                mark.write_text(sys.argv[2])
                if epoch == 1 and sys.argv[2] == "first":
                    os.kill(os.getpid(), signal.SIGKILL)

        workshop = Workshop(Path(sys.argv[1]), print)
        workshop.run(Stage("data", lambda folder: (folder / "x").write_text("x")))
        print(workshop.run(Stage("teach", epochs, upstream=("data",), resumable=True)))
    """)
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([*command, "first"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    second = subprocess.run([*command, "second"], env=environment, check=True, capture_output=True, text=True)
    said = second.stdout.splitlines()
    assert said[0] == "data: cached"
    assert said[1].startswith("teach: resumed in")
    assert [(Path(said[2]) / f"epoch{n}").read_text() for n in range(3)] == ["first", "first", "second"]


def test_stages_out_of_order_or_of_one_name_are_refused(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    with pytest.raises(StageError, match="stage 'fuse' needs teach, which did not run"):
        workshop.run(Stage("fuse", write("f"), upstream=("teach",)))
    workshop.run(Stage("teach", write("t")))
    with pytest.raises(StageError, match="two stages are called 'teach'"):
        workshop.run(Stage("teach", write("t"), {"epochs": 2}))


def test_a_stage_that_several_need_is_told_of_once(tmp_path: Path) -> None:
    told: list[Outcome] = []
    workshop = Workshop(tmp_path, told.append)
    assert workshop.run(Stage("films", write("f"))) == workshop.run(Stage("films", write("f")))
    assert len(told) == 1


def test_a_work_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StageError, match=r"cannot work in .*: Not a directory; name another folder with --work"),
        sole_user(tmp_path / "file" / "work"),
    ):
        pass


def test_a_second_build_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        sole_user(tmp_path / "work"),
        pytest.raises(StageError, match=r"another build is at work in .*work; wait for it"),
        sole_user(tmp_path / "work"),
    ):
        pass
    with sole_user(tmp_path / "work"):
        pass


def test_the_digest_is_of_the_value_and_not_of_its_order() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_the_code_digest_follows_the_source() -> None:
    assert code_of(json) == code_of(json)
    assert code_of(json) != code_of(json, subprocess)
