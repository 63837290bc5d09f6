"""The lessons: they run the same everywhere, teach in the agreed order, and their checks judge.

What a notebook prints is compared by nbval, as root and as an ordinary user; the rest of this file
guards what nbval cannot see (a notebook stripped of its outputs would pass it).
"""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest

from minicontainer.lab import catalogue, leaks, regenerate, workbench
from minicontainer.lab.lesson import is_of_lessons
from tests import lesson_answers
from tests.roots import REPOSITORY

LESSONS = sorted((REPOSITORY / "lessons").glob("*.ipynb"))
TAGS = {"nbval-ignore-output", "raises-exception"}
SECONDS_A_LESSON = 30

pytestmark = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def environment(home: Path) -> dict[str, str]:
    """A home of its own, writable by anybody: no progress, no start-up files of a user show."""
    home.mkdir(exist_ok=True)
    home.chmod(0o777)
    names = ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "XDG_STATE_HOME")
    return {name: str(home) for name in names}


@pytest.fixture
def needs_workbench():
    try:
        with workbench.Workbench() as bench:
            bench.shell("true")
    except workbench.WorkbenchError as reason:
        pytest.skip(str(reason))


def run_nbval(path: Path, home: Path, before_command: list[str]) -> None:
    """nbval, strict, in a process of its own; nothing may be left and it must not take long."""
    before = leaks.snapshot()
    variables = [f"{name}={value}" for name, value in environment(home).items()]
    start = time.monotonic()
    done = subprocess.run(
        [*before_command, "env", *variables, sys.executable, "-m", "pytest", "--nbval", str(path),
         "--nbval-cell-timeout=60", "-p", "no:cacheprovider", "-q", "--color=no"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    took = time.monotonic() - start
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{len(code_cells(path))} passed" in done.stdout
    assert took < SECONDS_A_LESSON
    assert leaks.settled(before, concerns=is_of_lessons) == []


# --- they run -----------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.rootless
def test_says_what_is_stored(path, tmp_path, needs_workbench):
    run_nbval(path, tmp_path / "home", [])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="the test before this one ran as an ordinary user")
def test_says_the_same_to_an_ordinary_user(path, tmp_path, ordinary_user):
    run_nbval(path, tmp_path / "home", ordinary_user)


@pytest.mark.root
@pytest.mark.rootless
def test_regenerating_changes_nothing(path, needs_workbench):
    stored = path.read_text()
    fresh = regenerate.executed(read(path))
    assert regenerate.compare(read(path), fresh) == []
    ignored = [c for c in code_cells(path) if "nbval-ignore-output" in c.metadata.get("tags", [])]
    if not ignored:
        assert regenerate.text_of(fresh) == stored
    assert regenerate.text_of(regenerate.normalised(read(path))) == stored


# --- what is stored -----------------------------------------------------------------------------


def test_outputs_are_stored(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    silent = [cell.source for cell in cells if not cell.outputs]
    # A cell that prints nothing only defines something.
    assert all(_only_defines(source) for source in silent), silent


def _only_defines(source: str) -> bool:
    kinds = (ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Assign)
    return all(isinstance(node, kinds) for node in ast.parse(source).body)


def test_errors_only_where_they_are_meant(path):
    for cell in code_cells(path):
        failed = any(output.output_type == "error" for output in cell.outputs)
        assert failed == ("raises-exception" in cell.metadata.get("tags", [])), cell.source


def test_only_counted_cells_are_not_compared(path):
    cells = code_cells(path)
    tags = [set(cell.metadata.get("tags", [])) for cell in cells]
    assert set().union(*tags) <= TAGS
    ignored = [number for number, names in enumerate(tags) if "nbval-ignore-output" in names]
    assert len(ignored) == lesson_answers.of(path.name[:2]).IGNORED_CELLS
    for number in ignored:
        assert re.search(r"^assert ", cells[number + 1].source, re.MULTILINE)


def test_recorded_runs_are_what_is_stored(path):
    for number, text in getattr(catalogue.content(path.name[:2]), "RECORDED", {}).items():
        (cell,) = (cell for cell in code_cells(path) if f'recorded("{number}")' in cell.source)
        assert cell.outputs[0].text == text


def test_nothing_of_this_machine_is_in_it(path):
    text = path.read_text()
    assert str(REPOSITORY) not in text
    assert not re.search(r"/(home|Users|work|tmp/pytest)[-/]|\.venv|site-packages", text)
    assert "image/png" not in text


# --- the template -------------------------------------------------------------------------------


def test_cells_are_small_and_prose_is_short(path):
    cells = code_cells(path)
    assert 30 <= len(read(path).cells) <= 50
    lines = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in cells]
    assert 2 <= statistics.median(lines) <= 5
    assert sorted(lines)[int(len(lines) * 0.9)] <= 12
    words = len(re.sub(r"```.*?```", "", prose(path), flags=re.DOTALL).split())
    assert 10 <= words / sum(lines) <= 20


def test_parts_stand_in_the_agreed_order(path):
    text = "\n".join(cell.source for cell in read(path).cells)
    parts = [
        "**The question.**", "**Objectives.**", "**Time:**", "**Needs:**",
        "Where it stands in history", "](images/", f'start("{path.name[:2]}")', "**Predict.**",
        "Build it", "## Exercises", "## How runc and Docker do it", "## Key points", "## Recall",
        "finish()", "[all lessons](README.md)",
    ]  # fmt: skip
    places = [text.find(part) for part in parts]
    assert dict(zip(parts, places, strict=True)) == dict(zip(parts, sorted(places), strict=True))
    assert -1 not in places
    for year in ("1979", "2006", "2008", "2013"):
        assert year in text


def test_each_prediction_is_followed_by_a_run_and_a_folded_answer(path):
    cells = read(path).cells
    asked = {}
    for number, cell in enumerate(cells):
        found = re.fullmatch(r'predict\("(\d\d\.[a-z])", None\)', cell.source)
        if found:
            before, run, answer = cells[number - 1], cells[number + 1], cells[number + 2]
            assert before.source.count("\n- **") >= 3, "the letters stand before the prediction"
            assert run.cell_type == "code"
            assert answer.source.startswith("<details><summary>Answer</summary>\n\n**")
            asked[found[1]] = re.search(r"\*\*([a-c])", answer.source)[1]
    assert asked == catalogue.content(path.name[:2]).PREDICTIONS
    assert 3 <= len(asked) <= 5


def test_answers_are_folded_and_folds_are_closed(path):
    text = prose(path)
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>")
    recall = text.partition("## Recall")[2]
    assert len(re.findall(r"<summary>\d\. ", recall)) == 5


def test_links_and_pictures_resolve(path):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    assert targets
    for target in targets:
        assert target.startswith("https://") or (path.parent / target).is_file(), target
    pictures = [target for target in targets if target.endswith(".svg")]
    assert pictures
    for picture in pictures:
        tree = ElementTree.parse(path.parent / picture).getroot()
        assert tree.find("{*}title") is not None
        assert tree.find("{*}desc") is not None
        assert tree.get("viewBox")
        assert tree.find("{*}rect") is not None, "a panel of its own, for dark pages"


def test_readme_lists_what_exists(path):
    listed = re.findall(r"\]\((\d\d-[^)]+\.ipynb)\)", (path.parent / "README.md").read_text())
    assert listed == [lesson.name for lesson in LESSONS]


def test_the_function_built_is_the_packages(path):
    names, file = lesson_answers.of(path.name[:2]).BUILDS
    for name in names.split():
        built = [_function(cell.source, name) for cell in code_cells(path)]
        (mine,) = filter(None, built)
        theirs = _function((REPOSITORY / file).read_text(), name)
        assert ast.unparse(mine) == ast.unparse(theirs)
        assert len(ast.unparse(mine).splitlines()) <= 30


class _Unannotated(ast.NodeTransformer):
    """`found: list[str] = []` as `found = []`."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        plain = ast.Assign([node.target], node.value) if node.value else ast.Pass()
        return ast.copy_location(plain, node)


def _function(source: str, name: str) -> ast.FunctionDef | None:
    """A function without its docstring and annotations."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            if ast.get_docstring(node):
                del node.body[0]
            node.returns = None
            for argument in filter(None, [*node.args.args, node.args.vararg]):
                argument.annotation = None
            return _Unannotated().visit(node)
    return None


# --- the exercises ------------------------------------------------------------------------------


def stubs(path: Path) -> dict[str, tuple[str, str]]:
    """Exercise number -> (source of the cell with the stub, solution from the next text)."""
    found = {}
    cells = read(path).cells
    for number, cell in enumerate(cells):
        check = re.search(r'^check\("([\d.]+)"\)', cell.source, re.MULTILINE)
        if cell.cell_type == "code" and check:
            solution = re.search(r"```python\n(.*?)```", cells[number + 1].source, re.DOTALL)
            assert solution, f"no solution folded after {check[1]}"
            found[check[1]] = (cell.source, solution[1])
    return found


def splice(stub: str, answer: str) -> str:
    """The stub's cell with the answer's function in the place of its own."""
    name = ast.parse(answer).body[-1].name
    (function,) = (node for node in ast.parse(stub).body if getattr(node, "name", "") == name)
    lines = stub.splitlines()
    end = function.end_lineno
    while lines[end : end + 1] and lines[end].startswith(" "):
        end += 1  # the comment of the stub
    lines[function.lineno - 1 : end] = answer.splitlines()
    return "\n".join(lines)


def test_every_exercise_has_a_stub_hints_and_wrong_answers(path):
    exercises = catalogue.content(path.name[:2]).EXERCISES
    assert list(stubs(path)) == list(exercises)
    assert len(exercises) >= 3
    for number, exercise in exercises.items():
        stub, solution = stubs(path)[number]
        assert f"def {exercise.answer}(" in stub
        assert len(exercise.hints) == 3
        for line in solution.splitlines()[1:]:
            assert line.strip() not in " ".join(exercise.hints), "a hint gives the answer"
        assert len(lesson_answers.of(path.name[:2]).WRONG[number]) >= 2


@pytest.mark.root
@pytest.mark.rootless
def test_checks_tell_right_from_wrong(path, needs_workbench):
    notebook = read(path)
    wrong = lesson_answers.of(path.name[:2]).WRONG
    expected = []
    for number, (stub, solution) in stubs(path).items():
        for answer, words in [*wrong[number], (solution, f"{number}: passed.")]:
            notebook.cells.append(nbformat.v4.new_code_cell(splice(stub, answer)))
            expected.append((answer, words))
    cells = regenerate.executed(notebook).cells
    for number, (stub, _) in stubs(path).items():
        (untouched,) = (cell for cell in cells if cell.source == stub)
        assert untouched.outputs[0].text.startswith(f"{number}: not attempted yet.")
    for cell, (answer, words) in zip(cells[-len(expected) :], expected, strict=True):
        said = cell.outputs[0].text
        assert words in said, (answer, said)
        assert ("passed" in said) == ("passed" in words), (answer, said)


@pytest.mark.root
@pytest.mark.rootless
def test_cells_can_run_twice_and_out_of_order(path, needs_workbench):
    """Every cell again, from the last to the first: a muddled attendee gets words, not errors."""
    notebook = read(path)
    again = [nbformat.v4.new_code_cell(c.source) for c in reversed(code_cells(path))]
    notebook.cells.extend(again)
    regenerate.executed(notebook)  # raises when a cell does
