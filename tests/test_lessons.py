"""The lessons: they run the same everywhere, teach in the agreed order, and their checks judge.

What a notebook prints is compared by nbval, as root and as an ordinary user; the rest of this file
guards what nbval cannot see (a notebook stripped of its outputs would pass it).
"""

from __future__ import annotations

import ast
import functools
import json
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
from jupyter_client.manager import start_new_kernel

from minicontainer.lab import catalogue, leaks, recordings, regenerate, workbench, workbench_limits
from minicontainer.lab.lesson import is_of_lessons
from tests import lesson_answers
from tests.roots import REPOSITORY

LESSONS = sorted((REPOSITORY / "lessons").glob("*.ipynb"))
TAGS = {"nbval-ignore-output", "raises-exception"}
SECONDS_A_LESSON = 30
SECONDS_ALL_LESSONS = 180
BUSY = 0.25  # share of the time that something waited for a processor: no lesson is timed then
WORDS = "fro"  # what codespell takes for a mistake and is none: "to and fro"

took: dict[str, float] = {}  # seconds of each lesson that nbval has run
busy: set[str] = set()  # lessons that ran while the machine was


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


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


def seconds_of_waiting() -> float:
    """How long since boot some process had to wait for a processor (kernel: accounting/psi.rst)."""
    try:
        text = Path("/proc/pressure/cpu").read_text()
    except OSError:
        return 0.0
    return int(text.split("total=")[1].split()[0]) / 1e6


