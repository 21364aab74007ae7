"""Ending well: on a signal, and with the process that started this one.

A supervised process holds the reading end of a pipe as its standard input; the supervisor holds the
writing end and never writes. When the supervisor is gone, even by SIGKILL, the read ends: on every
system, with nothing to poll. The process then stops as on SIGTERM, and by force when that takes long.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Final, NoReturn

SUPERVISED: Final = "PENSTOCK_SUPERVISED"
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def supervised(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child whose standard input is its lifeline."""
    return {**environ, SUPERVISED: "1"}


def end_with_parent(*, head_start: float = 0.0, patience: float = 5.0) -> None:
    """If a supervisor started this process, end when it is gone.

    `head_start`: seconds to go on, so that others can still use what this process serves.
    `patience`: seconds for an orderly end before this process and its children are killed.
    """
    if os.environ.pop(SUPERVISED, None) is None:
        return
    lifeline = os.dup(0)  # not inherited by children, which get /dev/null instead
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    threading.Thread(
        target=_watch, args=(lifeline, head_start, patience), name="lifeline", daemon=True
    ).start()


def _watch(lifeline: int, head_start: float, patience: float) -> None:
    while os.read(lifeline, 1024):
        pass
    time.sleep(head_start)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(patience)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def exit_now(code: int) -> NoReturn:
    """End this process without waiting for its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class StopSignals:
    """`first` is set by the first SIGINT, SIGTERM or SIGHUP, `second` by the next one, which ends
    the process at once if `second_exits`."""

    def __init__(self, *, second_exits: bool = False) -> None:
        self.first: Final = asyncio.Event()
        self.second: Final = asyncio.Event()
        self._second_exits: Final = second_exits
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._ask)

    def _ask(self) -> None:
        if not self.first.is_set():
            self.first.set()
        elif self._second_exits:
            exit_now(1)
        else:
            self.second.set()
