"""A real browser, driven over the WebDriver protocol with the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # W3C WebDriver: the key of an element's id
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
)


def missing() -> str | None:
    """What of a browser and its driver is not installed; None when both are."""
    if not any(map(shutil.which, BROWSERS)):
        return f"no browser: none of {', '.join(BROWSERS)} on PATH"
    return None if shutil.which("chromedriver") else "no chromedriver on PATH"


class Browser:
    """One session: a browser of its own profile."""

    def __init__(self, driver: str, width: int, height: int) -> None:
        self._driver = driver
        binary = next(filter(None, map(shutil.which, BROWSERS)))
        options = {"binary": binary, "args": [*_ARGUMENTS, f"--window-size={width},{height}"]}
        always = {"browserName": "chrome", "goog:chromeOptions": options}
        always["goog:loggingPrefs"] = {"browser": "WARNING"}
        always["timeouts"] = {"script": 60_000}
        made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": always}})
        self._path = f"/session/{made['sessionId']}"

    def close(self) -> None:
        """Ends the session and its browser."""
        self._send("DELETE", self._path)

    def open(self, address: str) -> None:
        """Goes to the address and waits until the page has loaded."""
        self._send("POST", f"{self._path}/url", {"url": address})

    def reload(self) -> None:
        """As the user's reload."""
        self._send("POST", f"{self._path}/refresh", {})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that the script returns, or that its promise comes to; `arguments[i]`."""
        return self._send(
            "POST", f"{self._path}/execute/sync", {"script": script, "args": list(arguments)}
        )

    def click(self, selector: str) -> None:
        """A real click on the element's middle."""
        self._send("POST", f"{self._path}/element/{self._find(selector)[ELEMENT]}/click", {})

    def click_twice(self, selector: str) -> None:
        """A double click of a slow hand, 0.3 s apart."""
        move = {"type": "pointerMove", "origin": self._find(selector), "x": 0, "y": 0}
        hit = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        actions = [move, *hit, {"type": "pause", "duration": 300}, *hit]
        mouse = {"type": "pointer", "id": "mouse", "actions": actions}
        self._send("POST", f"{self._path}/actions", {"actions": [mouse]})

    def press(self, key: str) -> None:
        """A real press of a key; a special one by its WebDriver code point."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self._send("POST", f"{self._path}/actions", {"actions": [keyboard]})

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._send(
            "POST", f"{self._path}/goog/cdp/execute", {"cmd": command, "params": parameters}
        )

    def complaints(self) -> list[str]:
        """Warnings and errors of the console since the last call."""
        entries = self._send("POST", f"{self._path}/se/log", {"type": "browser"})
        texts = [entry["message"] for entry in entries]
        return [text for text in texts if "willReadFrequently" not in text]  # the tests' reading

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self._send("GET", f"{self._path}/screenshot"))

    def _find(self, selector: str) -> Any:
        query = {"using": "css selector", "value": selector}
        return self._send("POST", f"{self._path}/element", query)

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._driver + path, data, method=method)
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=90) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()[:500]}") from None


@contextlib.contextmanager
def chromedriver() -> Iterator[str]:
    """A running chromedriver's address; it ends on leaving, with the browsers it started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["chromedriver", f"--port={port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "started successfully" in line:
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()
