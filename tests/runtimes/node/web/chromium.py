"""A headless Chromium, driven over its debugging pipe (Chrome DevTools Protocol)."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Browser"]

WAIT_S = 120.0


class Browser:
    """One page. A context manager; `folder` takes the profile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._pending = b""
        self.failures: list[str] = []  # what the console, the network or the content policy complained of

    def __enter__(self) -> "Browser":
        (read_here, write_there), (read_there, write_here) = os.pipe(), os.pipe()
        self._in, self._out = read_here, write_here
        command = [str(shutil.which("chromium")), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={self._folder}", "--hide-scrollbars", "about:blank"]
        # Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
        shell = f'exec 3<&{read_there} 4>&{write_there}; exec "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "chromium", *command],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        target = self._ask("Target.createTarget", {"url": "about:blank"}, page=False)["targetId"]
        self._session = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True}, page=False)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")
        return self

    def __exit__(self, *raised: object) -> None:
        self._ask("Browser.close", page=False)
        self._process.wait(WAIT_S)
        os.close(self._in)
        os.close(self._out)

    def size(self, width: int, height: int) -> None:
        """The viewport, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800}
        self._ask("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, url: str) -> None:
        """Load a page, and wait until its pictures are there."""
        self._ask("Page.navigate", {"url": url})
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def leave(self) -> None:
        """Let go of the page, its connections and its failures."""
        self._ask("Page.navigate", {"url": "about:blank"})
        self.until("location.href === 'about:blank'")
        self.failures.clear()

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self._ask("Runtime.evaluate", asked)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true. Raises TimeoutError."""
        limit = time.monotonic() + WAIT_S
        while not self.run(script):
            if time.monotonic() > limit:
                raise TimeoutError(f"never true: {script}")
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """The viewport as PNG."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", {"format": "png"})["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._ask("Page.printToPDF", {"printBackground": False})["data"])

    def _ask(self, method: str, parameters: dict[str, Any] | None = None, *, page: bool = True) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters or {}}
        if page:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._read(lambda item: item.get("id") == self._count)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            while b"\0" not in self._pending:
                chunk = os.read(self._in, 1 << 16)
                if not chunk:
                    raise EOFError("Chromium ended")
                self._pending += chunk
            line, self._pending = self._pending.split(b"\0", 1)
            message = json.loads(line)
            self._notice(message)
            if wanted(message):
                return dict(message)

    def _notice(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.failures.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif message.get("method") == "Runtime.exceptionThrown":
            self.failures.append(str(parameters["exceptionDetails"]))
