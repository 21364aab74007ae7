"""Brings the peers in when they are asked for: pinned, into the ignored folder `.penstock/bench`.

BullMQ by npm (Node 20 or newer) from its lock, the Python ones into a venv from theirs.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
HOME: Final = Path(__file__).parents[3] / ".penstock" / "bench"


class PeerMissing(Exception):
    """A peer cannot be had here; the message says what it needs."""


def bullmq() -> tuple[str, ...]:
    """The command that runs BullMQ's program. Raises PeerMissing without Node and npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise PeerMissing("BullMQ needs Node 20 and npm on PATH")
    folder = HOME / "bullmq"
    folder.mkdir(parents=True, exist_ok=True)
    if _changed(folder / "installed", HERE / "bullmq" / "package-lock.json"):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "bullmq" / name, folder)
        _run(npm, "ci", "--no-audit", "--no-fund", "--prefix", str(folder))
        shutil.copy(HERE / "bullmq" / "package-lock.json", folder / "installed")
    shutil.copy(HERE / "bullmq" / "bench.mjs", folder)  # beside its node_modules
    return node, str(folder / "bench.mjs")


def python_peers() -> tuple[str, ...]:
    """The Python that has taskiq and streaQ."""
    folder = HOME / "venv"
    python = folder / "bin" / "python"
    if _changed(folder / "installed", HERE / "requirements.txt"):
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        install = ("-m", "pip", "install", "--quiet", "--require-hashes", "--requirement")
        _run(str(python), *install, str(HERE / "requirements.txt"))
        shutil.copy(HERE / "requirements.txt", folder / "installed")
    return (str(python),)


def pins() -> dict[str, str]:
    """Peer → the version measured."""
    package = json.loads((HERE / "bullmq" / "package.json").read_text())
    wanted = (HERE / "requirements.in").read_text()
    return {
        "bullmq": package["dependencies"]["bullmq"],
        **dict(re.findall(r"^([\w-]+)==(\S+)", wanted, re.MULTILINE)),
    }


def _changed(stamp: Path, source: Path) -> bool:
    return not stamp.exists() or stamp.read_bytes() != source.read_bytes()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissing(f"`{' '.join(command)}` failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
