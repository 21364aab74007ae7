"""The record, and what is made of it: a page that tells the story between the commands, and a picture of the
terminal, light and dark."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from penstock.ui.recordings.incident import Told
from penstock.ui.recordings.terminal import COLUMNS, Run

HERE: Final = Path(__file__).resolve().parent
RECORD: Final = HERE / "incident.ndjson"
PAGE: Final = HERE.parents[1] / "projections" / "replay" / "INCIDENT.md"
PICTURES: Final = "incident-{theme}.svg"
CUT: Final = "…"
MARGIN: Final = " "
LINE: Final = 110

INTRODUCTION: Final = """\
# An incident, from the first complaint to the post-mortem

A shop sends a receipt for each order: a job of type `receipt.send` makes the text and submits the mail. One
day a release breaks some of them. What follows was typed into a terminal, and is what came back; `{cut}`
stands for lines that are left out. `make session` plays it again on servers of its own and records it ([the
story](../../ui/recordings/incident.py)); [a test](../../tests/integration/test_incident.py) holds it to
what it says.
"""

# GitHub's own colours, so that the picture belongs to the page it stands on; each is readable on its ground.
THEMES: Final = {
    "dark": TerminalTheme(
        (13, 17, 23),
        (230, 237, 243),
        [
            *((139, 148, 158), (255, 123, 114), (86, 211, 100), (227, 179, 65)),
            *((121, 192, 255), (210, 168, 255), (86, 212, 221), (230, 237, 243)),
        ],
    ),
    "light": TerminalTheme(
        (255, 255, 255),
        (31, 35, 40),
        [
            *((101, 109, 118), (188, 28, 38), (17, 99, 41), (122, 78, 0)),
            *((5, 80, 174), (102, 57, 186), (9, 92, 108), (31, 35, 40)),
        ],
    ),
}
FRAMES: Final = {"dark": "#3d444d", "light": "#d0d7de"}
# As rich makes it, but with the reader's own fonts: a picture on a page may load none.
_PICTURE: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.rich-terminal > rect {{ stroke: FRAME; }}
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre;
}}
.{unique_id}-title {{ font: 600 17px -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def write(record: Sequence[Told]) -> None:
    """Keep the record, and make page and pictures of it."""
    RECORD.write_bytes(b"".join(msgspec.json.encode(told) + b"\n" for told in record))
    PAGE.write_text(page(record))
    for theme in THEMES:
        (HERE / PICTURES.format(theme=theme)).write_text(picture(record, theme))


def read() -> list[Told]:
    """The record that is kept."""
    return [msgspec.json.decode(line, type=Told) for line in RECORD.read_bytes().splitlines()]


def page(record: Sequence[Told]) -> str:
    """The story as Markdown."""
    parts = [INTRODUCTION.format(cut=CUT)]
    for told in record:
        title = [f"## {told.title}\n"] if told.title else []
        lines = "\n".join("".join(run.text for run in line).rstrip() for line in _kept(told))
        say = textwrap.fill(told.say, LINE)
        parts += [*title, f"{say}\n", f"```console\n$ {told.shown.command}\n{lines}\n```\n"]
    return "\n".join(parts)


def picture(record: Sequence[Told], theme: str) -> str:
    """The terminal as SVG."""
    width = COLUMNS + 2 * len(MARGIN)
    console = Console(
        width=width, record=True, file=io.StringIO(), force_terminal=True, color_system="standard"
    )
    for line in _pictured(record):
        for part in line.divide(range(COLUMNS, len(line), COLUMNS)):
            console.print(Text(MARGIN) + part, soft_wrap=True)
    return console.export_svg(
        title="An incident, looked into and repaired",
        theme=THEMES[theme],
        code_format=_PICTURE.replace("FRAME", FRAMES[theme]),
        font_aspect_ratio=0.6,
        unique_id="session",
    )


def _pictured(record: Sequence[Told]) -> Iterator[Text]:
    title = ""
    for told in record:
        title = told.title or title
        if not told.pictured:
            continue
        if title:
            yield Text(f"# {title}", style="bright_black")
            title = ""
        first, *more = told.shown.command.split("\n")
        yield Text.assemble(("$ ", "bright_black"), (first, "bold"))
        yield from (Text(line, style="bold") for line in more)
        yield from (Text.assemble(*((run.text, run.style) for run in line)) for line in _kept(told))
        yield Text()


def _kept(told: Told) -> list[list[Run]]:
    """The lines that are told; what is left out between them is said."""
    lines = told.shown.lines
    if not told.head or len(lines) <= told.head + told.tail:
        return lines
    return [*lines[: told.head], [Run(CUT)], *lines[len(lines) - told.tail :]]
