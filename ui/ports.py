"""Ports that a process is going to listen on, looked at before it starts: a server that finds its port taken
says so in the midst of its start, and at length."""

import errno
import os
import socket

from penstock.core.errors import Misconfigured


def check_port(host: str, port: int, purpose: str, variable: str, instead: str = "") -> None:
    """Raises Misconfigured where nobody can listen there; it names the purpose and the way out, which is to
    set the variable to the next port, or to `instead`."""
    problem = _bind_problem(host, port)
    if problem == errno.EADDRINUSE:
        raise Misconfigured(
            f"port {port} for {purpose} is in use: stop the program that has it, "
            f"or choose another one with {variable}={instead or port + 1}"
        )
    if problem:
        raise Misconfigured(f"cannot listen on {host}:{port} for {purpose}: {os.strerror(problem)}")


def _bind_problem(host: str, port: int) -> int:
    """The errno of trying to listen there; 0 when it works."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EIO
    return 0
