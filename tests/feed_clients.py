"""Many clients of the exact feed, as a program: `feed_clients.py PORT QUERY[*COUNT] ...`.

Speaks HTTP over plain sockets, as cheaply as it can be done. It says `open` once all streams are open.
Each client keeps the length and the checksum of what it got, up to the first event of a job of the type
`test.end`; the first one of each query keeps it all. At the end it prints, for each query, how many
clients got the very same bytes as the first, and writes those of the first to `<folder>/<number>`.
"""

import asyncio
import json
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import Final

END: Final = b"test.end"


class Client(asyncio.Protocol):
    """One client: the stream's bytes, out of their chunks."""

    def __init__(self, keep: bool) -> None:
        loop = asyncio.get_running_loop()
        self.opened: Final = loop.create_future()
        self.ended: Final = loop.create_future()
        self.size = 0
        self.sum = 0
        self.kept: Final[list[bytes] | None] = [] if keep else None
        self._rest = b""
        self._left = -1  # bytes of the chunk under way; -1 before the head's end, 0 between chunks
        self._last = b""

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            head, found, data = (self._rest + data).partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            assert head.startswith(b"HTTP/1.1 200"), head
            self._left, self._rest = 0, b""
            self.opened.set_result(None)
        data, self._rest = self._rest + data, b""
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                line = data.find(b"\r\n", at)
                if line < 0 or end < line + 2:
                    self._rest = data[at:]
                    return
                self._left = int(data[at:line], 16) + 2
                at = line + 2
                continue
            part = data[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            # A chunk's own end, \r\n, is no part of what was sent.
            self._take(part if self._left > 1 else part[: len(part) - 2 + self._left])

    def _take(self, part: bytes) -> None:
        if self.ended.done():
            return
        self.size += len(part)
        self.sum = zlib.crc32(part, self.sum)
        if self.kept is not None:
            self.kept.append(part)
        if END in self._last + part[:1000] or END in part[-1000:]:
            self.ended.set_result(None)
        self._last = part[-200:]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error or ConnectionError("the stream ended"))


async def run(port: int, queries: list[str], folder: Path) -> None:
    """Open all, wait for all, compare."""
    loop = asyncio.get_running_loop()
    groups: list[list[Client]] = []
    for query in queries:
        path, _, count = query.partition("*")
        groups.append([])
        for number in range(int(count or 1)):
            make = partial(Client, keep=number == 0)
            transport, client = await loop.create_connection(make, "127.0.0.1", port)
            transport.write(f"GET /events?{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            groups[-1].append(client)
    await asyncio.gather(*(client.opened for group in groups for client in group))
    print("open", flush=True)
    await asyncio.gather(*(client.ended for group in groups for client in group))
    same = []
    for number, group in enumerate(groups):
        first = group[0]
        (folder / str(number)).write_bytes(b"".join(first.kept or []))
        same.append(sum((it.size, it.sum) == (first.size, first.sum) for it in group))
    print(json.dumps({"same": same, "bytes": sum(it.size for group in groups for it in group)}), flush=True)


if __name__ == "__main__":
    import uvloop

    uvloop.run(run(int(sys.argv[1]), sys.argv[3:], Path(sys.argv[2])))
