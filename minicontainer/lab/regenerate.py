"""Run the lessons and store what they say: python -m minicontainer.lab.regenerate [--check] [02 …]

Each lesson runs from top to bottom in a fresh kernel, with a home of its own, and is written back
with its outputs. What depends on the machine or on the editor (metadata, how output was cut into
pieces) is left out, so a second run changes nothing; cells that show figures keep those that they
have. With --check nothing is written: the exit status is 1 when a lesson says something else than
what is stored.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat
from nbformat import NotebookNode

LESSONS = Path(__file__).resolve().parent.parent.parent / "lessons"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SECONDS_A_CELL = 60
# Cells that show a fact of this machine; the cell after each of them asserts what counts.
IGNORED = "nbval-ignore-output"


def main(words: list[str]) -> int:
    check = "--check" in words
    names = [word for word in words if word != "--check"]
    if any(name.startswith("-") for name in names):
        print(__doc__, file=sys.stderr)
        return 2
    differs = False
    for path in _chosen(names):
        stored = nbformat.read(path, as_version=4)
        fresh = executed(stored)
        difference = compare(stored, fresh)
        differs |= bool(difference)
        print(f"{path.name}: {'differs' if difference else 'as stored'}")
        print("\n".join(difference), end="\n" if difference else "")
        if not check:
            path.write_text(text_of(_with_old_figures(stored, fresh)))
    return 1 if check and differs else 0


def _chosen(names: list[str]) -> list[Path]:
    everything = sorted(LESSONS.glob("[0-9][0-9]-*.ipynb"))
    if not names:
        return everything
    chosen = [path for path in everything if path.name[:2] in names or path.name in names]
    if len(chosen) < len(names):
        raise SystemExit(f"no such lesson among: {', '.join(path.name for path in everything)}")
    return chosen


def executed(notebook: NotebookNode) -> NotebookNode:
    """A copy of the notebook with the outputs of a run in a fresh kernel.

    Raises nbclient's CellExecutionError when a cell fails that is not tagged raises-exception.
    """
    fresh = nbformat.from_dict(notebook)
    with tempfile.TemporaryDirectory(prefix="minicontainer-lessons-") as home:
        saved = dict(os.environ)
        # An attendee's own progress, start-up files and shell settings must not show.
        os.environ.update(HOME=home, XDG_STATE_HOME=home, IPYTHONDIR=home, JUPYTER_RUNTIME_DIR=home)
        try:
            nbclient.NotebookClient(
                fresh,
                timeout=SECONDS_A_CELL,
                kernel_name="python3",
                resources={"metadata": {"path": str(LESSONS)}},
                record_timing=False,
            ).execute()
        finally:
            os.environ.clear()
            os.environ.update(saved)
    return normalised(fresh)


def normalised(notebook: NotebookNode) -> NotebookNode:
    """Without what differs from run to run and from editor to editor."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number:02}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return notebook


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Consecutive pieces of one stream as one output."""
    joined: list[NotebookNode] = []
    for output in outputs:
        output.pop("metadata", None) if output.output_type == "stream" else None
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def compare(stored: NotebookNode, fresh: NotebookNode) -> list[str]:
    """Lines of a unified difference; what ignored cells show does not count."""
    old, new = (_without_ignored(notebook).splitlines() for notebook in (stored, fresh))
    return list(difflib.unified_diff(old, new, "stored", "fresh", lineterm="", n=2))


def _without_ignored(notebook: NotebookNode) -> str:
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if IGNORED in cell.metadata.get("tags", []):
            cell.outputs = []
    return text_of(copy)


def _with_old_figures(stored: NotebookNode, fresh: NotebookNode) -> NotebookNode:
    """Ignored cells keep their stored output, or every run would change the file.

    To renew one, clear its output first.
    """
    old = {cell.source: cell.outputs for cell in stored.cells if cell.get("outputs")}
    for cell in fresh.cells:
        if IGNORED in cell.metadata.get("tags", []):
            cell.outputs = old.get(cell.source, cell.outputs)
    return fresh


def text_of(notebook: NotebookNode) -> str:
    """The file, as nbformat writes it; text in lists of lines, so that git shows lines."""
    return re.sub(r"\n*\Z", "\n", nbformat.writes(notebook, version=4))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
