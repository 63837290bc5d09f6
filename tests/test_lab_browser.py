"""JupyterLab in a real browser: Run All shows no error, the picture is there."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, NO_CHROMIUM, browser, free_port, process, wait_for
from tests.roots import REPOSITORY

# Where the screenshots stay, to be looked at; else with pytest's other temporary files
ARTIFACTS = os.environ.get("MINICONTAINER_ARTIFACTS")

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


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_run_all_in_jupyterlab(path: Path, tmp_path: Path):
    for name in ("lessons", "minicontainer"):  # a copy: the browser saves what it runs
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    names = ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR",
             "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")  # fmt: skip
    environment = {**os.environ, **{name: str(tmp_path) for name in names}}
    port = free_port()
    lab = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--IdentityProvider.token=", f"--notebook-dir={tmp_path}", "--expose-app-in-browser",
    ]  # fmt: skip
    pictures = Path(ARTIFACTS or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    with process(lab, env=environment, cwd=tmp_path):
        wait_for(f"http://127.0.0.1:{port}/api")
        with browser(tmp_path / "browser", environment) as page:
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
                page.screenshot(pictures / f"{path.stem}-{theme.lower()}.png")
    assert seen["errors"] == []
    assert seen["counts"] == list(range(1, len(seen["counts"]) + 1))
    assert "nothing is left over" in seen["last"]
    assert seen["links"] > 3
    assert seen["broken"] == []
    assert seen["images"], "no picture in the page"
    assert all(natural > 0 and shown > 100 for natural, shown in seen["images"])
