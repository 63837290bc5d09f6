"""A container starts in the time that `python -I -S` takes: what `run` may import, and what not."""

from __future__ import annotations

import ast
import subprocess
import sys

from tests.roots import REPOSITORY

# Beside what the interpreter itself has loaded. Each name here costs every start; think twice.
ALLOWED = {
    "__future__", "_ctypes", "_signal", "_struct", "errno", "select", "struct",
    # os, and what it is made of
    "_collections_abc", "_stat", "abc", "_abc", "genericpath", "os", "os.path", "posixpath", "stat",
}  # fmt: skip


def loaded(code: str) -> set[str]:
    script = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); {code}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_run_imports_only_what_is_listed():
    modules = loaded("import minicontainer.cli") - loaded("pass")
    foreign = {name for name in modules if not name.startswith("minicontainer")}
    assert foreign <= ALLOWED
    ours = {name.removeprefix("minicontainer.") for name in modules - foreign}
    assert not {name for name in ours if name.startswith(("images", "engine"))}
    assert "client" not in ours
    assert "doctor" not in ours


def test_an_image_that_is_unpacked_starts_without_what_unpacks():
    code = "import minicontainer.container_cli, minicontainer.runtime.jsonfile as j; j.loads('[]')"
    modules = loaded(code) - loaded("pass")
    foreign = {name for name in modules if not name.startswith("minicontainer")}
    # locks and leases of the store; ids of a user; pidfd
    assert foreign <= ALLOWED | {"_json", "fcntl", "time", "_thread"}
    loaded_by_us = {name.removeprefix("minicontainer.images.") for name in modules - foreign}
    assert not loaded_by_us & {"compression", "unpack", "merge", "transport", "build", "archive"}


def test_a_bundles_start_imports_little_more():
    """Of `minicontainer-runtime run`: nothing for terminals, JSON without the module json."""
    code = "import minicontainer.runtime_cli, minicontainer.runtime.foreground"
    modules = loaded(f"{code}; from minicontainer.runtime import create, jsonfile; "
                     "jsonfile.loads('[]')") - loaded("pass")  # fmt: skip
    foreign = {name for name in modules if not name.startswith("minicontainer")}
    assert foreign <= ALLOWED | {"_json", "time"}
    assert not {"minicontainer.kernel.pty", "minicontainer.kernel.seccomp_table"} & modules


def test_the_helper_carries_little_through_its_forks():
    """No socket, contextlib or json: together they are a third of its memory."""
    modules = loaded("import minicontainer.runtime.helper as h; h.rehearse()") - loaded("pass")
    foreign = {name for name in modules if not name.startswith("minicontainer")}
    assert foreign <= ALLOWED | {"_socket", "_json", "gc", "itertools", "time"}


def test_floors_call_downwards_only():
    """kernel < runtime < the rest of the package; read from the sources, lazy imports included."""
    floors = {"kernel": 0, "runtime": 1}
    for path in (REPOSITORY / "minicontainer").rglob("*.py"):
        parts = path.relative_to(REPOSITORY / "minicontainer").with_suffix("").parts
        floor = floors.get(parts[0], 2)
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = parts[: len(parts) - node.level]
            for name in [(node.module or alias.name).split(".") for alias in node.names]:
                target = floors.get([*base, *name][0], 2)
                assert target <= floor, f"{path}: line {node.lineno} calls upwards"


def test_nothing_is_imported_after_the_fork():
    """Once in the container's root, an import would run a stranger's file: none may be needed."""
    runtime = REPOSITORY / "minicontainer/runtime"
    for path in ("launch.py", "hooks.py", *(p.name for p in runtime.glob("steps*.py"))):
        source = (runtime / path).read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
                assert not inner, f"{path}: {node.name} imports when called"
