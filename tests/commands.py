"""`penstock ...` as a real process, for tests that look at it from outside."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from servers import wait_until

END_TIMEOUT_S: Final = 30.0


class Command:
    """One run of the command line in a session of its own; its output is kept in a file."""

    def __init__(self, *words: str, environ: Mapping[str, str], folder: Path) -> None:
        self._output = Path(tempfile.mkstemp(dir=folder, prefix="output-")[1])
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        with self._output.open("wb") as output:
            self.process: Final = subprocess.Popen(
                [sys.executable, "-P", "-m", "penstock.ui", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**clean, "PENSTOCK_DATA_DIR": str(folder), **environ},
                cwd=folder,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return self._output.read_text()

    def says(self, text: str, timeout: float = 30.0) -> None:
        """Wait until it has printed `text`; fails at once when it ends without."""

        def said() -> bool:
            if text in self.output:
                return True
            assert self.process.poll() is None, f"ended without saying {text!r}:\n{self.output}"
            return False

        try:
            wait_until(said, timeout, f"it says {text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send one signal to the process alone."""
        self.process.send_signal(number)

    def wait(self, timeout: float = END_TIMEOUT_S) -> int:
        """Its exit code."""
        return self.process.wait(timeout)

    def end(self) -> None:
        """Leave nothing behind after a test."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(END_TIMEOUT_S)


@pytest.fixture
def penstock(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts `penstock WORDS...` in the test's folder: `penstock("server", PENSTOCK_FSYNC="always")`."""
    started: list[Command] = []

    def start(*words: str, **environ: Any) -> Command:
        given = {name: str(value) for name, value in environ.items()}
        command = Command(*words, environ=given, folder=tmp_path)
        started.append(command)
        return command

    yield start
    for command in reversed(started):
        command.end()


def processes_with(text: str) -> dict[int, str]:
    """The processes of this machine whose command line or environment has `text`, by their id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            environ = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rsplit(")", maxsplit=1)[1].split()[0]
        except OSError:
            continue  # it ended meanwhile
        if text.encode() in words + environ and state != "Z" and int(folder.name) != os.getpid():
            found[int(folder.name)] = words.replace(b"\0", b" ").decode()
    return found
