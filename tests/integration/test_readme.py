"""The README keeps its word: its code runs as it stands there, against real processes."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from commands import Command
from servers import RealServer

README: Final = (Path(__file__).parents[2] / "README.md").read_text()
# A block's name stands behind its language, as in ```python greetings.py
BLOCKS: Final = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with every named block of the README in a file of its own."""
    for name, code in BLOCKS.items():
        (tmp_path / name).write_text(code)
    return tmp_path


@pytest.fixture
def environ(server: RealServer, namespace: str) -> dict[str, str]:
    return {"PENSTOCK_REDIS_URL": server.url, "PENSTOCK_NAMESPACE": namespace, "PENSTOCK_JOBS": "greetings"}


def run(name: str, folder: Path, environ: dict[str, str]) -> str:
    """Run a file of the folder as a user would; answers what it prints."""
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env={"PATH": "", **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_own_job_is_ten_lines() -> None:
    assert len([line for line in BLOCKS["greetings.py"].splitlines() if line.strip()]) <= 10


def test_an_own_job_is_worked_and_awaited_with_and_without_an_event_loop(
    penstock: Callable[..., Command], folder: Path, environ: dict[str, str]
) -> None:
    worker = penstock("worker", **environ)
    worker.says("greet.hello")
    assert run("submit_async.py", folder, environ) == "Hello, Ada!\n"
    assert run("submit_sync.py", folder, environ) == "Hello, Ada!\n"


def test_a_users_test_runs_what_is_due(folder: Path, environ: dict[str, str]) -> None:
    namespaced = (folder / "test_greetings.py").read_text()
    assert "run_due(producer.redis)" in namespaced
    (folder / "check.py").write_text(f"{namespaced}\nimport asyncio\nasyncio.run(check())\nprint('passed')\n")
    assert run("check.py", folder, environ) == "passed\n"
