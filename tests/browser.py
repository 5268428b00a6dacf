"""Chromium for the tests of pages, and a name that tries to be code."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
IN_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no chromium and chromedriver: apt-get install chromium chromium-driver",
    ),
]
FLAGS = (
    *(
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
    ),
    *("disable-component-update", "disable-sync", "disable-dev-shm-usage", "window-size=1280,800"),
)
HOSTILE = '<img src=x onerror="window.hacked=1">\'</script><script>window.hacked=1</script>@DATA@'


class Browser:
    """Chromium by the WebDriver protocol (W3C), as far as these tests need it."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [str(DRIVER), "--port=0"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "started successfully on port" in line)
        self.address = f"http://127.0.0.1:{line.split()[-1].rstrip('.')}/session"
        options = {
            "binary": CHROMIUM,
            "args": [f"--{flag}" for flag in (*FLAGS, f"user-data-dir={folder}")],
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self.post("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.address += f"/{session}"

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a command and return its value."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path, place: str = "") -> None:
        self.post(
            "/url", {"url": "about:blank"}
        )  # so that a change of the place alone loads the page anew too
        self.post("/url", {"url": path.as_uri() + place})

    def run(self, script: str, *args: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self.post("/execute/sync", {"script": script, "args": args})

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression holds, 10 s at most."""
        end = time.monotonic() + 10
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"still not so: {condition}"
            time.sleep(0.05)

    def texts(self, selector: str) -> list[str]:
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)",
            selector,
        )

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", selector)

    def press(self, key: str) -> None:
        keys = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def shape(self, width: int, *, dark: bool = False) -> None:
        """Set the width of the page and the colour scheme."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", {"features": [scheme]})

    def cdp(self, command: str, params: dict[str, Any]) -> Any:
        return self.post("/goog/cdp/execute", {"cmd": command, "params": params})

    def picture(self) -> bytes:
        with urllib.request.urlopen(f"{self.address}/screenshot", timeout=60) as answer:
            return base64.b64decode(json.load(answer)["value"])

    def log(self) -> list[str]:
        """Return what the console got since the last call."""
        return [entry["message"] for entry in self.post("/se/log", {"type": "browser"})]

    def close(self) -> None:
        """End Chromium, and the driver with it."""
        request = urllib.request.Request(self.address, method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
