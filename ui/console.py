"""What `penstock up` prints: one line for each line of a process, under its name.

On a terminal names are coloured and the demo's progress bars stay below the lines; in a pipe, or with
NO_COLOR, lines are plain. Lines are never cut or wrapped by us. When nobody reads any more, the
process stops as on SIGTERM.
"""

import os
import signal
import sys
from typing import Final

from rich.console import Console
from rich.text import Text

COLOURS: Final = (
    "cyan",
    "green",
    "yellow",
    "magenta",
    "blue",
    "bright_cyan",
    "bright_green",
    "bright_magenta",
)
SELF: Final = "penstock"


class Terminal(Console):
    """Standard output, in colours where it is a terminal."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Whoever read our output is gone: stop in order, and print no more."""
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        os.kill(os.getpid(), signal.SIGTERM)


class Lines:
    """Prints lines prefixed with aligned names; each name keeps its colour."""

    def __init__(self, names: list[str], console: Console | None = None) -> None:
        self.console: Final = console or Terminal()
        self._width = max(map(len, [SELF, *names]))
        self._colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}

    def line(self, name: str, text: str) -> None:
        """Print one line of the process `name`."""
        prefix = (f"{name:<{self._width}} | ", self._colours.get(name, "bold"))
        self.console.print(Text.assemble(prefix, Text.from_ansi(text)))

    def say(self, text: str) -> None:
        """Print a line of our own."""
        self.line(SELF, text)
