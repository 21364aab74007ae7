"""What each process of ours runs: the one place that ties a command to its room.

Each function takes settings, sets up logging and the end with its supervisor, and returns when the
process was asked to stop. Rooms are imported inside: a process loads what it runs and no more.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from penstock.core.settings import Settings
from penstock.ui.embedded import with_server
from penstock.ui.lifeline import end_with_parent
from penstock.ui.logs import configure_logging

# How long the server goes on for those that still finish, when the supervisor is killed.
HEAD_START_S = 5.0


def run_server(settings: Settings) -> None:
    """The embedded server."""
    from penstock.ui.embedded import serve_embedded

    configure_logging(settings)
    end_with_parent(head_start=HEAD_START_S, patience=30.0)
    asyncio.run(serve_embedded(settings))  # not uvloop: it waits for a child process, no more


def run_api(settings: Settings) -> None:
    """The HTTP API."""
    from penstock.ui.api import serve_api

    _begin(settings)
    _run(serve_api(with_server(settings)))


def run_worker(settings: Settings) -> None:
    """A worker on `settings.queues`, all queues that have handlers here if empty."""
    from penstock.consumers.worker import run_worker as work
    from penstock.ui.jobs import load_handlers

    _begin(settings)
    load_handlers(settings)
    _run(work(with_server(settings)))


def run_projector(settings: Settings) -> None:
    """A projector of all queues."""
    from penstock.projections.projector import run_projector as project

    _begin(settings)
    _run(project(with_server(settings)))


def run_mailcatcher(settings: Settings) -> None:
    """The mail catcher."""
    from penstock.ui.mailcatcher import serve_mailcatcher

    _begin(settings)
    _run(serve_mailcatcher(settings))


def run_up(settings: Settings, *, demo: bool) -> None:
    """All of them, supervised."""
    from penstock.ui.up import up

    asyncio.run(up(settings, demo=demo))


def _begin(settings: Settings) -> None:
    configure_logging(settings)
    end_with_parent()


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it on uvloop where that is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)
