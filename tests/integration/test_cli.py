"""The command line says what is wrong in one line, with the exit code that a script can use."""

import json
import re
import socket
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from commands import Command
from servers import free_port

Start = Callable[..., Command]

OWN_JOBS = """
import msgspec
from penstock.core import contract

@contract("greet.person", attempts=2)
class Greet(msgspec.Struct):
    '''Greet a person.'''
    name: str
"""


@pytest.mark.parametrize(
    ("words", "environ", "code", "says"),
    [
        (["job", "nonsense"], {}, 1, "'nonsense' is not a job id"),
        (["submit", "ai.language", "{bad"], {}, 2, "the payload is not JSON"),
        (["queues"], {"PENSTOCK_API_PORT": "99999"}, 2, "PENSTOCK_API_PORT: Expected `int` <= 65535"),
        (["worker", "--jobs", "nosuch.jobs"], {}, 2, "nosuch.jobs cannot be imported"),
        (
            ["flow", "list", "--state", "melted"],
            {},
            2,
            "there is no state 'melted' of a flow; there are: active",
        ),
        (["up", "--no-demo", "--jobs", "nosuch.jobs"], {}, 2, "nosuch.jobs cannot be imported"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    penstock: Start, words: list[str], environ: dict[str, str], code: int, says: str
) -> None:
    command = penstock(*words, **environ)
    assert command.wait() == code
    assert command.output.startswith("penstock: ")
    assert command.output.count("\n") == 1
    assert says in command.output


def test_without_an_api_the_way_out_is_named(penstock: Start) -> None:
    command = penstock("queues", PENSTOCK_API_PORT=free_port())
    assert command.wait() == 1
    assert "start it with `penstock up`" in command.output


@pytest.mark.parametrize("words", [("api", "API"), ("dashboard", "DASHBOARD"), ("mailcatcher", "MAIL_WEB")])
def test_a_port_in_use_is_one_line_that_names_another_one(penstock: Start, words: tuple[str, str]) -> None:
    command, name = words
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = penstock(command, **{"PENSTOCK_MAIL_PORT": free_port(), f"PENSTOCK_{name}_PORT": port})
        assert refused.wait() == 2, refused.output
    says = rf"penstock: port {port} for the .* is in use: .* PENSTOCK_{name}_PORT={port + 1}\n"
    assert re.fullmatch(says, refused.output), refused.output


def test_a_wrong_option_exits_with_2(penstock: Start) -> None:
    assert penstock("worker", "--concurrency", "many").wait() == 2


def test_types_are_listed_plainly_in_a_pipe_and_as_json(penstock: Start) -> None:
    plain = penstock("types")
    assert plain.wait() == 0
    assert "\x1b" not in plain.output
    assert plain.output.splitlines()[0].split() == ["type", "queue", "attempts", "timeout", "summary"]
    as_json = penstock("types", "--json")
    assert as_json.wait() == 0
    assert {"ai.language", "email.send", "image.thumbnails"} <= {
        row["type"] for row in json.loads(as_json.output)
    }


def test_own_jobs_in_the_current_folder_are_known(penstock: Start, tmp_path: Path) -> None:
    (tmp_path / "my_jobs.py").write_text(OWN_JOBS)
    for command in (penstock("types", "--jobs", "my_jobs"), penstock("types", PENSTOCK_JOBS="my_jobs")):
        assert command.wait() == 0
        assert "greet.person" in command.output
        assert "Greet a person." in command.output


def test_help_names_every_command(penstock: Start) -> None:
    command = penstock("--help")
    assert command.wait() == 0
    for name in (
        "up",
        "api",
        "worker",
        "projector",
        "mailcatcher",
        "server",
        "demo",
        "submit",
        "job",
        "events",
        "failures",
    ):
        assert f"\n  {name} " in command.output


def test_the_version_is_that_of_the_package(penstock: Start) -> None:
    command = penstock("--version")
    assert command.wait() == 0
    assert command.output == f"penstock {version('penstock')}\n"
