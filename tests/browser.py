"""A headless Chromium, driven over the DevTools protocol (https://chromedevtools.github.io)."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NO_CHROMIUM = "chromium is not installed: apt install chromium"


class Page:
    """One page of a browser."""

    def __init__(self, address: str) -> None:
        websocket = pytest.importorskip("websocket")
        self.connection = websocket.create_connection(address, suppress_origin=True, timeout=90)
        self.numbers = itertools.count(1)

    def call(self, method: str, **parameters) -> dict:
        number = next(self.numbers)
        self.connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.connection.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, script: str):
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path, **parameters) -> None:
        path.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", **parameters)["data"])
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for(address: str, seconds: float = 30) -> bytes:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def process(words: list[str], **options):
    started = subprocess.Popen(
        words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        **options,
    )  # fmt: skip
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


@contextlib.contextmanager
def browser(profile: Path, environment: dict[str, str] | None = None) -> Iterator[Page]:
    """An empty page of a browser that keeps everything below `profile`."""
    port = free_port()
    words = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
        f"--remote-debugging-port={port}", f"--user-data-dir={profile}",
        "--window-size=1400,1000", "about:blank",
    ]  # fmt: skip
    # For the browser's socket, whose path has at most 107 bytes (unix(7)).
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as short,
        process(words, env={**(environment or os.environ), "TMPDIR": short}),
    ):
        pages = json.loads(wait_for(f"http://127.0.0.1:{port}/json"))
        yield Page(next(p["webSocketDebuggerUrl"] for p in pages if p["type"] == "page"))
