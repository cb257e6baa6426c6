"""Who may ask: password, session cookie, same-origin and Host checks, and a brake on guessing."""

import hashlib
import hmac
import ipaddress
import secrets
import time
from base64 import b64decode
from binascii import Error as Base64Error
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgecxr.runtimes.node.config import HttpSection

__all__ = ["Access", "Guard", "Sessions", "Throttle", "client_address"]

SESSION_S = 12 * 3600  # a working day
LOOPBACK = ("127.0.0.1", "::1", "localhost")
OPEN = ("/healthz", "/login")
PROBES = ("/metrics", "/readyz")  # open to programs of this machine
FREE_FAILURES = 5
LONGEST_WAIT_S = 300.0
FORGET_S = 3600.0
ADDRESSES = 4096  # remembered at most
SAFE = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; object-src 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Throttle:
    """Failures per address: five are free, then each doubles the wait, up to five minutes. Others are not held up."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}  # address -> (count, time of the last), oldest first

    def wait_s(self, address: str, now: float) -> float:
        """Seconds that this address must still wait; 0 when it may try."""
        count, last = self._failures.get(address, (0, 0.0))
        if count < FREE_FAILURES or now - last > FORGET_S:
            return 0.0
        return max(0.0, last + min(LONGEST_WAIT_S, 2.0 ** (count - FREE_FAILURES)) - now)

    def failed(self, address: str, now: float) -> None:
        """Count a wrong password."""
        count, last = self._failures.pop(address, (0, 0.0))
        self._failures[address] = (1 if now - last > FORGET_S else count + 1, now)
        if len(self._failures) > ADDRESSES:
            del self._failures[next(iter(self._failures))]

    def passed(self, address: str) -> None:
        """Forget the failures of an address that knew the password."""
        self._failures.pop(address, None)


class Sessions:
    """Signed session tokens ``<expiry>.<nonce>.<HMAC-SHA-256>``; the key lives as long as the process.

    A token that was given back opens nothing, though it has not expired.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._ended: dict[str, int] = {}  # token -> its expiry

    def issue(self, now: float) -> str:
        """A token that is good for SESSION_S."""
        body = f"{int(now) + SESSION_S}.{secrets.token_hex(8)}"
        return f"{body}.{self._sign(body)}"

    def valid(self, token: str, now: float) -> bool:
        """Whether we signed it, and it has not expired."""
        body, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(body).encode()):
            return False
        return token not in self._ended and _expiry(body) > now

    def end(self, token: str, now: float) -> None:
        """Take a token back."""
        if self.valid(token, now):
            self._ended = {known: expiry for known, expiry in self._ended.items() if expiry > now}
            self._ended[token] = _expiry(token)

    def _sign(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()


class Access:
    """The rules of one server: what its section of the configuration asks of a request."""

    def __init__(self, section: HttpSection) -> None:
        self.password = section.password
        self.secure = section.tls is not None
        self.local = section.socket is None and section.host in LOOPBACK
        self.cookie = "__Host-edgecxr" if self.secure else "edgecxr"
        self.sessions = Sessions()
        self.throttle = Throttle()

    def check(self, password: str, address: str) -> float | None:
        """None when the password is right, else the seconds to wait before another try (0: none)."""
        now = time.monotonic()
        waiting = self.throttle.wait_s(address, now)
        if waiting:
            return waiting
        if self.password is None or _same(password, self.password):
            self.throttle.passed(address)
            return None
        self.throttle.failed(address, now)
        return self.throttle.wait_s(address, now)

    def has_session(self, headers: Headers) -> bool:
        """Whether the request brings a session cookie of ours."""
        return self.sessions.valid(self._token(headers), time.time())

    def open_session(self, response: Response) -> None:
        """Set the cookie: HttpOnly, SameSite=Strict, Secure where the server speaks TLS."""
        token = self.sessions.issue(time.time())
        response.set_cookie(
            self.cookie, token, max_age=SESSION_S, path="/", secure=self.secure, httponly=True, samesite="strict"
        )

    def close_session(self, headers: Headers, response: Response) -> None:
        """Take the cookie back, and make it worthless to whoever has a copy."""
        self.sessions.end(self._token(headers), time.time())
        response.delete_cookie(self.cookie, path="/", secure=self.secure, httponly=True, samesite="strict")

    def _token(self, headers: Headers) -> str:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return "" if morsel is None else morsel.value


class Guard:
    """ASGI middleware: asks `Access` before a request reaches the application, and adds the security headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                _harden(MutableHeaders(scope=message), scope["path"])
            await send(message)

        answer = self._refusal(scope, Headers(scope=scope)) or self._app
        await answer(scope, receive, hardened)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that goes no further; None for one that may pass."""
        if self._access.local and _hostname(headers.get("host", "")) not in LOOPBACK:
            return _problem(421, "this server answers to localhost and 127.0.0.1 only; use that name in the address")
        if scope["method"] not in SAFE and not _same_origin(headers):
            return _problem(403, "the request comes from a page of another site, so it is not followed")
        return None if self._is_open(scope) else self._unauthorized(scope, headers)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        if self._access.password is None or path in OPEN or path.startswith("/static/"):
            return True
        return path in PROBES and client_address(scope) in ("", "127.0.0.1", "::1")

    def _unauthorized(self, scope: Scope, headers: Headers) -> Response | None:
        given = _credentials(headers.get("authorization", ""))
        if given is not None:
            waiting = self._access.check(given, client_address(scope))
            if waiting is None:
                return None
            if waiting:
                told = f"too many wrong passwords from this address: try again in {_whole(waiting)} s"
                return _problem(429, told, {"retry-after": _whole(waiting)})
        elif self._access.has_session(headers):
            # Browsers send Origin with every such request; one without it comes from no page of ours.
            return None if scope["method"] in SAFE or headers.get("origin") else _problem(403, "Origin is missing")
        return _challenge(scope, headers)


def client_address(scope: Scope) -> str:
    """The other side's address, an IPv6 one cut to its /64; "" on a Unix socket."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _expiry(token: str) -> int:
    return int(token.partition(".")[0])


def _same(first: str, second: str) -> bool:
    """Compare in a time that tells neither length nor place of a difference."""
    return hmac.compare_digest(*(hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (first, second)))


def _credentials(header: str) -> str | None:
    """The password in an Authorization header (Bearer, or Basic with any user name); None where there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1").decode("utf-8", "replace")  # ASGI headers are bytes
    if scheme.lower() != "basic":
        return None
    try:
        return b64decode(value.strip(), validate=True).decode("utf-8", "replace").partition(":")[2]
    except (Base64Error, ValueError):
        return ""


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same_origin(headers: Headers) -> bool:
    """False for what a browser sends on behalf of another site's page (Fetch Metadata, Origin)."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == headers.get("host")
    except ValueError:  # no browser's: brackets that are not those of an IPv6 address
        return False


def _challenge(scope: Scope, headers: Headers) -> Response:
    browser = "sec-fetch-mode" in headers or "text/html" in headers.get("accept", "")
    if browser and scope["method"] == "GET" and not scope["path"].startswith("/v1/"):
        wanted = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='')}", status_code=303)
    challenge = {} if browser else {"www-authenticate": 'Basic realm="EdgeCXR", charset="UTF-8"'}
    return _problem(401, "a password is needed: Authorization: Bearer PASSWORD, or Basic with any user name", challenge)


def _problem(status: int, error: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": error}, status, headers=headers)


def _whole(seconds: float) -> str:
    return str(int(seconds) + 1)


def _harden(headers: MutableHeaders, path: str) -> None:
    for name, value in HEADERS.items():
        headers[name] = value
    # Scripts and styles are asked for anew each time (304), so that they are those of the page after an upgrade.
    headers.setdefault("cache-control", "no-cache" if path.startswith("/static/") else "no-store")
