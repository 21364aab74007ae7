"""How the commands answer: tables for people, aligned plain text in a pipe, JSON for programs."""

import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.core.errors import Misconfigured, NotFound, PenstockError, Refused, WrongState

_QUIET: Final = "bright_black"  # for what is nothing, so that what is something is seen


def exit_code(error: PenstockError) -> int:
    """2 where the input or a setting is wrong, 1 for anything else."""
    wrong = isinstance(error, Refused | Misconfigured) and not isinstance(error, NotFound | WrongState)
    return 2 if wrong else 1


def print_json(value: Any) -> None:
    """JSON, indented on a terminal and in one line elsewhere."""
    encoded = msgspec.json.encode(value)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded)
    sys.stdout.write(encoded.decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on a terminal, aligned columns elsewhere."""
    cells = [[_text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, column in enumerate(columns):
            right = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
            table.add_column(column, justify="right" if right else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell, style=_QUIET if cell == "0" else "") for cell in row))
        Console(highlight=False, markup=False).print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [list(columns), *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def print_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Names and values, one pair a line; empty values are left out."""
    shown = [(name, _text(value)) for name, value in facts if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        sys.stdout.write(f"{name:<{width}}  {value}\n")


def print_styled(text: str, style: str) -> None:
    """A sentence of our own; on a terminal in rich's words for its style, like `bold red`."""
    if sys.stdout.isatty():
        Console(highlight=False, soft_wrap=True).print(Text(text, style=style))
    else:
        sys.stdout.write(text + "\n")


def print_job(found: dict[str, Any]) -> None:
    """A job as the API tells it; its last error in one line, and below all else the traceback."""
    from penstock.projections.replay.words import error, plain

    why = found.get("error") or {}
    told = found | {"error": error(why)} if why else found
    print_facts([(name, plain(value) if isinstance(value, str) else value) for name, value in told.items()])
    traceback = str(why.get("traceback", "")).rstrip()
    if traceback:
        sys.stdout.write("\n" + "".join(it for it in traceback if it.isprintable() or it in "\n\t") + "\n")


def print_outcome(found: dict[str, Any], counts: Sequence[str]) -> dict[str, Any]:
    """An operation, from its job: how it stands, these of its counts, and what went wrong. Answers all that
    it says it has done so far."""
    from penstock.projections.replay.words import error

    done: dict[str, Any] = found.get("result") or (found.get("progress") or {}).get("data") or {}
    why = error(found["error"]) if found.get("error") else ""
    numbers = [(name, done.get(name, 0)) for name in counts]
    print_facts([("id", found["id"]), ("state", found["state"]), *numbers, ("error", why)])
    return done


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return str(value)
