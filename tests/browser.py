"""A headless Chromium that tests talk to through a pipe: clicks, pictures, requests, errors."""

import base64
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")
"""Skips a test where no browser is installed."""
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run", "--disable-extensions"),
    # Without these there is no WebGL 2 on a machine without a graphics card.
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"),
    # A name that a page looks up leads nowhere.
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-dev-shm-usage"),
)
_SECONDS = 240
"""Enough on a machine with other work to do: no test depends on it."""


class Browser:
    """One page of a browser."""

    def __init__(self, folder: Path, width: int, height: int, *flags: str) -> None:
        to_browser, self._send = os.pipe()
        self._receive, from_browser = os.pipe()
        # The browser reads from 3 and writes to 4.
        command = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        options = [f"--user-data-dir={folder}", *_FLAGS, *flags]
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", str(PROGRAM), *options],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._rest, self._session = 0, b"", ""
        self._size = width, height
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
            width, height = self._size
            sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            self.call("Emulation.setDeviceMetricsOverride", **sizes)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._ask("Browser.close")
        self._process.terminate()
        self._process.wait(30)
        os.close(self._send)
        os.close(self._receive)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the debugging protocol on the page."""
        return self._ask(method, session=self._session, **parameters)

    def _ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {} if session is None else {"sessionId": session}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            content = os.read(self._receive, 1 << 20)
            if not content:
                raise OSError("the browser has ended")
            self._rest += content
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a file and wait until its viewer is ready or has given up."""
        self.call("Page.navigate", url=f"{path.resolve().as_uri()}{fragment}")
        self.wait_for("['ready', 'failed'].includes(document.getElementById('status')?.dataset.state)")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + _SECONDS
        while not self.value(condition):
            assert time.monotonic() < end, f"still not: {condition}"
            time.sleep(0.2)

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def status(self) -> dict[str, str]:
        """Return what the status element of a report page says of the viewer."""
        found: dict[str, str] = self.value("({...document.getElementById('status').dataset})")
        return found

    def picture(self, selector: str) -> npt.NDArray[np.uint8]:
        """Return a picture of an element `[row, col, color]`."""
        box = self.value(f"(({{x, y, width, height}}) => ({{x, y, width, height}}))"
                         f"(document.querySelector('{selector}').getBoundingClientRect())")  # fmt: skip
        content = self.call("Page.captureScreenshot", clip={**box, "scale": 1})["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))

    def requests(self) -> list[str]:
        """Return the addresses that were asked for, except data inside the page."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent if not each["request"]["url"].startswith(("data:", "blob:"))]

    def complaints(self) -> list[str]:
        """Return what the browser logged as errors, and exceptions that nothing caught."""
        logged = [event["params"]["entry"] for event in self.events if event["method"] == "Log.entryAdded"]
        thrown = [event["params"] for event in self.events if event["method"] == "Runtime.exceptionThrown"]
        return [entry["text"] for entry in logged if entry["level"] == "error"] + [str(each) for each in thrown]


@contextmanager
def browser(folder: Path, *flags: str, width: int = 1400, height: int = 980) -> Iterator[Browser]:
    """Start a browser whose profile is in a folder of its own."""
    with Browser(folder, width, height, *flags) as found:
        yield found
