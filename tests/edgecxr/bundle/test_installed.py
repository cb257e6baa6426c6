"""Installed bundles: the switch is one moment, and whatever happens before it leaves the old one in use."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edgecxr.bundle import Bundle, default_bundle_path
from edgecxr.bundle.archive import pack, unpack
from edgecxr.bundle.installed import current, install, previous, rollback
from edgecxr.bundle.keys import generate, read_private
from edgecxr.bundle.signature import sign
from edgecxr.errors import BundleError, EngineError
from edgecxr.runtimes.registry import open_engine

pytest.importorskip("cryptography", reason="pip install edgecxr[node]: signatures need cryptography")

# Runs an install again and again, each time in a fork that is killed at its next step on the folder (open, rename,
# remove, …), until one comes through. Prints what stands after each.
KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from edgecxr.bundle.installed import current, install, previous, rollback

folder, start, bundle, verb = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
states = []
for limit in range(500):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start, folder)
    child = os.fork()
    if child == 0:
        left = limit
        def watch(event, arguments):
            global left
            if event.split(".")[0] in ("open", "os", "tempfile", "fcntl") and str(folder) in str(arguments):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        if verb == "install":
            install(folder, bundle, allow_unsigned=True)
        else:
            rollback(folder, allow_unsigned=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    now, before = current(folder), previous(folder)
    states.append((now.name, before and before.name, len(now.read_bytes())))
    again = install(folder, bundle, allow_unsigned=True)
    assert again.path == current(folder) and again.path.read_bytes() == Path(bundle).read_bytes()
    names = {path.name for path in (folder / "bundles").iterdir()}
    assert names == {"lock", "installed.json", again.path.name, again.previous.name}, names
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, status
        break
print(json.dumps(states))
"""


