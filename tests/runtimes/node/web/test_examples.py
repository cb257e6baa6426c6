"""The examples of the documentation do what they say."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[4] / "docs" / "examples"
Films = dict[str, Path]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C client, compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("apt-get install gcc for this test")
    program = tmp_path_factory.mktemp("client") / "screen"
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-o", program, EXAMPLES / "screen.c"], check=True)
    return program


def run(client: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(part) for part in (client, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_c_client_over_tcp(client: Path, served: Any, films: Films) -> None:
    node = f"127.0.0.1:{served.server.port}"
    with served.clinic.working():
        decided, refused = run(client, node, films["plain"]), run(client, node, films["hand"])
    assert (decided.returncode, refused.returncode) == (0, 1)
    assert json.loads(decided.stdout) == served.client.get("/v1/results/1").json()
    assert json.loads(refused.stdout)["reason"] == "not_a_chest"


def test_c_client_over_a_unix_socket(client: Path, serve: Callable[..., Any], films: Films, tmp_path: Path) -> None:
    served = serve(socket=tmp_path / "node.sock", password="long enough")
    with served.clinic.working():
        asked = run(client, tmp_path / "node.sock", films["plain"])
        answered = run(client, tmp_path / "node.sock", films["plain"], EDGECXR_PASSWORD="long enough")
    assert (asked.returncode, "password" in json.loads(asked.stdout)["error"]) == (3, True)
    assert (answered.returncode, json.loads(answered.stdout)["status"]) == (0, "ok")


def test_c_client_has_no_result_to_tell(client: Path, served: Any, films: Films, tmp_path: Path) -> None:
    node = f"127.0.0.1:{served.server.port}"
    large = tmp_path / "large.dcm"
    large.write_bytes(bytes(5_000_000))
    assert "max_object_mb" in run(client, node, large).stdout
    assert run(client, node, large).returncode == 3
    assert run(client, node, tmp_path / "absent.dcm").returncode == 2
    assert run(client, "nonsense", films["plain"]).returncode == 2
    served.server.stop()
    gone = run(client, node, films["plain"])
    assert (gone.returncode, "cannot reach" in gone.stderr) == (3, True)


def test_python_example(films: Films) -> None:
    command = [sys.executable, str(EXAMPLES / "screen.py"), str(films["plain"]), str(films["hand"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "pneumonia" in done.stdout
    assert "refused, the body part is 'HAND'" in done.stdout


def test_python_example_without_a_film() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / "screen.py")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: " in done.stderr
