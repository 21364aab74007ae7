"""The style guide as a test: who imports whom, where redis and keys may be, how long things get."""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import pytest

from penstock.core import keys as keys_module

HOUSE = Path(__file__).parents[2]
# Room → the rooms it may import, beside itself.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "producer": {"core"},
    "consumers": {"core"},
    "projections": {"core"},
    "ui": {"core", "producer", "consumers", "projections"},
}
MODULES = sorted(path for room in ROOMS for path in (HOUSE / room).rglob("*.py"))
SCRIPTS = sorted((HOUSE / "core" / "lua").glob("*.lua"))

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50

# Who may speak to Redis by name. Longer only with a reason.
REDIS = (
    *(
        f"core/{name}.py"
        for name in ["append", "connection", "control", "dispatch", "endings", "line", "log", "waiting"]
    ),
    *(f"core/{name}.py" for name in ["endpoints", "story", "workers"]),
    *(f"producer/{name}.py" for name in ["client", "commands", "outlet", "ratelimit"]),
    "producer/flows/*.py",
    "producer/schedules/*.py",
    *(f"consumers/{name}.py" for name in ["partition", "rehearsal_stage", "testing", "worker"]),
    *(
        f"projections/{name}.py"
        for name in [
            "bulk",
            "children",
            "exploring_routes",
            "failures",
            "figures",
            "filters",
            "folding",
            "metrics*",
            "known",
            "past",
            "projector",
            "queries",
            "rebuild",
            "retention",
            "scaling",
            "search",
            "series",
            "shadow",
            "snapshots",
            "store",
            "travel",
            "trimming",
            "feed_*",
            "webhook*",
        ]
    ),
    "projections/replay/*.py",
    *(f"ui/{name}.py" for name in ["api", "embedded", "problems", "replay_checks", "webhooks"]),
)
CONNECTIONS = {"core/connection.py", "ui/embedded.py"}
WEB = {"litestar", "hypercorn", "uvicorn", "granian"}
SERVES_HTTP = {"producer", "projections", "ui"}
# The same for the few who wait in a thread of their own, where no event loop is.
SLEEPERS = {"ui/lifeline.py"}


def name(path: Path) -> str:
    return path.relative_to(HOUSE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    """Every module that is imported, at the top or inside, as `a.b.c`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Every text of a module that is no docstring."""
    module = tree(path)
    documents = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr):
                documents.add(id(first.value))
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.lineno, node.value


def test_there_is_a_house() -> None:
    assert {path.relative_to(HOUSE).parts[0] for path in MODULES} == set(ROOMS)
    assert SCRIPTS


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(HOUSE).parts[0]
    ours = {module.split(".")[1] for module in imported(path) if module.startswith("penstock.")}
    assert ours <= ROOMS[room] | {room}
    if room not in SERVES_HTTP:
        assert not WEB & {module.split(".", maxsplit=1)[0] for module in imported(path)}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_room_is_imported_by_its_bare_name(path: Path) -> None:
    """A second name is a second module: two registries, two of everything."""
    assert not {module.split(".", maxsplit=1)[0] for module in imported(path)} & set(ROOMS)


def test_redis_is_known_in_few_places() -> None:
    found = [name(path) for path in MODULES if any(it.split(".")[0] == "redis" for it in imported(path))]
    assert [it for it in found if not any(fnmatchcase(it, place) for place in REDIS)] == []


@pytest.mark.parametrize("path", [path for path in MODULES if name(path) not in CONNECTIONS], ids=name)
def test_connections_are_made_in_one_place(path: Path) -> None:
    made = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    assert not {it for it in made if it.split(".")[-1] == "Redis" or it.endswith("Redis.from_url")}


def test_only_the_rooms_are_packaged() -> None:
    links = sorted((HOUSE / "infra/src/penstock").iterdir())
    assert [link.name for link in links] == sorted(ROOMS)
    for link in links:
        assert link.is_symlink()
        assert link.resolve() == HOUSE / link.name
        assert (link / "py.typed").exists()


def test_no_room_was_imported_by_its_bare_name() -> None:
    assert not ROOMS.keys() & sys.modules.keys()


def test_keys_are_made_in_one_file_only() -> None:
    """Nobody else spells a part of a key."""
    told = keys_module.__doc__ or ""
    parts = set(re.findall(r":((?:view:)?[a-z]+):?", " ".join(re.findall(r"penstock:(\S+)", told))))
    assert {"log", "lane", "due", "view:jobs"} <= parts
    names = "|".join(sorted(map(re.escape, parts), key=len, reverse=True))
    spelt = re.compile(rf"(^|:)(lane|sender|view):|:({names})(:|$)|\{{[a-z]+\.\d")
    assert all(spelt.search(text) for text in ("lane:", "view:jobs", "a:{email.0}:", ":log", "x:due:"))
    wrong = [
        f"{name(path)}:{line}: {text!r}"
        for path in MODULES
        if name(path) != "core/keys.py"
        for line, text in strings(path)
        if spelt.search(text) and not text.startswith(("http", "OAuth"))
    ]
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_tells_its_story_and_stays_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_MODULE_LINES
    assert "utils" not in path.stem
    assert ast.get_docstring(tree(path)), "a module begins with its story"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_function_fits_a_screen(path: Path) -> None:
    long = [
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_dangerous_is_used(path: Path) -> None:
    calls = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "yaml.load"}
    if name(path) not in SLEEPERS:
        forbidden |= {"time.sleep", "sleep"}
    assert not calls & forbidden
    modules = {module.split(".", maxsplit=1)[0] for module in imported(path)}
    assert not modules & {"pickle", "shelve", "marshal", "dill", "cloudpickle"}


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_a_script_states_its_keys_arguments_answer_and_promise(path: Path) -> None:
    text = re.sub(r"^#!lua.*\n", "", path.read_text())
    head = text[: text.index("\n\n")]
    assert all(line.startswith("--") for line in head.splitlines())
    assert head.startswith(f"-- {path.stem}: ")
    # entries.lua stands in front of others, and has no answer of its own.
    words = ("KEYS", "ARGV") if path.stem == "entries" else ("KEYS", "ARGV", "Answer", "Promise")
    places = [head.find(f"\n-- {word} ") for word in words]
    assert -1 not in places
    assert all(one < other for one, other in pairwise(places))


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_a_script_makes_no_key_and_reads_no_other_clock(path: Path) -> None:
    """Keys come in KEYS, so that a script runs in one slot of a cluster."""
    code = re.sub(r"--.*", "", path.read_text())
    touched = set(re.findall(r"call\('[A-Z]+'(?:, '(?:[A-Z]+)')?, ([^,)]+)", code))
    assert not {it for it in touched if it.startswith(("'", '"')) and not re.fullmatch(r"'[A-Z]+'", it)}
    assert "os.time" not in code
    assert "os.clock" not in code