def run_nbval(path: Path, home: Path, before_command: list[str]) -> None:
    """nbval, strict, in a process of its own; nothing may be left and it must not take long."""
    before = leaks.snapshot()
    variables = [f"{name}={value}" for name, value in environment(home).items()]
    start, waited = time.monotonic(), seconds_of_waiting()
    done = subprocess.run(
        [*before_command, "env", *variables, sys.executable, "-m", "pytest", "--nbval", str(path),
         "--nbval-cell-timeout=60", "-p", "no:cacheprovider", "-q", "--color=no"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    took[path.stem] = time.monotonic() - start
    if seconds_of_waiting() - waited > BUSY * took[path.stem]:
        busy.add(path.stem)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{len(code_cells(path))} passed" in done.stdout
    assert took[path.stem] < SECONDS_A_LESSON or path.stem in busy
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
def test_all_together_take_three_minutes(record_testsuite_property):
    if len(took) < len(LESSONS):
        pytest.skip("not all lessons have been run")
    record_testsuite_property("seconds of each lesson", took)
    print({name: round(seconds, 1) for name, seconds in took.items()})
    if busy:
        pytest.skip(f"the machine was busy with other things during {len(busy)} of the lessons: "
                    f"{sum(took.values()):.0f} s")  # fmt: skip
    assert sum(took.values()) < SECONDS_ALL_LESSONS, took


@functools.cache
def run_for_all_checks(path: Path) -> tuple[list, list, list]:
    """One run in one kernel, for three tests; it raises when a cell does that is not meant to.

    Returns the lesson's own cells, those with the answers to its exercises, and its code cells
    again, from the last to the first.
    """
    notebook = read(path)
    own = len(notebook.cells)
    for number, answer, _ in answers(path):
        notebook.cells.append(nbformat.v4.new_code_cell(splice(stubs(path)[number][0], answer)))
    with_answers = len(notebook.cells)
    again = [nbformat.v4.new_code_cell(c.source) for c in reversed(code_cells(path))]
    notebook.cells.extend(again)
    fresh = regenerate.executed(notebook)
    return fresh.cells[:own], fresh.cells[own:with_answers], fresh.cells[with_answers:]


@pytest.mark.root
@pytest.mark.rootless
def test_regenerating_changes_nothing(path, needs_workbench):
    stored, fresh = read(path), read(path)
    fresh.cells = run_for_all_checks(path)[0]
    assert regenerate.compare(stored, fresh) == []
    assert regenerate.text_of(regenerate.normalised(stored)) == path.read_text()


@pytest.mark.root
@pytest.mark.rootless
def test_cells_can_run_twice_and_out_of_order(path, needs_workbench):
    """Every cell again, from the last to the first: a muddled attendee gets words, not errors."""
    assert len(run_for_all_checks(path)[2]) == len(code_cells(path))


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


@pytest.mark.slow
@pytest.mark.parametrize("number", sorted(os.listdir(recordings.DIRECTORY)))
def test_a_lesson_of_recorded_runs_says_what_is_stored(number, monkeypatch):
    """As on a machine that can do nothing of it; and no recording is left that no cell shows."""
    monkeypatch.setenv("MINICONTAINER_RUNS", "recorded")
    (path,) = (REPOSITORY / "lessons").glob(f"{number[:2]}-*.ipynb")
    stored = read(path)
    assert regenerate.compare(stored, regenerate.executed(stored)) == []
    text = "\n".join(cell.source for cell in code_cells(path))
    for name in json.loads(Path(recordings.DIRECTORY, number).read_text()):
        assert f'name="{name}"' in text or f"def {name.split()[0]}(" in text


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
    assert 10 <= round(words / sum(lines)) <= 20


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
    objectives = text.partition("**Objectives.**")[2].partition("**Time:**")[0]
    assert 3 <= len(re.findall(r"^- ", objectives, re.MULTILINE)) <= 6
    assert re.search(r"\*\*Time:\*\* \d+ minutes", text)


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


def test_it_begins_with_a_workbench_and_ends_with_the_leak_check(path):
    cells = code_cells(path)
    starts = [number for number, cell in enumerate(cells) if "= start(" in cell.source]
    assert len(starts) == 1
    assert not any("bench." in cell.source for cell in cells[: starts[0]])
    assert cells[-1].source == "finish()"
    assert cells[-1].outputs[0].text == "nothing is left over on your machine\n"


def test_nothing_is_predicted_or_solved_yet(path):
    for cell in code_cells(path):
        said = "".join(output.get("text", "") for output in cell.outputs)
        assert not cell.source.startswith("predict") or "no prediction yet" in said
        assert "check(" not in cell.source or "not attempted yet" in said or "import" in said


def test_links_and_pictures_resolve(path):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    assert targets
    for target in targets:
        assert target.startswith("https://") or (path.parent / target).is_file(), target
    end = read(path).cells[-1].source
    place = LESSONS.index(path)
    for neighbour in LESSONS[max(0, place - 1) : place] + LESSONS[place + 1 : place + 2]:
        assert f"]({neighbour.name})" in end


def test_pictures_are_legible_on_light_and_dark_pages(path):
    """Each has a panel of its own; every word stands out from every area that it can lie on."""
    pictures = re.findall(r"\]\(([^)\s]+\.svg)\)", prose(path))
    assert pictures
    for picture in pictures:
        tree = ElementTree.parse(path.parent / picture).getroot()
        assert tree.find("{*}title") is not None
        assert tree.find("{*}desc") is not None
        _, _, width, height = map(float, tree.get("viewBox").split())
        panel = tree.find("{*}rect")
        assert float(panel.get("width")) > 0.99 * width
        assert float(panel.get("height")) > 0.99 * height
        areas = {fill for kind, fill in _fills(tree, "#000000") if kind == "rect"} - {"none"}
        words = {fill for kind, fill in _fills(tree, "#000000") if kind == "text"}
        assert panel.get("fill") in areas
        assert words
        # 4.5 to 1: WCAG 2.1, success criterion 1.4.3
        assert all(_contrast(word, area) >= 4.5 for word in words for area in areas), picture


def _fills(element: ElementTree.Element, inherited: str):
    """(kind, colour) of an element and all in it."""
    fill = element.get("fill", inherited)
    yield element.tag.rpartition("}")[2], fill
    for child in element:
        yield from _fills(child, fill)


def _contrast(first: str, second: str) -> float:
    """WCAG 2.1, "contrast ratio", of two colours as #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_words_are_spelled(path):
    """No misspelling of codespell's list; it knows the common ones, not every word."""
    content = REPOSITORY / f"minicontainer/lab/content/lesson_{path.name[:2]}.py"
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "-L", WORDS, path, content,
         path.parent / "README.md"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_readme_lists_what_exists():
    readme = (REPOSITORY / "lessons" / "README.md").read_text()
    listed = re.findall(r"\]\((\d\d-[^)]+\.ipynb)\)", readme)
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


def answers(path: Path) -> list[tuple[str, str, str]]:
    """(exercise, answer, what the check must say): the wrong ones of each, then its solution."""
    wrong = lesson_answers.of(path.name[:2]).WRONG
    return [
        (number, *one)
        for number, (_, solution) in stubs(path).items()
        for one in [*wrong[number], (solution, f"{number}: passed.")]
    ]


@pytest.mark.root
@pytest.mark.rootless
def test_checks_tell_right_from_wrong(path, needs_workbench):
    own, answered, _ = run_for_all_checks(path)
    for number, (stub, _) in stubs(path).items():
        (untouched,) = (cell for cell in own if cell.source == stub)
        assert untouched.outputs[0].text.startswith(f"{number}: not attempted yet.")
    unable = set()
    for cell, (_, answer, words) in zip(answered, answers(path), strict=True):
        said = cell.outputs[0].text
        if "could not be checked" in said:  # as without a control group of one's own
            unable.add(said.strip())
            continue
        assert words in said, (answer, said)
        assert ("passed" in said) == ("passed" in words), (answer, said)
    if unable:
        pytest.skip("; ".join(sorted(unable)))


# --- when something goes wrong ------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.rootless
def test_after_a_restart_of_the_kernel(needs_workbench):
    """In the middle of a lesson: nothing stays, the error names what is missing, all runs again."""
    cells = [cell.source for cell in code_cells(LESSONS[2])]
    manager, client = start_new_kernel(kernel_name="python3")

    def run(source: str) -> dict:
        ask = {"keeper": "bench.pid"}
        return client.execute_interactive(
            source, timeout=60, output_hook=str, user_expressions=ask
        )["content"]

    try:
        said = [run(source) for source in cells[:4]]
        assert [one["status"] for one in said] == ["ok"] * 4
        keeper = int(said[-1]["user_expressions"]["keeper"]["data"]["text/plain"])
        assert os.path.exists(f"/proc/{keeper}")
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=60)
        assert run(cells[3])["evalue"] == "name 'bench' is not defined"
        deadline = time.monotonic() + 10
        while _stays(keeper) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _stays(keeper) == []
        assert [run(source)["status"] for source in cells[:4]] == ["ok"] * 4
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _stays(keeper: int) -> list[str]:
    groups = [directory.path for directory in workbench_limits.group_of(keeper).directories]
    return list(filter(os.path.exists, [f"/proc/{keeper}", *groups]))
