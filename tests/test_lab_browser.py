"""JupyterLab in a real browser: Run All shows no error, the picture is there."""

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
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from tests.roots import REPOSITORY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LESSONS = sorted((REPOSITORY / "lessons").glob("*.ipynb"))

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.rootless]

# What the page tells of itself. JupyterLab draws only the cells in view, so every cell is visited.
RUN_ALL = """
(async () => {
  const app = window.jupyterapp;
  await app.restored;
  const panel = () =>
    Array.from(app.shell.widgets('main')).find(widget => widget.content?.model?.cells);
  while (!panel()?.sessionContext?.session?.kernel)
    await new Promise(done => setTimeout(done, 100));
  await panel().sessionContext.ready;
  app.shell.activateById(panel().id);
  await app.commands.execute('notebook:run-all-cells');
  const cells = Array.from(panel().content.model.cells).filter(cell => cell.type === 'code');
  panel().content.activeCellIndex = 1;
  await panel().content.scrollToItem(1);
  await new Promise(done => setTimeout(done, 1000));
  const images = Array.from(document.querySelectorAll('.jp-Notebook img'));
  const texts = Array.from(panel().content.model.cells).filter(cell => cell.type === 'markdown')
    .map(cell => cell.sharedModel.getSource()).join('\\n');
  const links = Array.from(texts.matchAll(/\\]\\(([^)\\s]+)\\)/g)).map(found => found[1])
    .filter(target => !target.startsWith('https:'));
  const broken = [];
  for (const link of links) {
    const path = await panel().context.urlResolver.resolveUrl(link);
    await app.serviceManager.contents.get(path, {content: false}).catch(() => broken.push(link));
  }
  return {
    links: links.length, broken,
    counts: cells.map(cell => cell.executionCount),
    errors: cells.flatMap(cell => cell.outputs.toJSON())
      .filter(output => output.output_type === 'error').map(output => output.evalue),
    images: images.map(image => [image.naturalWidth, image.getBoundingClientRect().width]),
    last: JSON.stringify(cells.at(-1).outputs.toJSON()),
  };
})()
"""

SHOW = """
(async () => {
  await window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab THEME'});
  await new Promise(done => setTimeout(done, 500));
})()
"""


class Page:
    """One page of a browser, over the DevTools protocol (https://chromedevtools.github.io)."""

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


@pytest.fixture
def short_directory():
    """For the browser's socket, whose path has at most 107 bytes (unix(7))."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        yield directory


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt install chromium")
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_run_all_in_jupyterlab(path: Path, tmp_path: Path, short_directory: str):
    for name in ("lessons", "minicontainer"):  # a copy: the browser saves what it runs
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    names = ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR",
             "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")  # fmt: skip
    environment = {**os.environ, **{name: str(tmp_path) for name in names}}
    environment["TMPDIR"] = short_directory
    port, debug_port = free_port(), free_port()
    lab = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--IdentityProvider.token=", f"--notebook-dir={tmp_path}", "--expose-app-in-browser",
    ]  # fmt: skip
    browser = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
        f"--remote-debugging-port={debug_port}",
        f"--user-data-dir={tmp_path}/browser", "--window-size=1400,1000", "about:blank",
    ]  # fmt: skip
    with process(lab, env=environment, cwd=tmp_path):
        wait_for(f"http://127.0.0.1:{port}/api")
        with process(browser, env=environment):
            pages = json.loads(wait_for(f"http://127.0.0.1:{debug_port}/json"))
            page = Page(next(p["webSocketDebuggerUrl"] for p in pages if p["type"] == "page"))
            # A page without focus has no current notebook.
            page.call("Emulation.setFocusEmulationEnabled", enabled=True)
            page.call(
                "Page.navigate", url=f"http://127.0.0.1:{port}/lab/tree/lessons/{path.name}?reset"
            )
            deadline = time.monotonic() + 60
            while not page.evaluate("!!window.jupyterapp") and time.monotonic() < deadline:
                time.sleep(0.2)
            seen = page.evaluate(RUN_ALL)
            for theme in ("Light", "Dark"):
                page.evaluate(SHOW.replace("THEME", theme))
                picture = page.call("Page.captureScreenshot")["data"]
                (tmp_path / f"{theme}.png").write_bytes(base64.b64decode(picture))
    assert seen["errors"] == []
    assert seen["counts"] == list(range(1, len(seen["counts"]) + 1))
    assert "nothing is left over" in seen["last"]
    assert seen["links"] > 3
    assert seen["broken"] == []
    assert seen["images"], "no picture in the page"
    assert all(natural > 0 and shown > 100 for natural, shown in seen["images"])
