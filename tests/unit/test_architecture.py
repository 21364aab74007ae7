"""The style guide as a test: who may import whom, and how long things may get."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Each room and the rooms it may import; imports point one way.
MAY_IMPORT = {
    "core": {"core"},
    "producer": {"core", "producer"},
    "consumers": {"core", "consumers"},
    "projections": {"core", "projections"},
    "ui": {"core", "producer", "consumers", "projections", "ui"},
}
WEB = {"litestar", "hypercorn", "uvicorn", "granian"}
MAY_SERVE_HTTP = {"producer", "projections", "ui"}
MAY_MAKE_CONNECTIONS = {"core/connection.py", "ui/embedded.py"}

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 45

MODULES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "say penstock.room.module"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    room = name(path).split("/", maxsplit=1)[0]
    for target in imported(parsed(path)):
        top, _, rest = target.partition(".")
        assert top not in MAY_IMPORT, f"{target}: say penstock.{target}"
        if top == "penstock":
            assert rest.split(".")[0] in MAY_IMPORT[room], f"{room} must not import {target}"
        if top in WEB:
            assert room in MAY_SERVE_HTTP, f"{room} knows no HTTP server: {target}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_connections_are_made_in_one_place(path: Path) -> None:
    if name(path) in MAY_MAKE_CONNECTIONS:
        return
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")
            assert called[-1] != "Redis", f"line {node.lineno}: ask core.connection"
            assert called[-2:] != ["Redis", "from_url"], f"line {node.lineno}: ask core.connection"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_tell_their_story_and_stay_short(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree), "a module starts with its story"
    assert len(path.read_text().splitlines()) <= MAX_MODULE_LINES
    assert "utils" not in path.stem
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_only_the_rooms_are_packaged() -> None:
    links = sorted((ROOT / "infra/src/penstock").iterdir())
    assert [link.name for link in links] == sorted(MAY_IMPORT)
    for link in links:
        assert link.is_symlink()
        assert link.resolve() == ROOT / link.name
        assert (link / "py.typed").exists()


def test_a_room_has_one_name() -> None:
    assert not MAY_IMPORT.keys() & sys.modules.keys(), "a room was imported by its bare name"
