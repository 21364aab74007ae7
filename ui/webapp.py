"""The files of the web app, as they were built into ui/static/app.

They are read into memory, with a packed copy of what packs well, and read again when a new build is
there. The names of what lies in `assets` change with its content: a browser may keep it for ever. A path
of the app is answered with its page; any other one that is no file is not there.
"""

import gzip
import mimetypes
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from litestar import Response

FOLDER: Final = Path(__file__).parent / "static" / "app"
# The first parts of the app's own paths. (No path of a file, and none below /app.)
PAGES: Final = frozenset(
    ("", "login", "queues", "jobs", "failures", "workers", "schedules", "flows", "bulk", "travel", "submit")
)
_INDEX: Final = "index.html"
_PACKED: Final = ("text/", "application/json", "application/javascript", "image/svg+xml")
SAFETY: Final = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_NOT_BUILT: Final = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Penstock</title>
<h1>Penstock</h1>
<p>The dashboard was not built: with Node 20 or newer run <code>make dashboard</code>.
"""


class File(msgspec.Struct, frozen=True):
    """One file: its bytes, the same packed by gzip (empty where that gains nothing), and its tag."""

    media_type: str
    content: bytes
    packed: bytes
    tag: str


class WebApp:
    """The app's files."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder: Final = folder
        self._files: Mapping[str, File] = {}
        self._built = 0

    @property
    def built(self) -> bool:
        """Whether there is an app to serve."""
        return (self._folder / _INDEX).is_file()

    def answer(self, path: str, encodings: str, known: str) -> Response[bytes] | None:
        """The answer to a path without its first slash; None if there is nothing. `encodings` and
        `known` are the request's Accept-Encoding and If-None-Match."""
        if not self.built:
            return _page(_NOT_BUILT, 503) if path.partition("/")[0] in PAGES else None
        self._load()
        file = self._files.get(path)
        if file is None:
            if path.partition("/")[0] not in PAGES:
                return None
            file = self._files[_INDEX]
        forever = path.startswith("assets/")
        headers = {
            **SAFETY,
            "ETag": file.tag,
            "Vary": "Accept-Encoding",
            "Cache-Control": "public, max-age=31536000, immutable" if forever else "no-cache",
        }
        if known == file.tag:
            return Response(b"", status_code=304, headers=headers)
        if file.packed and "gzip" in encodings:
            headers["Content-Encoding"] = "gzip"
            return Response(file.packed, media_type=file.media_type, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    def _load(self) -> None:
        built = (self._folder / _INDEX).stat().st_mtime_ns
        if built != self._built:
            paths = [path for path in self._folder.rglob("*") if path.is_file() and not path.is_symlink()]
            self._files = {path.relative_to(self._folder).as_posix(): _read(path) for path in paths}
            self._built = built


def _read(path: Path) -> File:
    content = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    packed = gzip.compress(content, 9, mtime=0) if kind.startswith(_PACKED) else b""
    return File(
        kind, content, packed if len(packed) < len(content) else b"", f'"{sha256(content).hexdigest()[:32]}"'
    )


def _page(content: bytes, status: int) -> Response[bytes]:
    return Response(content, status_code=status, media_type="text/html", headers=SAFETY)
