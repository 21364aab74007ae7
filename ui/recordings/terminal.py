"""A command in a pseudo-terminal, as a person would run it, and what then stands on the screen.

A terminal emulator reads its output, so that bars which redraw themselves and go leave what a person is left
with. The command is told of COLUMNS; the emulator's screen is wider and taller than any output, so that
nothing scrolls away, and a long line is one line.
"""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

import msgspec
import pyte

COLUMNS: Final = 112
WIDEST: Final = 4_000
ROWS: Final = 400
PATIENCE_S: Final = 120.0
_CHUNK: Final = 64 * 1024
# What a worker calls itself begins with the name of its machine.
_MACHINE: Final = re.escape(re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40])
_WORKER: Final = re.compile(rf"{_MACHINE}-(\d+)-([0-9a-f]{{6}})")


class Run(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a line in one style, in rich's words, like `bold red`."""

    text: str
    style: str = ""


class Shown(msgspec.Struct, frozen=True):
    """A command, its exit code, and the lines it leaves on the screen."""

    command: str
    code: int
    lines: list[list[Run]]

    @property
    def text(self) -> str:
        """The lines without their styles."""
        return "\n".join("".join(run.text for run in line).rstrip() for line in self.lines)


def shown(command: str, *, home: Path, environ: Mapping[str, str]) -> Shown:
    """Run a command of the shell in a terminal, in the folder `home`. Blocks. Raises TimeoutError."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=home,
            env={**environ, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    try:
        output = _read(ours)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        raise TimeoutError(f"not done within {PATIENCE_S:.0f} s: {command}") from None
    finally:
        os.close(ours)
        code = process.wait()
    screen = pyte.Screen(WIDEST, ROWS)
    pyte.ByteStream(screen).feed(output)
    return Shown(command, code, list(_lines(screen)))


def _read(terminal: int) -> bytes:
    """What is written into the terminal until everybody has left it."""
    output, deadline = b"", time.monotonic() + PATIENCE_S
    while True:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        try:
            chunk = os.read(terminal, _CHUNK)
        except OSError:  # so Linux says it; others answer nothing
            return output
        if not chunk:
            return output
        output += chunk


def _lines(screen: pyte.Screen) -> Iterator[list[Run]]:
    """The lines of the screen down to the last one that has something."""
    rows = [_row(screen, y) for y in range(max(screen.buffer, default=-1) + 1)]
    while rows and not rows[-1]:
        rows.pop()
    for row in rows:
        runs = groupby(row, key=_style)
        yield [Run(_anonymous("".join(char.data for char in run)), style) for style, run in runs]


def _row(screen: pyte.Screen, y: int) -> list[pyte.screens.Char]:
    """The characters of a line, but for the blanks at its end."""
    row = [screen.buffer[y][x] for x in range(max(screen.buffer[y], default=-1) + 1)]
    while row and row[-1].data == " ":
        row.pop()
    return row


def _style(char: pyte.screens.Char) -> str:
    """Rich's words for how a character looks."""
    words = [name for name, wanted in (("bold", char.bold), ("underline", char.underscore)) if wanted]
    colour = {"brown": "yellow"}.get(char.fg, char.fg)  # pyte calls it what it was once
    bright = re.sub(r"^bright(brown)?", lambda it: "bright_" + ("yellow" if it[1] else ""), colour)
    return " ".join(words + ([] if bright == "default" else [bright]))


def _anonymous(text: str) -> str:
    """Without the name of this machine."""
    return _WORKER.sub(r"host-\1-\2", text)
