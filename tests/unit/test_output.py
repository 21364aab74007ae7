"""What commands and logs print in a pipe: aligned, plain, and JSON that a program can read."""

import json
import logging
import re
import sys

import pytest
from rich.console import Console

from penstock.core.logs import MAX_CHARS, Attempt, configure_logging, current_attempt
from penstock.core.settings import Settings
from penstock.ui.console import Lines
from penstock.ui.output import print_facts, print_json, print_table


def test_a_table_in_a_pipe_is_aligned_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("queue", "waiting", "note"), [["email", 12, None], ["ai", 3, {"a": [1]}]])
    assert capsys.readouterr().out.splitlines() == [
        "queue  waiting  note",
        "email  12",
        'ai     3        {"a":[1]}',
    ]


def test_a_table_without_rows_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("queue", "waiting"), [])
    assert capsys.readouterr().out == "queue  waiting\n"


def test_facts_leave_out_what_is_empty_and_keep_zero(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("id", "ai.0.1-0"), ("error", None), ("tags", []), ("run_ms", 1234.5), ("misfits", 0)])
    assert capsys.readouterr().out.splitlines() == ["id       ai.0.1-0", "run_ms   1,234.5", "misfits  0"]


def test_yes_and_no_are_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("complete", True), ("leaving", False)])
    assert capsys.readouterr().out == "complete  yes\nleaving   no\n"


def test_on_a_terminal_zeros_are_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_table(("queue", "failed"), [["email", 0], ["shop", 30], ["[bold]", 5]])
    out = capsys.readouterr().out
    assert re.search(r"^email +\x1b\[90m +0\x1b\[0m$", out, re.MULTILINE)
    assert re.search(r"shop +30$", out, re.MULTILINE)
    assert "[bold]" in out, "what it shows is no markup"


def test_json_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, {"b": "ü"}]})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": [1, {"b": "ü"}]}


def test_json_log_lines_carry_the_exception(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("penstock.test").exception("failed: %s", "x")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["message"]) == ("error", "penstock.test", "failed: x")
    assert line["time"].endswith("Z")
    assert "ValueError: no" in line["exception"]


def test_json_log_lines_say_of_which_process_and_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"), "worker")
    logging.getLogger("shop").info("before")
    token = current_attempt.set(Attempt("email.0.1-0", 2))
    try:
        logging.getLogger("shop").info("half a character: \udcff, and %s", "x" * 100_000)
    finally:
        current_attempt.reset(token)
    before, within = map(json.loads, capsys.readouterr().err.splitlines())
    assert (before["process"], within["process"]) == ("worker", "worker")
    assert "job" not in before
    assert (within["job"], within["attempt"]) == ("email.0.1-0", 2)
    assert within["message"].startswith("half a character: ?, and xxx")
    assert len(within["message"]) == MAX_CHARS


def test_text_log_lines_name_the_level_only_where_it_says_something(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(Settings())
    logging.getLogger("penstock.test").info("ready")
    logging.getLogger("penstock.test").warning("slow")
    assert capsys.readouterr().err == "ready\nwarning: slow\n"


def test_lines_of_processes_carry_no_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(["api"], Console(file=sys.stdout, force_terminal=True, soft_wrap=True, highlight=False))
    lines.line("api", "\x1b]0;a title\x07clear \x1b[2J\x1b[31mred [bold]markup[/bold]")
    out = capsys.readouterr().out
    assert "\x1b]" not in out
    assert "\x1b[2J" not in out
    assert "\x07" not in out
    assert "[bold]markup[/bold]" in out