@pytest.fixture(scope="module")
def bundles(tiny_build: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four different unsigned bundles."""
    folder = tmp_path_factory.mktemp("bundles")
    return [tiny_build.write(folder / f"{number}.cxr", card=f"# number {number}\n") for number in range(4)]


def put(folder: Path, *bundles: Path) -> list[Path]:
    return [install(folder, bundle, allow_unsigned=True).path for bundle in bundles]


def held(folder: Path) -> set[str]:
    return {path.name for path in (folder / "bundles").iterdir()} - {"lock", "installed.json"}


def test_nothing_is_installed_at_first(tmp_path: Path) -> None:
    assert current(tmp_path) is None
    assert previous(tmp_path / "none") is None
    with pytest.raises(BundleError, match="no bundle was installed, so there is none to go back to; edgecxr install"):
        rollback(tmp_path)


def test_install_rollback_and_forward_again(bundles: list[Path], tmp_path: Path) -> None:
    first = install(tmp_path, bundles[0], allow_unsigned=True)
    digest = Bundle.open(bundles[0]).digest
    assert first.path == current(tmp_path) == tmp_path / "bundles" / f"{digest[:12]}-tiny.cxr"
    own = default_bundle_path()
    assert (first.digest, first.signed_by, first.previous, first.changed) == (digest, None, own, True)
    assert first.path.read_bytes() == bundles[0].read_bytes()
    assert previous(tmp_path) == own
    second = install(tmp_path, bundles[1], allow_unsigned=True)
    assert (current(tmp_path), previous(tmp_path)) == (second.path, first.path)
    assert second.previous == first.path
    back = rollback(tmp_path, allow_unsigned=True)
    assert (back.path, back.previous, back.digest) == (first.path, second.path, digest)
    assert (current(tmp_path), previous(tmp_path)) == (first.path, second.path)
    rollback(tmp_path, allow_unsigned=True)
    assert (current(tmp_path), previous(tmp_path)) == (second.path, first.path)


def test_back_to_one_bundle_and_no_other(bundles: list[Path], tmp_path: Path) -> None:
    """Whoever finds the current one bad must not undo an install that came between."""
    first = install(tmp_path, bundles[0], allow_unsigned=True).path
    second = install(tmp_path, bundles[1], allow_unsigned=True).path
    with pytest.raises(BundleError, match=f"the bundle before is {first.name} by now, not {second.name}"):
        rollback(tmp_path, allow_unsigned=True, to=second)
    assert (current(tmp_path), previous(tmp_path)) == (second, first)
    assert rollback(tmp_path, allow_unsigned=True, to=first).path == first == current(tmp_path)


def test_back_to_the_packages_own_and_forward_again(bundles: list[Path], tmp_path: Path) -> None:
    own = default_bundle_path()
    if not own.exists():
        pytest.skip("the package has no bundle here")
    first = put(tmp_path, bundles[0])[0]
    proven: list[str] = []
    back = rollback(tmp_path, prove=lambda bundle: proven.append(bundle.digest))  # nobody has to sign it
    assert (back.path, back.previous, back.changed, back.signed_by) == (own, first, True, None)
    assert proven == [back.digest] == [Bundle.open(own).digest]
    assert (current(tmp_path), previous(tmp_path)) == (None, first)
    assert held(tmp_path) == {first.name}  # no copy of what is there anyway
    assert rollback(tmp_path, allow_unsigned=True).path == first == current(tmp_path)
    rollback(tmp_path)
    assert install(tmp_path, bundles[1], allow_unsigned=True).previous == own
    assert held(tmp_path) == {path.name for path in [current(tmp_path)] if path is not None}


def test_an_engine_that_does_not_reproduce_the_packages_own_leaves_the_installed(
    bundles: list[Path], tmp_path: Path
) -> None:
    first = put(tmp_path, bundles[0])[0]

    def fails(bundle: Bundle) -> None:
        raise EngineError("no engine can run this bundle here")

    with pytest.raises(EngineError, match="no engine can run"):
        rollback(tmp_path, prove=fails)
    assert current(tmp_path) == first


def test_the_same_again_changes_nothing_and_mends_a_damaged_copy(bundles: list[Path], tmp_path: Path) -> None:
    first, second = put(tmp_path, *bundles[:2])
    second.write_bytes(b"rotten")
    again = install(tmp_path, bundles[1], allow_unsigned=True)
    assert (again.changed, again.path, again.previous) == (False, second, first)
    assert second.read_bytes() == bundles[1].read_bytes()


def test_old_copies_go_and_what_is_in_use_stays(bundles: list[Path], tmp_path: Path) -> None:
    paths = put(tmp_path, *bundles[:2])
    place = tmp_path / "bundles"
    (place / "notes.txt").write_text("a person's")
    (place / ".installed.json.abc").write_text("cut off")
    (place / f".{paths[0].name}.abc").write_text("cut off")
    third = install(tmp_path, bundles[2], allow_unsigned=True, keep=[paths[0]])
    assert held(tmp_path) == {*(path.name for path in (*paths, third.path)), "notes.txt"}
    fourth = install(tmp_path, bundles[3], allow_unsigned=True)
    assert held(tmp_path) == {third.path.name, fourth.path.name, "notes.txt"}


def test_a_refused_bundle_leaves_the_old_one(bundles: list[Path], tmp_path: Path) -> None:
    old = put(tmp_path, *bundles[:2])[1]
    before = held(tmp_path)
    damaged = tmp_path / "damaged.cxr"
    damaged.write_bytes(bundles[2].read_bytes()[:-100])

    def fails(bundle: Bundle) -> None:
        raise EngineError("no engine can run this bundle here")

    with pytest.raises(BundleError, match="not a whole bundle"):
        install(tmp_path, damaged, allow_unsigned=True)
    with pytest.raises(BundleError, match="is not signed"):
        install(tmp_path, bundles[2])
    with pytest.raises(EngineError, match="no engine can run"):
        install(tmp_path, bundles[2], allow_unsigned=True, prove=fails)
    with pytest.raises(EngineError, match="no engine can run"):
        rollback(tmp_path, allow_unsigned=True, prove=fails)
    with pytest.raises(BundleError, match="is not signed"):
        rollback(tmp_path)
    assert (current(tmp_path), held(tmp_path)) == (old, before)


def test_members_of_an_unsigned_bundle_are_not_read(bundles: list[Path], tmp_path: Path) -> None:
    members = unpack(bundles[0].read_bytes(), "first")
    members["card.md"] = b"\xff"
    manifest = json.loads(members["manifest.json"])
    manifest["members"]["card.md"] = hashlib.sha256(b"\xff").hexdigest()
    members["manifest.json"] = json.dumps(manifest).encode()
    (tmp_path / "strange.cxr").write_bytes(pack(members))
    with pytest.raises(BundleError, match="is not signed"):
        install(tmp_path, tmp_path / "strange.cxr")
    with pytest.raises(BundleError, match=r"card\.md is not UTF-8"):
        install(tmp_path, tmp_path / "strange.cxr", allow_unsigned=True)


def test_a_bundle_that_this_machine_does_not_reproduce_is_refused(
    tiny_build: Any, bundles: list[Path], tmp_path: Path
) -> None:
    golden = tiny_build.golden
    shifted = type(golden)(
        golden.frames, {name: -values for name, values in golden.logits.items()}, golden.cam, golden.embedding
    )
    wrong = tiny_build.write(tmp_path / "wrong.cxr", golden=shifted)
    old = put(tmp_path, bundles[0])[0]

    def prove(bundle: Bundle) -> None:
        open_engine(bundle).close()

    with pytest.raises(EngineError, match="no engine can run this bundle here"):
        install(tmp_path, wrong, allow_unsigned=True, prove=prove)
    assert current(tmp_path) == old
    assert install(tmp_path, bundles[1], allow_unsigned=True, prove=prove).changed


def test_a_trusted_signature_travels(bundles: list[Path], tmp_path: Path) -> None:
    generate(tmp_path / "hospital")
    signed = Path(shutil.copy(bundles[0], tmp_path / "signed.cxr"))
    put(tmp_path, bundles[0], bundles[1])
    sign(signed, read_private(tmp_path / "hospital.key"))
    done = install(tmp_path, signed, trusted=[tmp_path / "hospital.pub"])
    assert done.signed_by is not None
    assert done.signed_by.name == "hospital"
    assert done.path.read_bytes() == signed.read_bytes()  # the unsigned copy of the same digest gave way
    with pytest.raises(BundleError, match="is not signed"):
        rollback(tmp_path, trusted=[tmp_path / "hospital.pub"])
    assert current(tmp_path) == done.path


def test_the_packages_own_bundle_can_be_installed(tmp_path: Path) -> None:
    assert install(tmp_path, default_bundle_path()).changed


def test_rollback_to_a_copy_that_is_gone_or_damaged_is_refused(bundles: list[Path], tmp_path: Path) -> None:
    first, second = put(tmp_path, *bundles[:2])
    first.write_bytes(b"rotten")
    with pytest.raises(BundleError, match="not a whole bundle"):
        rollback(tmp_path, allow_unsigned=True)
    first.unlink()
    with pytest.raises(BundleError, match="was installed and is gone; install it again"):
        rollback(tmp_path, allow_unsigned=True)
    assert current(tmp_path) == second
    second.unlink()
    with pytest.raises(BundleError, match="was installed and is gone"):
        current(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is damaged"),
        (b"\xff", "is damaged"),
        (b"null", "Input should be a valid dictionary"),
        (b"{}", "current: Field required"),
        (b'{"current": "../../etc/passwd"}', "current: String should match pattern"),
        (b'{"current": "0123456789ab-a/../../x.cxr"}', "current: String should match pattern"),
        (b'{"current": 0}', "current: Input should be a valid string"),
        (b'{"current": "0123456789ab-tiny.cxr", "then": 1}', "then: Extra inputs are not permitted"),
        (b'{"current": "0123456789ab-tiny.cxr\\n"}', "current: String should match pattern"),
    ],
)
def test_a_damaged_record_is_a_sentence_and_no_other_model(
    content: bytes, match: str, bundles: list[Path], tmp_path: Path
) -> None:
    put(tmp_path, bundles[0])
    (tmp_path / "bundles" / "installed.json").write_bytes(content)
    for ask in (current, previous, rollback):
        with pytest.raises(BundleError, match=rf"installed\.json: .*{match}.*; remove it and install a bundle again"):
            ask(tmp_path)
    with pytest.raises(BundleError, match=match):
        install(tmp_path, bundles[1], allow_unsigned=True)


def test_a_name_of_any_kind_stays_in_the_folder(tiny_build: Any, tmp_path: Path) -> None:
    for name in ("../../evil", ".", "Röntgen / 胸", "x" * 300, "a\nb"):
        spec = tiny_build.spec.model_copy(update={"name": name})
        path = install(tmp_path, tiny_build.write(tmp_path / "odd.cxr", model=spec), allow_unsigned=True).path
        assert path.parent == tmp_path / "bundles"
        assert current(tmp_path) == path


def test_a_folder_that_cannot_be_written_is_a_sentence(bundles: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("a file")
    with pytest.raises(BundleError, match="bundles: cannot be written: File exists"):
        install(tmp_path, bundles[0], allow_unsigned=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("verb", ["install", "rollback"])
def test_killed_at_any_step_the_old_or_the_new_is_in_use(verb: str, bundles: list[Path], tmp_path: Path) -> None:
    start, folder = tmp_path / "start", tmp_path / "folder"
    first, second = put(start, *bundles[:2])
    command = [sys.executable, "-c", KILLED, folder, start, bundles[2], verb]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    third = f"{Bundle.open(bundles[2]).digest[:12]}-tiny.cxr"
    old = [second.name, first.name, bundles[1].stat().st_size]
    new = (
        [third, second.name, bundles[2].stat().st_size]
        if verb == "install"
        else [first.name, second.name, bundles[0].stat().st_size]
    )
    assert len(states) > 8
    switch = states.index(new)
    assert states == [old] * switch + [new] * (len(states) - switch)
    assert switch > 3


def test_installs_at_the_same_time_take_turns(bundles: list[Path], tmp_path: Path) -> None:
    """Three processes of several threads install for a while; a reader meets only whole bundles."""
    code = (
        "import sys; from edgecxr.bundle.installed import install\n"
        "for turn in range(6): install(sys.argv[1], sys.argv[2 + turn % 2], allow_unsigned=True)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    put(tmp_path, bundles[0])
    pairs = ((0, 1), (1, 2), (2, 3))
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), *(str(bundles[i]) for i in pair)], env=environment)
        for pair in pairs
    ]
    threads = [threading.Thread(target=put, args=(tmp_path, *bundles)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(writer.poll() is None for writer in writers):
        path, bundle = opened(tmp_path)
        assert bundle.digest.startswith(path.name[:12])
    for thread in threads:
        thread.join()
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    now, before = current(tmp_path), previous(tmp_path)
    assert now is not None
    assert before is not None
    assert held(tmp_path) == {now.name, before.name}
    assert now != before


def opened(folder: Path) -> tuple[Path, Bundle]:
    """As a node does: between asking and opening two installs may pass, then it asks again."""
    for _ in range(50):
        path = current(folder)
        assert path is not None
        try:
            return path, Bundle.open(path)
        except BundleError as error:
            if path.exists() or "No such file" not in str(error):
                raise
    raise TimeoutError("the file was gone 50 times")
