"""What a handler may ask of its worker, where there is little of a worker."""

from pathlib import Path

import pytest

from handling import Desk
from jobs_for_tests import Echo
from penstock.core.errors import Misconfigured


def test_where_nothing_can_be_submitted_whoever_tries_is_told_at_once(tmp_path: Path) -> None:
    context = Desk(tmp_path).context()
    with pytest.raises(Misconfigured, match=r"mode='process'.*`run_due`"):
        _ = context.jobs.submit(Echo(1))  # not awaited: a handler in a process is no coroutine
