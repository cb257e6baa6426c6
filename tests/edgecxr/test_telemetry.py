"""Nothing is reported to anyone: proved in a process of its own with the network cut and a home that is watched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgecxr

CHECKOUT = Path(edgecxr.__file__).parents[1]
WATCH = """
import sys
seen = []
WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.fork", "os.posix_spawn")
sys.addaudithook(lambda event, args: seen.append(event) if event in WATCHED else None)
"""
REPORT = """
import time
time.sleep(0.2)
print(sorted(set(seen)), sorted(name for name in sys.modules if name.startswith("openvino_telemetry.")))
"""
SILENT = "[] []"


def offline() -> list[str]:
    """The command that runs another without a network; empty where the system has none."""
    unshare = shutil.which("unshare")
    allowed = unshare and subprocess.run([unshare, "-rn", "true"], check=False, capture_output=True).returncode == 0
    return [str(unshare), "-rn"] if allowed else []


def run_offline(code: str, home: Path) -> str:
    """What the code prints, in a fresh process without a network (where the system can cut it) and with this home."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment |= {"HOME": str(home), "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [*offline(), sys.executable, "-c", WATCH + code + REPORT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_watch_sees_a_reporter_that_is_left_on(tmp_path: Path) -> None:
    if not offline():
        pytest.skip("this system cannot cut the network of one process, so the reporter is not let loose")
    assert "os.fork" in run_offline("import openvino", tmp_path)
    assert (tmp_path / "intel").is_dir()


def test_openvino_reports_nothing_and_writes_nothing_home(tiny_bundle: Path, tmp_path: Path) -> None:
    code = f"""
from edgecxr.bundle import Bundle
from edgecxr.runtimes.registry import open_engine
bundle = Bundle.open({str(tiny_bundle)!r})
assert open_engine(bundle, "openvino").run(bundle.golden().frames[:1])
"""
    assert run_offline(code, tmp_path) == SILENT
    assert not list(tmp_path.iterdir())


@pytest.mark.train
def test_nncf_reports_nothing_and_writes_nothing_home(tmp_path: Path) -> None:
    code = """
from edgecxr import telemetry
telemetry.switch_off()
telemetry.switch_off()
import nncf.telemetry
"""
    assert run_offline(code, tmp_path).endswith("[]")
    assert not (tmp_path / "intel").exists()


def test_a_reporter_that_the_host_loaded_first_is_silenced(tmp_path: Path) -> None:
    code = """
import openvino_telemetry
from edgecxr import telemetry
telemetry.switch_off()
instance = openvino_telemetry.Telemetry("host", "1", "tid", "ga4", enable_opt_in_dialog=False)
telemetry.switch_off()
instance.send_event("category", "action", "label")
"""
    assert run_offline(code, tmp_path).startswith("[] ")
