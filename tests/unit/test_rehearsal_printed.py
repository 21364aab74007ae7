"""What `penstock replay rehearse` prints: of many jobs the first, and the answer last, where it is seen."""

import json
import sys
from typing import Any

import pytest

from penstock.consumers.rehearsal import Durations, Ran, Rehearsed, TypeReport
from penstock.ui.rehearsing import Report
from penstock.ui.replay_rehearse import print_report

THEN, NOW = Durations(19.2, 61_000), Durations(0.031, 4_200)


def report(worse: int, told: int) -> Report:
    jobs = [
        Rehearsed(f"a.0.{n}-0", "a.b", "worse", Ran("completed"), Ran("failed"), why="KeyError: 'usd'")
        for n in range(told)
    ]
    verdicts: Any = {"same": 1, **({"worse": worse} if worse else {})}
    return Report(worse + 1, verdicts, [TypeReport("a.b", worse + 1, verdicts, THEN, NOW)], jobs)


def on_terminal(patch: pytest.MonkeyPatch) -> None:
    """What is printed from here on goes to one."""
    patch.setattr(sys.stdout, "isatty", lambda: True)
    patch.setenv("TERM", "xterm-256color")
    patch.setenv("COLUMNS", "200")
    patch.delenv("NO_COLOR", raising=False)


def test_in_a_pipe_all_that_is_told_is_there_and_durations_have_their_own_unit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_report(report(150, 100), as_json=False)
    types, jobs, answer = capsys.readouterr().out.split("\n\n")
    assert types.splitlines()[1].endswith("19.2 ms   0.031 ms  1 min 1 s  4.2 s")
    assert len(jobs.splitlines()) == 1 + 100 + 1
    assert jobs.splitlines()[-1] == "and 50 more"
    assert answer == "No: 150 of 151 jobs fail now that had completed.\n"


def test_on_a_terminal_ten_are_told_and_the_answer_has_its_colour(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    print_report(report(150, 100), as_json=False)
    _, jobs, answer = capsys.readouterr().out.split("\n\n")
    assert jobs.count("KeyError") == 10
    assert jobs.splitlines()[-1] == "and 140 more; --json tells 100"
    assert answer.startswith("\x1b[1;31mNo: ")
    print_report(report(0, 0), as_json=False)
    assert "\n\x1b[1;32mYes: of 1 jobs none fails" in capsys.readouterr().out


def test_json_is_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    print_report(report(150, 100), as_json=True)
    assert len(json.loads(capsys.readouterr().out)["told"]) == 100
