"""A real HTTP server of the test's own, on a free port: each path is a function of the request."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias
from urllib.parse import urlsplit

Route: TypeAlias = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(routes: Mapping[str, Route], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The base URL of a server that answers these paths, and 404 to all others."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            routes.get(urlsplit(self.path).path, missing)(self)

        do_POST = do_GET  # noqa: N815 (http.server's own naming)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def missing(request: BaseHTTPRequestHandler) -> None:
    reply(request, 404)


def reply(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """A whole answer; `content_type="text/plain"` becomes a header of that name."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    if "content_length" not in headers:
        request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def stream(request: BaseHTTPRequestHandler, chunks: Iterator[bytes], content_type: str) -> None:
    """An answer without Content-Length, sent chunk by chunk until they end or the client leaves."""
    request.send_response(200)
    request.send_header("content-type", content_type)
    request.send_header("transfer-encoding", "chunked")
    request.end_headers()
    try:
        for chunk in chunks:
            request.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            request.wfile.flush()
        request.wfile.write(b"0\r\n\r\n")
    except ConnectionError:
        request.close_connection = True
