"""Password, sessions, throttle, Host and origin, over real connections."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import write_certificate

from edgecxr.errors import ConfigError
from edgecxr.runtimes.node.web.access import ADDRESSES, Sessions, Throttle

PASSWORD = "röntgen & co"
BEARER = {"authorization": f"Bearer {PASSWORD}".encode()}


@pytest.fixture
def guarded(serve: Callable[..., Any]) -> Any:
    """A clinic with a password."""
    return serve(password=PASSWORD)


def log_in(served: Any, password: str = PASSWORD) -> httpx.Response:
    answer: httpx.Response = served.client.post(
        "/login", data={"password": password, "next": "/health"}, headers={"origin": served.url}
    )
    return answer


def test_nothing_but_liveness_is_told_without_the_password(guarded: Any) -> None:
    for path in ("/v1/results", "/v1/status", "/v1/results/1/film.png", "/openapi.json", "/events", "/rows"):
        answer = guarded.client.get(path)
        assert answer.status_code == 401
        assert "Bearer" in answer.json()["error"]
    assert guarded.client.post("/v1/screen", content=b"x").status_code == 401
    assert guarded.client.get("/healthz").status_code == 200
    assert guarded.client.get("/static/style.css").status_code == 200


def test_programs_use_bearer_or_basic(guarded: Any) -> None:
    assert guarded.client.get("/v1/results", headers=BEARER).status_code == 200
    assert guarded.client.get("/v1/results", auth=("anyone", PASSWORD)).status_code == 200
    assert guarded.client.get("/v1/results", auth=("anyone", "wrong")).status_code == 401
    assert guarded.client.get("/v1/results", headers={"authorization": "Basic ??"}).status_code == 401


def test_metrics_are_open_to_this_machine_only(guarded: Any) -> None:
    assert guarded.client.get("/metrics").status_code == 200
    assert guarded.client.get("/readyz").status_code == 200


def test_a_browser_is_sent_to_the_form_and_back(guarded: Any) -> None:
    answer = guarded.client.get("/health?x=1", headers={"accept": "text/html"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fhealth%3Fx%3D1"
    assert guarded.client.get(answer.headers["location"]).status_code == 200
    answer = log_in(guarded)
    assert (answer.status_code, answer.headers["location"]) == (303, "/health")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert guarded.client.get("/v1/status").status_code == 200
    guarded.client.post("/logout", headers={"origin": guarded.url})
    assert guarded.client.get("/v1/status").status_code == 401


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb"])
def test_login_leads_nowhere_else(guarded: Any, target: str) -> None:
    answer = guarded.client.post("/login", data={"password": PASSWORD, "next": target})
    assert answer.headers["location"] == "/"


def test_a_forged_cookie_opens_nothing(guarded: Any) -> None:
    log_in(guarded)
    token = guarded.client.cookies["edgecxr"]
    for forged in (token[:-1] + ("0" if token[-1] != "0" else "1"), "9" + token, "x", "é.ü"):
        headers = {"cookie": f"edgecxr={forged}".encode()}
        assert httpx.get(f"{guarded.url}/v1/status", headers=headers).status_code == 401


def test_guessing_is_slowed_down_and_the_rest_goes_on(guarded: Any) -> None:
    codes = [log_in(guarded, "guess").status_code for _ in range(7)]
    assert codes == [401, 401, 401, 401, 429, 429, 429]
    held = guarded.client.get("/v1/status", headers=BEARER)
    assert held.status_code == 429
    assert int(held.headers["retry-after"]) >= 1
    assert guarded.client.get("/healthz").status_code == 200


def test_throttle_is_by_address_and_bounded() -> None:
    throttle = Throttle()
    for _ in range(8):
        throttle.failed("10.0.0.1", 100.0)
    assert throttle.wait_s("10.0.0.1", 100.0) == 8.0
    assert throttle.wait_s("10.0.0.2", 100.0) == 0.0
    assert throttle.wait_s("10.0.0.1", 109.0) == 0.0
    for _ in range(30):
        throttle.failed("10.0.0.1", 110.0)
    assert throttle.wait_s("10.0.0.1", 110.0) == 300.0
    throttle.passed("10.0.0.1")
    assert throttle.wait_s("10.0.0.1", 110.0) == 0.0
    for number in range(ADDRESSES + 10):
        throttle.failed(str(number), 110.0)
    assert len(throttle._failures) == ADDRESSES


def test_a_session_ends() -> None:
    sessions = Sessions()
    token = sessions.issue(1000.0)
    assert sessions.valid(token, 1000.0 + 11 * 3600)
    assert not sessions.valid(token, 1000.0 + 13 * 3600)
    assert not Sessions().valid(token, 1000.0)


def test_a_cookie_that_was_given_back_opens_nothing(guarded: Any) -> None:
    log_in(guarded)
    copied = guarded.client.cookies["edgecxr"]
    assert guarded.client.post("/logout", headers={"origin": guarded.url}).status_code == 303
    guarded.client.cookies.clear()
    assert guarded.client.get("/v1/status", headers={"cookie": f"edgecxr={copied}"}).status_code == 401


def test_sessions_that_were_ended_are_forgotten_when_they_expire() -> None:
    sessions = Sessions()
    for hour in range(48):
        sessions.end(sessions.issue(hour * 3600.0), hour * 3600.0)
    assert len(sessions._ended) <= 12


def test_another_name_for_loopback_is_not_answered(served: Any) -> None:
    answer = served.client.get("/v1/results", headers={"host": "evil.example:8080"})
    assert answer.status_code == 421
    for host in ("localhost:8080", "127.0.0.1", "[::1]:8080"):
        assert served.client.get("/v1/results", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://[::1"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_other_sites_cannot_post(served: Any, headers: dict[str, str]) -> None:
    answer = served.client.post("/v1/screen", content=b"x", headers=headers)
    assert answer.status_code == 403
    assert sum(served.clinic.spool.counts().values()) == 0


def test_a_cookie_alone_does_not_post(guarded: Any) -> None:
    log_in(guarded)
    assert guarded.client.post("/results/1/retry").status_code == 403
    assert guarded.client.post("/results/1/retry", headers={"origin": guarded.url}).status_code == 404


def test_every_answer_has_the_policy(served: Any) -> None:
    for path in ("/", "/v1/results", "/v1/results/9", "/static/style.css", "/nothing"):
        headers = served.client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
    assert served.client.get("/").headers["cache-control"] == "no-store"
    assert served.client.get("/static/style.css").headers["cache-control"] == "no-cache"


def test_tls(serve: Callable[..., Any], tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    served = serve(tls={"certificate": certificate, "key": key}, password=PASSWORD)
    context = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(base_url=served.url.replace("http:", "https:"), verify=context) as client:
        assert client.get("/v1/status", headers=BEARER).json()["ready"] is True
        cookie = client.post("/login", data={"password": PASSWORD}).headers["set-cookie"]
        assert cookie.startswith("__Host-edgecxr=")
        assert "Secure" in cookie
    old = ssl.create_default_context(cafile=str(certificate))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
    with httpx.Client(verify=old) as client, pytest.raises(httpx.ConnectError, match=r"(?i)version|protocol|alert"):
        client.get(served.url.replace("http:", "https:"))


def test_a_certificate_that_is_none_is_told(serve: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"http\.tls: .*bad\.pem.*PEM files are wanted"):
        serve(tls={"certificate": tmp_path / "bad.pem", "key": tmp_path / "bad.pem"})
