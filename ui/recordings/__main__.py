"""`python -m penstock.ui.recordings` plays and records the session, and writes what is made of it;
with `again`, only the latter, from the record that is kept."""

import asyncio
import sys
import tempfile
from pathlib import Path

from penstock.ui.recordings.incident import Orders, Told, played
from penstock.ui.recordings.pages import read, write
from penstock.ui.recordings.stage import staged


async def record() -> list[Told]:
    """Play it, and say on standard error what is typed."""
    found = []
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        async with staged(Path(folder)) as stage:
            async for told in played(stage, Orders()):
                sys.stderr.write(f"$ {told.shown.command}\n")
                found.append(told)
    return found


if __name__ == "__main__":
    write(read() if sys.argv[1:] == ["again"] else asyncio.run(record()))
